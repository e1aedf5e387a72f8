"""Which series of a study are used."""

import re
from typing import Any

import numpy as np
import pytest
from fire.parser import DefaultParseValue
from pydicom.dataset import Dataset

from clinic.dicom import SecondT1, Series, choose

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
    **more: Any,
) -> Series:
    header = Dataset()
    header.update({"MRAcquisitionType": "3D", "ImageType": ["ORIGINAL", "PRIMARY", "M"]})
    header.update({"AcquisitionDate": "20240102", "AcquisitionTime": f"10{number:02d}00"})
    header.update({"SeriesDescription": description, "SeriesNumber": number, **parameters, **more})
    return Series(number, f"1.2.{number}", (), header, "1", spacing, shape, np.eye(4), False, (), part, problem)


FULL = [
    series(1, "localizer", T1),
    series(2, "t1_mprage", T1),
    series(3, "t2_tse", T2),
    series(4, "t2_flair", FLAIR),
    series(5, "t1_mprage_KM", T1 | GD),
]


def numbers(selection) -> dict[str, int]:
    return {name: one.number for name, one in selection.modalities.items()}


def test_a_full_study():
    selection = choose(FULL)
    assert numbers(selection) == {"t1": 2, "t1c": 5, "t2": 3, "flair": 4}
    assert list(selection.modalities) == ["t1", "t1c", "t2", "flair"]
    assert selection.verdicts["t1c"].confidence == 0.95
    assert selection.warnings == []
    assert selection.explanations[0] == "series 1: left out: localizer ('localizer')."
    assert selection.explanations[1].startswith("series 2: T1, confidence 0.85 (words: 't1'; parameters: TR 2300 ms")
    assert all(line.endswith("; taken.") for line in selection.explanations[1:])


BETTER = {
    "3D": ({}, {"MRAcquisitionType": "2D", "spacing": (0.5, 0.5, 1), "shape": (512, 512, 170)}),
    "of thinner slices": ({"spacing": (1, 1, 1)}, {"spacing": (1, 1, 1.5), "shape": (512, 512, 170)}),
    "of a larger matrix": ({"shape": (320, 320, 170)}, {}),
    "original and not reformatted": ({"spacing": (1, 1, 5)}, {"ImageType": ["DERIVED", "SECONDARY", "MPR"]}),
    "corrected for distortion or intensity": ({"ImageType": ["ORIGINAL", "PRIMARY", "M", "DIS2D"]}, {}),
}


@pytest.mark.parametrize("reason", BETTER)
@pytest.mark.parametrize("first", [True, False])
def test_the_better_of_two(reason, first):
    better, worse = BETTER[reason]
    study = [
        series(3, "t2_tse", T2, **(better if first else worse)),
        series(4, "t2_tse", T2, **(worse if first else better)),
    ]
    taken, other = (0, 1) if first else (1, 0)
    selection = choose(study)
    assert numbers(selection) == {"t2": study[taken].number}
    assert selection.explanations[taken].endswith("; taken.")
    assert selection.explanations[other].endswith(f"; not taken, since series {study[taken].number} is {reason}.")


def test_the_surer_of_two_whatever_its_resolution():
    """An agent named for the whole study makes no T1c; a series that says so itself is preferred."""
    said = series(3, "T1 se +C", T1 | GD, spacing=(1, 1, 5), shape=(256, 256, 40))
    selection = choose([series(2, "t1_mprage", T1 | GD), said, series(4, "t2_tse", T2 | GD)])
    assert numbers(selection) == {"t1c": 3, "t2": 4}
    assert "as for every series of the study" in selection.explanations[0]
    assert selection.explanations[0].endswith("not taken, since series 3 is recognised more surely.")


def test_the_later_of_two_after_contrast():
    assert numbers(choose([*FULL, series(9, "t1_mprage_KM", T1 | GD)]))["t1c"] == 9


@pytest.mark.parametrize("description", ["t2_tse", "t1_mprage nativ", "t2_flair"])
def test_two_that_cannot_be_told_apart(description):
    parameters = {"t2_tse": T2, "t1_mprage nativ": T1, "t2_flair": FLAIR}[description]
    with pytest.raises(
        ValueError, match=r"series 3 and 8 are all .* cannot be told apart\. Choose by SeriesNumber: --series"
    ) as info:
        choose([series(1, "localizer", T1), series(3, description, parameters), series(8, description, parameters)])
    said = str(info.value).splitlines()
    assert [line.split(":")[0] for line in said[1:]] == ["series 1", "series 3", "series 8"]
    modality = {"t2_tse": "t2", "t1_mprage nativ": "t1", "t2_flair": "flair"}[description]
    study = [series(3, description, parameters), series(8, description, parameters)]
    selection = choose(study, {modality: 3})
    assert numbers(selection) == {modality: 3}
    assert selection.explanations[1].endswith("; not used, as requested.")


def test_a_t1_that_says_nothing_after_contrast():
    """Philips states no agent; a T1 after the perfusion series is after contrast, one before it is not."""
    perfusion = series(5, "DSC perfusion", {"ScanningSequence": "EP"} | GD)
    study = [series(2, "T1W_3D_TFE", T1), perfusion, series(7, "T1W_3D_TFE", T1)]
    selection = choose(study)
    assert numbers(selection) == {"t1": 2, "t1c": 7}
    assert "acquired after a series with contrast agent" in selection.explanations[2]
    assert selection.verdicts["t1c"].confidence == 0.68
    assert selection.warnings == []


