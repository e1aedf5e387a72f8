"""Which series of a study are used."""

import re
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from choosing import choose
from pydicom.dataset import Dataset

from common.modalities import GLIOMA
from mmb.clinic.intake.series import Series
from mmb.clinic.recognise.assign import assign_series
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.claims import series_candidates
from mmb.clinic.recognise.evidence import Candidate, HeaderEvidence
from mmb.clinic.recognise.record import Record
from mmb.errors import StudyError

T1 = {"ScanningSequence": ["GR", "IR"], "RepetitionTime": 2300, "EchoTime": 3, "InversionTime": 900}
T2 = {"ScanningSequence": "SE", "RepetitionTime": 5200, "EchoTime": 98}
FLAIR = {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500}
GD = {"ContrastBolusAgent": "Gadovist"}


def series(
    number: int,
    description: str,
    parameters: dict[str, Any],
    *,
    spacing: tuple[float, ...] = (1, 1, 1),
    shape: tuple[int, ...] = (256, 256, 170),
    problem: str | None = None,
    part: int = 0,
    axes: tuple[int, ...] = (0, 1, 2),
    **more: Any,
) -> Series:
    """Return a series whose columns, rows and slices lie along these axes of the patient."""
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, list(axes)] * spacing
    header = Dataset()
    header.update({"MRAcquisitionType": "3D", "ImageType": ["ORIGINAL", "PRIMARY", "M"]})
    header.update({"AcquisitionDate": "20240102", "AcquisitionTime": f"{100000 + number}"})
    header.update({"SeriesDescription": description, "SeriesNumber": number, **parameters, **more})
    return Series(number, f"1.2.{number}", (), header, "1", spacing, shape, affine, False, (), part, problem)


FULL = [series(1, "localizer", T1), series(2, "t1_mprage", T1), series(3, "t2_tse", T2)]
FULL += [series(4, "t2_flair", FLAIR), series(5, "t1_mprage_KM", T1 | GD)]


def numbers(selection) -> dict[str, int]:
    return {name: one.candidate.series.number for name, one in selection.chosen.items()}


def lines(selection) -> list[str]:
    return [record.line() for record in selection.records]


def test_a_full_study():
    assert numbers(choose([*FULL, series(9, "t1_mprage_KM", T1 | GD)]))["t1c"] == 9  # the later of two
    selection = choose(FULL)
    assert numbers(selection) == {"t1": 2, "t1c": 5, "t2": 3, "flair": 4}
    assert list(selection.chosen) == ["t1", "t1c", "t2", "flair"]
    assert (selection.chosen["t1c"].grade, selection.remarks) == (Grade.SURE, [])
    assert lines(selection)[0] == "series 1: left out: localizer ('localizer')."
    assert lines(selection)[1].startswith("series 2: T1, likely (words: 't1'; parameters: TR 2300 ms")
    assert all(line.endswith("; used.") for line in lines(selection)[1:])


BETTER = {
    "3D": ({}, {"MRAcquisitionType": "2D", "spacing": (0.5, 0.5, 1), "shape": (512, 512, 170)}),
    "of thinner slices": ({"spacing": (1, 1, 1)}, {"spacing": (1, 1, 1.5), "shape": (512, 512, 170)}),
    "of a larger matrix": ({"shape": (320, 320, 170)}, {}),
    "original and not reformatted": ({"spacing": (1, 1, 5)}, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
    "corrected for distortion, intensity or noise": ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "DIS2D"]}, {}),
}


@pytest.mark.parametrize("reason", BETTER)
@pytest.mark.parametrize("first", [True, False])
def test_the_better_of_two(reason, first):
    better, worse = BETTER[reason]
    both = ((3, better), (4, worse)) if first else ((3, worse), (4, better))
    study = [series(number, "t2_tse", T2, **more) for number, more in both]
    taken, other = (0, 1) if first else (1, 0)
    selection = choose(study)
    assert numbers(selection) == {"t2": study[taken].number}
    assert lines(selection)[taken].endswith("; used.")
    assert lines(selection)[other].endswith(f"; not used, since series {study[taken].number} is {reason}.")


def test_the_surer_of_two_whatever_its_resolution():
    """An agent named for the whole study makes no T1c; a series that says so itself is preferred."""
    said = series(3, "T1 se +C", T1 | GD, spacing=(1, 1, 5), shape=(256, 256, 40))
    selection = choose([series(2, "t1_mprage", T1 | GD), said, series(4, "t2_tse", T2 | GD)])
    assert numbers(selection) == {"t1c": 3, "t2": 4}
    assert "as for every series of the study" in lines(selection)[0]
    assert lines(selection)[0].endswith("not used, since series 3 is recognised more surely.")


