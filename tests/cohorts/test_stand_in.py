"""Stand-ins have the names and label values of the cohorts that they stand for."""

import csv

import numpy as np
import pytest

from common.cohorts import COHORTS, get_cohort, prepare
from common.cohorts.datalist import CROSS_VALIDATION, published_splits
from common.cohorts.missing import mask_cases
from common.cohorts.phantom.stand_in import write_stand_in
from common.io import read_volume

SPLITS = [
    ("brats2015", "robustseg"),
    ("brats2018", "fold3"),
    ("brats2019", None),
    ("brats2020", "cv2of3"),
    ("brats2023", "imfuse"),
    ("msd_task01", "mag_ms"),
    ("iseg2017", "mag_ms"),
    ("myops2020", None),
]


@pytest.mark.parametrize(("name", "split"), SPLITS)
def test_official_names_and_label_values(tmp_path, name, split):
    cohort = get_cohort(name)
    root = write_stand_in(cohort, tmp_path, split)
    parts = prepare(name, root, split, root / "datalist.json")
    listed = published_splits(name)
    for part, items in parts.items():
        assert items
        known = listed[split][part] if split in listed else [c for s in listed.values() for p in s.values() for c in p]
        assert not known or {item["case"] for item in items} <= set(known)
        assert all(item["modalities"] == list(cohort.modalities) for item in items)
    values = {0} | {int(v) for items in parts.values() for item in items for v in np.unique(label(item["label"]))}
    assert values == {0, *cohort.labels.values.values()}


def label(path):
    return read_volume(path)


def test_folds_of_a_cross_validation_test_on_other_cases_of_the_same(tmp_path):
    cohort, tested, everything = get_cohort("brats2020"), [], []
    for split in ("cv1of3", "cv2of3", "cv3of3"):
        assert CROSS_VALIDATION.fullmatch(split)
        root = write_stand_in(cohort, tmp_path, split)
        parts = prepare("brats2020", root, split, root / "datalist.json")
        tested += [item["case"] for item in parts["test"]]
        everything.append({item["case"] for items in parts.values() for item in items})
    assert len(set(tested)) == len(tested)
    assert everything[0] == everything[1] == everything[2] == set(tested)


def test_published_masks_are_cut_to_the_cases(tmp_path):
    root = write_stand_in(get_cohort("brats2020"), tmp_path, "fixed")
    training = prepare("brats2020", root, "fixed", root / "datalist.json")["training"]
    masked = mask_cases(training, ("t1", "t1c", "t2", "flair"), masks=root / "mr2258.csv")
    with open(root / "mr2258.csv", newline="") as file:
        assert [row["case"] for row in csv.DictReader(file)] == [item["case"] for item in training]
    assert len(masked[0]["modalities"]) == 4
    assert {len(item["modalities"]) for item in masked} > {4}


def test_every_cohort_has_a_stand_in_and_one_that_is_there_stays(stand_in):
    written = {name: stand_in(name) / "datalist.json" for name in COHORTS if "_cavity_" not in name}
    before = {name: path.stat().st_mtime_ns for name, path in written.items()}
    assert before == {name: stand_in(name).joinpath("datalist.json").stat().st_mtime_ns for name in written}


def test_a_cohort_without_the_cavity_has_the_same_files(tmp_path):
    root = write_stand_in(get_cohort("brats2024_gli_cavity_background"), tmp_path, None)
    assert max(label(path).max() for path in root.glob("*/*-seg.nii.gz")) == 4
