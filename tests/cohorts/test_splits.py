"""Whether names are those of the cohort that was asked for, and no patient is in two parts."""

import json

import pytest
from layouts import LAYOUTS, touch, touch_cases
from refusals import refused

from common.cohorts import COHORTS, get_cohort, prepare
from common.cohorts.registry import owners, patient_of
from common.cohorts.scan import find_cases
from common.cohorts.splits import PARTS, divide, official_splits, split_cases

GLIOMA = [
    name for name in COHORTS if "_cavity_" not in name and name not in ("phantom", "myops2020", "iseg2017", "glioma")
]


@pytest.mark.parametrize("data", LAYOUTS)
def test_the_names_of_a_data_set_are_refused_by_every_cohort_that_would_read_it_otherwise(tmp_path, data):
    """More than 300 wrong pairings of data set and cohort; one of the same cases and values is accepted."""
    touch_cases(tmp_path, data)
    accepted = []
    for cohort in GLIOMA:
        try:
            prepare(cohort, tmp_path)
            accepted.append(cohort)
        except (ValueError, FileNotFoundError):
            pass
    assert data in accepted
    case = find_cases(tmp_path, get_cohort(data))[0]["case"]
    assert set(accepted) <= {cohort.name for cohort in owners(case)}


def test_a_cohort_for_any_data_accepts_names_if_their_labels_have_the_same_values(tmp_path):
    touch_cases(tmp_path, "brats2024_gli")
    assert prepare("glioma", tmp_path)["test"]
    with refused(ValueError, "BraTS-PED-00001-000 is named like a case of brats_ped or brats2023_ped", "glioma was"):
        prepare("glioma", touch_cases(tmp_path / "children", "brats_ped"))


def test_published_names_are_those_of_their_cohort():
    for name, cohort in COHORTS.items():
        for split in official_splits(name).values():
            assert all(cohort in owners(case) for part in split.values() for case in part)


@pytest.mark.parametrize("name", LAYOUTS)
def test_no_patient_is_in_two_parts(tmp_path, name):
    cohort = get_cohort(name)
    items = find_cases(touch_cases(tmp_path, name), cohort)
    for split in (None, "cv1of5", "cv2of5", "cv3of5", "cv4of5", "cv5of5"):
        parts = divide(items, cohort, name, split)
        patients = [{patient_of(item) for item in parts[part]} for part in PARTS]
        assert sum(map(len, patients)) == len(set.union(*patients)) == 6
        assert all(parts[part] for part in PARTS)


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        (lambda first: {"patient": patient_of(first)}, "patient BraTS2021_00001 is in two parts"),
        (lambda first: {"image": first["image"]}, "t1.nii.gz is in two parts"),
    ],
)
def test_a_datalist_with_a_patient_or_an_image_in_two_parts_is_refused(tmp_path, change, fact):
    items = find_cases(touch_cases(tmp_path, "brats2021"), get_cohort("brats2021"))
    first, second = items[0], items[1] | change(items[0])
    (tmp_path / "apart.json").write_text(json.dumps({"training": [first], "test": [second]}))
    with refused(ValueError, fact, "BraTS2021_00001 in training", "BraTS2021_00002 in test"):
        prepare("brats2021", tmp_path, datalist=tmp_path / "apart.json")
    (tmp_path / "together.json").write_text(json.dumps({"training": [first, second]}))
    assert len(prepare("brats2021", tmp_path, datalist=tmp_path / "together.json")["training"]) == 2


def test_a_patient_that_only_names_show_in_two_parts_is_warned_about(tmp_path, caplog):
    items = find_cases(touch_cases(tmp_path, "brats2023", patients=1), get_cohort("brats2023"))
    (tmp_path / "apart.json").write_text(json.dumps(dict(zip(("training", "test"), ([i] for i in items), strict=True))))
    prepare("brats2023", tmp_path, datalist=tmp_path / "apart.json")
    (record,) = caplog.records
    assert "patient BraTS-GLI-00001 is in two parts" in record.message


def test_names_of_a_datalist_and_of_a_folder_are_checked(tmp_path):
    items = find_cases(touch_cases(tmp_path, "brats2023"), get_cohort("brats2023"))
    (tmp_path / "list.json").write_text(json.dumps({"training": items}))
    for call in (
        lambda: prepare("brats2021", tmp_path, datalist=tmp_path / "list.json"),
        lambda: split_cases(get_cohort("brats2021"), tmp_path, "full"),
    ):
        with refused(ValueError, "BraTS-GLI-00001-000 is named like a case of brats2023", "but brats2021 was"):
            call()


def test_a_list_of_patients_says_whose_cases_these_are(tmp_path):
    touch(tmp_path, *(f"P{n}_{time}/{t}.nii.gz" for n in range(3) for time in "ab" for t in ("t1", "seg")))
    table = tmp_path / "patients.csv"
    table.write_text("patient,case\n" + "".join(f"P{n},P{n}_{time}\n" for n in range(3) for time in "ab"))
    parts = split_cases(get_cohort("brats2021"), tmp_path, patients=table)
    assert [{patient_of(item) for item in parts[part]} for part in PARTS] == [{"P0"}, {"P2"}, {"P1"}]
    for text, fact in (
        ("patient,case\nP9,P9_a\n", "1 of its 1 cases are not in"),
        ("patient,case\nP1,\n", "with a name in every row"),
        ("who,case\nP1,P1_a\n", "columns who, case; expected case and patient"),
        ("patient,case\nP1,P1_a\nP2,P1_a\n", "two rows for P1_a; expected one for each case"),
    ):
        table.write_text(text)
        with refused(ValueError, "patients.csv", fact):
            split_cases(get_cohort("brats2021"), tmp_path, patients=table)