def test_two_that_cannot_be_told_apart():
    study = [series(1, "localizer", T1), series(3, "t2_tse", T2), series(8, "t2_tse", T2)]
    with pytest.raises(StudyError) as refused:
        choose(study)
    assert (refused.value.code, refused.value.about) == ("equal", ("t2",))
    assert [each.source for each in refused.value.found] == ["series 1", "series 3", "series 8"]
    selection = choose(study, {"t2": 3})
    assert numbers(selection) == {"t2": 3}
    assert lines(selection)[2].endswith("; not used, as requested.")


def test_a_t1_that_says_nothing_after_contrast():
    """Philips states no agent; a T1 after the perfusion series is after contrast, one before it is not."""
    perfusion = series(5, "DSC perfusion", {"ScanningSequence": "EP"} | GD)
    selection = choose([series(2, "T1W_3D_TFE", T1), perfusion, series(7, "T1W_3D_TFE", T1)])
    assert numbers(selection) == {"t1": 2, "t1c": 7}
    assert "acquired after a series with contrast agent" in lines(selection)[2]
    assert (selection.chosen["t1c"].grade, selection.remarks) == (Grade.OPEN, [])


def test_the_surer_of_two_is_taken_and_one_that_says_before_contrast_is_believed():
    """A 3D T1 after contrast agent as Philips names it, and a 2D one that says so plainly."""
    study = [series(3, "T1/3D/FFE", T1), series(7, "T1/3D/FFE/C", T1)]
    assert numbers(choose(study)) == {"t1": 3, "t1c": 7}
    assert numbers(choose([*study, series(9, "T1/SE/GD", T1, spacing=(1, 1, 6))])) == {"t1": 3, "t1c": 9}
    assert numbers(choose([series(5, "t1 KM", T1 | GD), series(7, "T1 pre contrast", T1)])) == {"t1": 7, "t1c": 5}


def test_by_hand():
    selection = choose(FULL, {"T1ce": 2, "t1": None, "flair": "1"})
    assert numbers(selection) == {"t1c": 2, "t2": 3, "flair": 1}
    assert selection.chosen["flair"].stated_grade is None
    assert lines(selection)[0] == "series 1: FLAIR (set by hand); used."
    assert lines(selection)[4].endswith("; not used, as requested.")


def test_of_several_that_cannot_be_used_each_says_why():
    problems = enumerate(("a slice is missing", "no place"), 1)
    parts = [series(3, "t2_tse", T2, part=part, problem=problem) for part, problem in problems]
    with pytest.raises(StudyError) as refused:
        choose([FULL[1], *parts])
    assert (refused.value.code, refused.value.about) == ("unusable", ("t2",))
    assert [each.problem for each in refused.value.found] == ["", "a slice is missing", "no place"]


def test_one_of_several_with_a_number():
    """What a message tells the user to type works with a number filled in: 3.10 would otherwise be 3.1."""
    parts = [series(3, "t2_tse", T2, part=part) for part in range(1, 12)]
    with pytest.raises(ValueError, match=r"cannot be told apart") as info:
        choose(parts)
    name, number = re.search(r"--series (\w+)=(\S+)", str(info.value)).groups()
    assert choose(parts, {name: number.replace("NUMBER-PART", "3-10")}).chosen["t2"].candidate.series is parts[9]
    with pytest.raises(ValueError, match=r"t2: 3\.2: there is no such series; expected one of 3-1, 3-2"):
        choose(parts, {"t2": 3.2})
    with pytest.raises(ValueError, match=r"t2: 3: several volumes have this number; expected one of 3-1, 3-2"):
        choose(parts, {"t2": 3})


CLASSES = ("t1", "t1c", "t2", "flair", "other")


def looking(**shown: str):
    """Return a function that finds what images show: by ``s<SeriesNumber>`` a class, or two that are as likely."""

    def look(candidates):
        look.seen = [each.series.number for each in candidates]
        words = {each.name: shown.get(f"s{each.series.number}", each.says.modality).split() for each in candidates}
        return {name: {kind: 0.0 if kind in likely else -6.0 for kind in CLASSES} for name, likely in words.items()}

    look.seen = []
    return look