def test_the_surer_of_two_is_taken():
    """A 3D T1 after contrast agent as Philips names it, and a 2D one that says so plainly."""
    study = [series(3, "T1/3D/FFE", T1), series(7, "T1/3D/FFE/C", T1)]
    assert numbers(choose(study)) == {"t1": 3, "t1c": 7}
    assert numbers(choose([*study, series(9, "T1/SE/GD", T1, spacing=(1, 1, 6))])) == {"t1": 3, "t1c": 9}


def test_a_t1_that_says_before_contrast_is_believed():
    late = series(7, "T1 pre contrast", T1)
    assert numbers(choose([series(5, "t1 KM", T1 | GD), late])) == {"t1": 7, "t1c": 5}


def test_slabs_are_no_brains():
    pituitary = series(6, "t1_se_cor_KM", T1 | GD, spacing=(0.4, 0.4, 3), shape=(448, 448, 15))
    selection = choose([*FULL[:4], pituitary])
    assert "t1c" not in selection.modalities
    assert "a slab of 45 mm, not a whole brain" in selection.explanations[4]


def test_by_hand():
    selection = choose(FULL, {"T1ce": 2, "t1": None, "flair": "1"})
    assert numbers(selection) == {"t1c": 2, "t2": 3, "flair": 1}
    assert selection.verdicts["flair"].confidence == 1
    assert selection.explanations[0] == "series 1: FLAIR, confidence 1.00 (set by hand); taken."
    assert selection.explanations[4].endswith("; not used, as requested.")


def test_of_several_that_cannot_be_used_each_says_why():
    parts = [
        series(3, "t2_tse", T2, part=k, problem=why) for k, why in enumerate(("a slice is missing", "no place"), 1)
    ]
    with pytest.raises(ValueError, match=r"^series 3-1 is the first of 2 T2, none of which can be used: a sl") as info:
        choose([FULL[1], *parts])
    assert str(info.value).endswith("; cannot be used: no place.")


def test_one_of_several_with_a_number():
    parts = [series(3, "t2_tse", T2, part=1), series(3, "t2_tse", T2, part=2)]
    assert choose(parts, {"t2": "3-2"}).modalities["t2"] is parts[1]
    with pytest.raises(ValueError, match=r"t2: 3\.2: there is no such series; expected one of 3-1, 3-2"):
        choose(parts, {"t2": 3.2})
    with pytest.raises(ValueError, match=r"t2: 3: several volumes have this number; expected one of 3-1, 3-2"):
        choose(parts, {"t2": 3})


def test_ten_of_several_with_a_number():
    """What a message tells the user to type works as typed: 3.10 would otherwise be 3.1."""
    parts = [series(3, "t2_tse", T2, part=part) for part in range(1, 12)]
    with pytest.raises(ValueError, match=r"cannot be told apart") as info:
        choose(parts)
    typed = re.search(r'--series "(.*)"', str(info.value))[1]
    assert typed == "{'t2': '3-11'}"
    assert choose(parts, DefaultParseValue(typed)).modalities["t2"] is parts[10]
    assert choose(parts, DefaultParseValue("{'t2': '3-10'}")).modalities["t2"] is parts[9]


def test_two_t1_that_say_nothing_and_no_t1c():
    study = [*FULL[:4], series(7, "t1_mprage", T1, spacing=(1, 1, 2))]
    selection = choose(study)
    assert numbers(selection) == {"t1": 2, "t1c": 7, "t2": 3, "flair": 4}
    assert selection.explanations[4].endswith("agent is named), or T1c; taken.")
    assert selection.warnings == []
    assert selection.second_t1 == SecondT1(
        False,
        "series 2 and 7 are all T1 by their headers, none of which says anything of contrast agent; one of them may "
        "be after it. If so: --series \"{'t1c': 7}\"",
    )
    set_by_hand = choose(study, {"t1": 7})
    assert numbers(set_by_hand) == {"t1": 7, "t1c": 2, "t2": 3, "flair": 4}
    assert set_by_hand.second_t1 is not None
    assert not set_by_hand.second_t1.tied
    assert choose(study, {"t1c": 7}).second_t1 is choose(study, {"t1c": None}).second_t1 is None
    for other in (
        FULL[4],
        series(7, "t1_mprage nativ", T1, spacing=(1, 1, 2)),
        series(7, "t1_mprage MPR", T1, ImageType=["DERIVED", "SECONDARY", "MPR"]),
    ):
        selection = choose([*FULL[:4], other])
        assert (selection.second_t1, selection.warnings) == (None, [])


def test_two_t1_of_one_header():
    study = [*FULL[:4], series(7, "t1_mprage", T1)]
    selection = choose(study)
    assert numbers(selection) == {"t1": 2, "t1c": 7, "t2": 3, "flair": 4}
    assert selection.second_t1 is not None
    assert selection.second_t1.tied
    said, *lines = selection.second_t1.message.splitlines()
    assert said == "series 2 and 7 are all T1 and cannot be told apart. Choose by SeriesNumber: --series \"{'t1': 7}\""
    assert lines == selection.explanations
    with pytest.raises(ValueError, match="series 2 and 7 and 8 are all T1 and cannot be told apart"):
        choose([*study, series(8, "t1_mprage", T1)])
