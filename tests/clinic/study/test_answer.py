"""The first line of the console, the page and the table, and what it must agree with."""

import re

import numpy as np
import pytest

from common.modalities import GLIOMA
from mmb.clinic.remark import Gravity, Remark
from mmb.clinic.report.answer import answer
from mmb.clinic.report.doubts import pieces_warnings
from mmb.clinic.report.formats import millilitres
from mmb.clinic.report.lesions import Lesion
from mmb.clinic.report.verdicts import Presence, Verdict, verdicts
from mmb.predictors.calibration import Calibration

VOLUMES = {"WT": 55.2, "TC": 12.0, "ET": 3.1}
USABLE = {"WT": Verdict("usable for review"), "TC": Verdict("usable for review"), "ET": Verdict("doubtful", "no T1c")}
RIGHT, LEFT, BOTH = (Lesion(9.0, side, (1, 2, 3)) for side in ("right", "left", "both sides"))
CALIBRATION = Calibration(
    "0" * 64, "threshold", 14, 0.4, (0, 3), (1, 100), {}, doubted_below=0.7, doubted=(9, 100), found=(90, 120)
)


def said(
    volumes=VOLUMES, intervals=None, given=USABLE, lesions=(RIGHT,), found=Presence.FOUND, stops=(), calibration=None
) -> str:
    ends = {"WT": (46.0, 67.4)} if intervals is None else intervals
    return answer(volumes, ends, given, lesions, found, stops, calibration)


@pytest.mark.parametrize(
    ("volume", "text"), [(0.0, "0.0"), (0.04, "< 0.1"), (9.94, "9.9"), (9.96, "10"), (99.5, "100"), (115.4, "115")]
)
def test_volumes_are_as_exact_as_they_are_known(volume, text):
    assert millilitres(volume) == text


def test_a_tumour():
    assert said() == (
        "Tumour on the right: whole tumour 55 ml (46 to 67), tumour core 12 ml, enhancing tumour 3.1 ml (doubtful)."
    )
    doubted = dict.fromkeys(VOLUMES, Verdict("doubtful", "see the warnings"))
    assert "whole tumour 55 ml (46 to 67, doubtful), tumour core" in said(given=doubted)
    assert said(VOLUMES | {"ET": 0.0}).endswith("tumour core 12 ml, no enhancing tumour seen.")


@pytest.mark.parametrize(
    ("lesions", "where"),
    [
        ([RIGHT], "Tumour on the right:"),
        ([BOTH], "Tumour on both sides:"),
        ([LEFT, LEFT, LEFT], "Tumour in 3 places on the left:"),
        ([RIGHT, BOTH], "Tumour in 2 places on both sides:"),
        ([], "Tumour:"),
    ],
)
def test_where_it_is(lesions, where):
    assert said(lesions=lesions).startswith(where)


TWO = "2 small further pieces"


def sized(*lesions: tuple[float, str]) -> list[Lesion]:
    return [Lesion(volume, side, (1, 2, 3)) for volume, side in lesions]


@pytest.mark.parametrize(
    ("lesions", "where", "further"),
    [
        (sized((56, "left"), (0.4, "right")), "on the left", " A small further piece (0.4 ml) is on the right."),
        (sized((56, "left"), (0.4, "right"), (0.3, "left")), "on the left", f" {TWO} (0.7 ml) are on both sides."),
        (sized((30, "left"), (20, "left"), (2.9, "right"), (0.4, "right")), "in 2 places on the left",
         f" {TWO} (3.3 ml) are on the right."),
        (sized((30, "left"), (3, "right")), "in 2 places on both sides", ""),
    ],
)  # fmt: skip
def test_small_pieces_are_told_after_where_the_tumour_is(lesions, where, further):
    text = said(lesions=lesions)
    assert text.startswith(f"Tumour {where}:")
    assert text.endswith(f"enhancing tumour 3.1 ml (doubtful).{further}")
    perhaps = said(found=Presence.DOUBTFUL, lesions=lesions)
    assert f" {where} (55 ml) is doubtful." in perhaps
    assert perhaps.endswith(f"outlines of tumours scored more.{further}")


def test_what_scores_as_few_tumours_do_may_be_none():
    assert said(found=Presence.DOUBTFUL, calibration=CALIBRATION) == (
        "There may be no tumour: what is drawn on the right (55 ml) is doubtful. "
        "In tests, 91 of 100 outlines of tumours scored more."
    )


def test_no_tumour_is_not_said_to_be_certain():
    nothing = dict.fromkeys(VOLUMES, 0.0)
    assert said(nothing, found=Presence.NONE) == "No tumour found. This does not exclude one."
    assert said(nothing, found=Presence.NONE, calibration=CALIBRATION) == (
        "No tumour found. This does not exclude one: in tests, none was found in 30 of 120 results of patients with "
        "one."
    )
    assert said(found=Presence.NONE).startswith(
        "No tumour found with confidence; what is drawn (55 ml) is doubtful. This does not exclude one"
    )
    assert not re.search(r" to |right|left", said(found=Presence.NONE))


def test_what_stops_it_comes_before_everything():
    for found in Presence:
        assert said(stops=["T2 and FLAIR seem exchanged"], found=found) == "Do not use: T2 and FLAIR seem exchanged."


def test_what_stops_it_caps_every_verdict():
    scores = dict.fromkeys(VOLUMES, 0.99)
    stop = Remark("mirrored", Gravity.STOP, "", brief="the T1 seems mirrored")
    made = verdicts(VOLUMES, scores, GLIOMA, CALIBRATION, Presence.FOUND, [stop])
    assert {each.text for each in made.values()} == {"not reliable: the T1 seems mirrored"}


def cubes(*places: int) -> np.ndarray:
    mask = np.zeros((40, 12, 12), bool)
    for place in places:
        mask[place : place + 3, 4:7, 4:7] = True
    return mask


def test_pieces_are_counted_per_region():
    whole = np.zeros((40, 12, 12), bool)
    whole[1:39, 2:10, 2:10] = True
    four = {"WT": whole, "TC": cubes(4, 12, 20, 28), "ET": cubes(4)}
    (warning,) = pieces_warnings(four)
    assert warning.text.startswith("The tumour core is in 4 separate pieces, specks included, the largest with 25 %")
    (warning,) = pieces_warnings(four | {"TC": cubes(4), "ET": cubes(4, 12)})
    assert warning.text.startswith("The enhancing tumour is in 2 separate pieces")
    assert not [*pieces_warnings(four | {"TC": cubes(4)})]
    speck = cubes(4)
    speck[30, 5, 5] = True
    assert not [*pieces_warnings({"WT": whole, "TC": speck, "ET": speck})]
    (warning,) = pieces_warnings({"WT": cubes(4, 20), "TC": cubes(4, 20), "ET": cubes(4)})
    assert warning.text.startswith("The whole tumour is in 2 separate pieces")