TWO_T1 = [series(7, "t1", T1), series(8, "t1", T1)]
COARSE = {"spacing": (1, 1, 6), "shape": (256, 256, 26), "MRAcquisitionType": "2D"}
CLOSED = [
    series(401, "t2_tse", T2, **COARSE), series(501, "t2_flair", FLAIR, **COARSE),
    series(601, "T1W_SE", T1, **COARSE), series(651, "T2*", T2, **COARSE), series(701, "T1W_SE", T1, **COARSE),
    series(751, "T1W_SE SUB", T1, **COARSE), series(801, "T1W_3D +C", T1 | GD, axes=(0, 2, 1)),
]  # fmt: skip
"""A study as from a hospital: two T1 of one name, before and after contrast agent, and a T1c in 3D of another plane."""


@pytest.mark.parametrize(
    ("study", "shown", "expected"),
    [
        (CLOSED, {"s601": "t1", "s701": "t1c", "s801": "t1c"}, {"t1": 601, "t1c": 701}),
        (CLOSED, {"s601": "t1c", "s701": "t1", "s801": "t1c"}, {"t1": 701, "t1c": 601}),
        (CLOSED[:-1], {"s601": "t1", "s701": "t1c"}, {"t1": 601, "t1c": 701}),
        (CLOSED, {"s601": "t1", "s701": "t1c t1", "s801": "t1c"}, {"t1": 601, "t1c": 801}),
        (CLOSED, {"s601": "t1", "s701": "other", "s801": "t1c"}, {"t1": 601, "t1c": 801}),
        ([series(2, "t1 +c", T1 | GD), *TWO_T1], dict.fromkeys(("s2", "s7", "s8"), "t1c"), {"t1c": 8}),
        ([*FULL, series(7, "t1_mprage", T1, **COARSE)], {"s2": "t1", "s7": "t1c"}, {"t1": 2, "t1c": 5}),
        ([series(2, "t1", T1 | GD), series(7, "t1", T1 | GD)], {"s2": "t1", "s7": "t1c"}, {"t1": 2, "t1c": 7}),
        ([series(2, "t1 nativ", T1), series(7, "t1", T1)], {"s2": "t1", "s7": "t1c"}, {"t1": 2, "t1c": 7}),
        ([series(3, "t2", T2), series(8, "t2", T2)], {"s3": "flair", "s8": "t2"}, {"t2": 8}),
    ],
)
def test_images_decide_what_headers_leave_open(study, shown, expected):
    found = numbers(choose(study, look=looking(**shown)))
    assert {name: number for name, number in found.items() if name in expected or name in ("t1", "t1c")} == expected


def test_a_closed_study_says_what_it_used_and_what_else_there_is():
    selection = choose(CLOSED, look=looking(s601="t1", s701="t1c", s801="t1c"))
    assert numbers(selection) == {"t1": 601, "t1c": 701, "t2": 401, "flair": 501}
    assert [one.by_image for one in selection.chosen.values()] == [True, True, False, False]
    assert selection.chosen["t1c"].reason.startswith("by what it shows; its header: words: 't1'")
    assert [remark.text for remark in selection.remarks] == [
        "T1c too, but not used: series 801 (coronal, 1 x 1 x 1 mm), since series 701 (axial, 1 x 1 x 6 mm) is in the "
        "plane and resolution of the others."
    ]
    assert lines(selection)[4].endswith("; its image shows T1c (99%); used.")
    assert "left out: T2*" in lines(selection)[3]
    assert "left out: subtraction" in lines(selection)[5]


@pytest.mark.parametrize(
    ("study", "shown", "by_hand"),
    [
        (CLOSED, {"s601": "t1c", "s701": "t1c t1"}, {}),
        (CLOSED[:-1], {"s601": "t1", "s701": "t1c t1"}, {}),
        (CLOSED[:-1], {"s601": "other", "s701": "t1"}, {}),
        (CLOSED[:-1], {"s601": "t1", "s701": "t1"}, {}),
        (CLOSED[:-1], {"s601": "t1c", "s701": "t1c"}, {}),
    ],
)
def test_what_images_do_not_decide_is_refused_with_the_candidates_and_no_number_to_type(study, shown, by_hand):
    with pytest.raises(ValueError, match="neither header nor image tells") as refused:
        choose(study, by_hand, looking(**shown))
    assert (refused.value.code, refused.value.about) == ("undecided", ("t1", "t1c"))
    assert [(each.source, each.use) for each in refused.value.found if each.modality in ("t1", "t1c")] == [
        (one.name, "undecided") for one in study if one.number in (601, 701, 801)
    ]
    first, *listed = str(refused.value).splitlines()
    assert first.endswith("--series t1=NUMBER t1c=NUMBER")
    assert not re.search(r"--series.*=\d", str(refused.value))
    assert [line.split(":")[0] for line in listed] == [one.name for one in study]


def test_one_acquisition_that_was_reconstructed_twice_is_one_candidate():
    """As the scanner of a public study sends each T1, with and without a correction of intensity."""
    at = {"AcquisitionTime": "100000"}
    norm = series(7, "t1_mprage", T1, ImageType=["ORIGINAL", "PRIMARY", "M", "NORM"], **at)
    pair = [series(6, "t1_mprage", T1, ImageType=["ORIGINAL", "PRIMARY", "M", "ND"], **at), norm]
    look = looking()
    selection = choose([*pair, FULL[3]], None, look)
    assert (numbers(selection), look.seen) == ({"t1": 7, "flair": 4}, [])
    assert ", since series 7 (axial, 1 x 1 x 1 mm) is corrected for" in selection.remarks[0].text
    assert numbers(choose([*pair, FULL[4]])) == {"t1": 7, "t1c": 5}
    later = series(6, "t1_mprage", T1)
    with pytest.raises(ValueError, match="neither header nor image"):
        choose([later, norm], None, looking(s6="t1 t1c", s7="t1 t1c"))


def test_a_time_that_is_unknown_is_not_compared():
    pair = [series(5, "t1 KM", T1 | GD, AcquisitionTime=""), series(6, "t1 KM", T1 | GD)]
    assert [each.code for each in choose(pair).remarks] == ["rival"]


def test_what_is_earlier_than_a_sure_t1c_is_a_t1_unless_its_image_shows_contrast_agent():
    with pytest.raises(ValueError, match="series 601, series 701: all are T1 and cannot be told apart"):
        choose(CLOSED, {}, looking(s601="t1 t1c", s701="t1c t1"))
    assert numbers(choose(CLOSED, {}, looking(s601="t1", s701="t1c")))["t1c"] == 701


def test_what_is_set_by_hand_is_not_looked_at_and_studies_without_doubt_are_not():
    for study, by_hand in ((FULL, {}), (CLOSED, {"t1": 601, "t1c": 701}), (CLOSED, {"t1": 601, "t1c": None})):
        look = looking()
        choose(study, by_hand, look)
        assert look.seen == []
    look = looking(s701="t1 t1c", s801="t1c")
    selection = choose(CLOSED, {"t1": 601}, look)
    assert numbers(selection) == {"t1": 601, "t1c": 801, "t2": 401, "flair": 501}
    assert sorted(look.seen) == [401, 501, 601, 701, 801]
    said = "Left out: series 701 (axial, 1 x 1 x 6 mm): its image shows nothing clearly; its"
    assert selection.remarks[0].text.startswith(said)


def test_images_that_cannot_be_compared_are_refused_with_the_reason():
    candidates = series_candidates(CLOSED)
    with pytest.raises(ValueError, match=r"apart \(they could not be compared: no brain was found\)"):
        assign_series(candidates, GLIOMA, {}, "no brain was found.")
    equal = series_candidates([series(2, "t2", T2), series(3, "t2", T2)])
    with pytest.raises(ValueError, match=r"all are T2 and cannot be told apart \(they could not be compared: no brain"):
        assign_series(equal, GLIOMA, {}, "no brain was found.")


def placed(number: int, description: str, parameters: dict[str, Any], at: float, **more: Any) -> Series:
    """Return a series whose centre is at this height in mm."""
    made = series(number, description, parameters, **more)
    affine = made.affine.copy()
    affine[:3, 3] = [0, 0, at] - affine[:3, :3] @ ((np.array(made.shape) - 1) / 2)
    return replace(made, affine=affine)


FINE = {"spacing": (0.5, 0.5, 0.5), "shape": (512, 512, 340)}
LAST = {
    "where the other images lie": {"at": -400},
    "not of another part of the body by its header": {"BodyPartExamined": "CSPINE"},
    "original and not reformatted": {"ImageType": ["DERIVED", "PRIMARY", "OTHER"]},
}


@pytest.mark.parametrize("reason", LAST)
def test_what_is_not_of_this_head_or_derived_is_taken_last(reason):
    """It is taken only if there is nothing else, however fine it is, and however unsure the other one."""
    last = placed(9, "t2_flair", FLAIR, **{"at": 0} | LAST[reason], **FINE)
    study = [placed(2, "t1", T1, 0), placed(3, "t2", T2, 5), placed(4, "", FLAIR, 0, **COARSE), last]
    selection = choose(study)
    assert numbers(selection)["flair"] == 4
    assert lines(selection)[3].endswith(f"; not used, since series 4 is {reason}.")
    assert numbers(choose([*study[:2], study[3]]))["flair"] == 9


def test_another_part_of_the_body_is_left_out_by_its_word():
    for description in ("FLAIR c spine", "T2 HWS flair", "neck flair"):
        line = choose([*FULL[:3], series(9, description, FLAIR)]).records[3].line()
        assert "left out: image of another part of the body ('" in line
    assert "flair" in choose([*FULL[:3], series(9, "FLAIR head and neck", FLAIR)]).chosen
    assert choose([series(9, "t2_flair", FLAIR, BodyPartExamined="HEAD_NECK")]).remarks == []
    spine = choose([*FULL[:3], series(9, "t2_flair", FLAIR, BodyPartExamined="NECK")])
    by_hand = choose([*FULL[:3], series(9, "t2_flair", FLAIR, BodyPartExamined="NECK")], {"flair": 9})
    for gravity, (remark,) in (("warning", spine.remarks), ("stop", by_hand.remarks)):
        assert (remark.code, remark.gravity, remark.about) == ("other_body_part", gravity, ("flair",))
        assert ("neck" in remark.brief) == (gravity == "stop")


OTHERS = {"t2": -20.0, "flair": -20.0, "other": -20.0}


@pytest.mark.parametrize(("odds", "expected"), [(0.9, None), (1.1, "t1")])
def test_clear_class_needs_log_odds_of_1(odds, expected):
    record = Record(Candidate("series 1", "series 1"), "t1", Grade.OPEN, "", {"t1": 0.0, "t1c": -odds, **OTHERS})
    assert record.clear_class() == expected


@pytest.mark.parametrize(
    ("odds", "grade", "expected"),
    [(2.9, Grade.OPEN, "t1"), (3.1, Grade.OPEN, "t1c"), (3.1, Grade.LIKELY, "t1c"), (3.1, Grade.SURE, "t1")],
)
def test_assign_series_by_content_at_its_limits(odds, grade, expected):
    one = Candidate("series 1", "series 1", says=HeaderEvidence("t1", grade, ""))
    other = Candidate("series 2", "series 2", says=HeaderEvidence("t2", Grade.SURE, ""))
    shown = {"series 1": {"t1c": 0.0, "t1": -odds, **OTHERS}}
    assert [*assign_series([one, other], GLIOMA, shown).chosen] == [expected, "t2"]


@pytest.mark.parametrize(("slices", "taken"), [(79, False), (80, True), (81, True)])
def test_a_slab_is_less_than_80_mm(slices, taken):
    assert ("t2" in choose([*FULL[:2], series(3, "t2", T2, shape=(256, 256, slices))]).chosen) == taken


def test_an_image_over_half_of_the_others_does_not_lie_elsewhere():
    study = [placed(2, "t1", T1, 0), placed(4, "flair", FLAIR, 0, **COARSE), placed(9, "flair", FLAIR, -400, **FINE)]
    assert numbers(choose(study)) == {"t1": 2, "flair": 4}  # of its two others one lies over it, of series 9 none


@pytest.mark.parametrize(("thickness", "taken"), [(1.49, 5), (1.51, 6)])
def test_images_of_one_resolution_differ_by_less_than_one_and_a_half(thickness, taken):
    fine = series(6, "t1 KM", T1 | GD, spacing=(0.5, 0.5, 0.5), shape=(512, 512, 340))
    study = [series(2, "t1", T1), series(5, "t1 KM", T1 | GD, spacing=(1, 1, thickness)), fine]
    assert numbers(choose(study))["t1c"] == taken


def test_what_an_image_hardly_shows_is_not_said():
    shown = {"t1": np.log(0.87), "t1c": np.log(0.06), "t2": np.log(0.04), "flair": np.log(0.02), "other": np.log(0.01)}
    line = Record(Candidate("series 1", "series 1"), "t1", Grade.OPEN, "why", shown).line()
    assert line == "series 1: T1, open (why); its image shows T1 (87%) or T1c (6%)."
