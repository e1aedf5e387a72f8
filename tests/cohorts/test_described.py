"""A JSON file describes a data set of one's own: its sequences, label values, regions and names of files."""

import json

import nibabel as nib
import numpy as np
import pytest
from refusals import refused

from common.cohorts import get_cohort, prepare
from common.cohorts.described import recorded
from common.cohorts.nnunet import described
from common.io.facts import TrainingFacts

PROSTATE = {
    "name": "prostate",
    "sequences": ["t2", "adc"],
    "labels": {"PZ": 1, "TZ": 2},
    "regions": {"TZ": ["TZ"], "prostate": ["PZ", "TZ"], "PZ": ["PZ"]},
}
MSD = {
    **PROSTATE,
    "case_names": r"prostate_\d+",
    "image_files": "imagesTr/{case}",
    "label_files": ["labelsTr/{case}"],
    "channels": ["t2", "adc"],
}


def written(folder, description):
    path = folder / "own.json"
    path.write_text(json.dumps(description))
    return str(path)


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(np.zeros((2, 2, 2)), np.eye(4)), folder / name)


def test_regions_are_painted_the_larger_first(tmp_path):
    cohort = get_cohort(written(tmp_path, PROSTATE))
    assert cohort.modalities == ("t2", "adc")
    assert list(cohort.labels.regions) == ["prostate", "TZ", "PZ"]
    assert not cohort.skull_stripped
    assert cohort.labels.painted() == ["PZ", "TZ", "PZ"]


def test_files_are_read_by_default_names_and_aliases(tmp_path):
    touch(tmp_path / "data", *(f"a/P{n}_{kind}.nii.gz" for n in range(4) for kind in ("T2W", "adc", "seg")))
    touch(tmp_path / "data", "P4-t2.nii.gz", "P4-label.nii.gz")
    parts = prepare(written(tmp_path, PROSTATE), tmp_path / "data", "all_test")
    cases = {item["case"]: item["modalities"] for item in parts["test"]}
    assert cases == {**{f"P{n}": ["t2", "adc"] for n in range(4)}, "P4": ["t2"]}


def test_files_are_read_by_names_that_are_said(tmp_path):
    touch(
        tmp_path / "Task05",
        *(f"{folder}/prostate_0{n}.nii.gz" for n in range(2) for folder in ("imagesTr", "labelsTr")),
    )
    parts = prepare(written(tmp_path, MSD), tmp_path / "Task05", "all_test")
    assert [item["channels"] for item in parts["test"]] == [[0, 1], [0, 1]]


def test_raw_data_of_nnunet_are_read_by_these_names(tmp_path):
    touch(tmp_path / "raw", *(f"imagesTr/P1_000{n}.nii.gz" for n in range(2)), "labelsTr/P1.nii.gz")
    content = {"channel_names": {"0": "ADC", "1": "T2"}, "labels": {"background": 0, "TZ": 1, "PZ": 2}}
    (tmp_path / "raw" / "dataset.json").write_text(json.dumps(content))
    (item,) = prepare(written(tmp_path, PROSTATE), tmp_path / "raw", "all_test")["test"]
    files = {name: path[-11:] for name, path in zip(item["modalities"], item["image"], strict=True)}
    assert files == {"t2": "0001.nii.gz", "adc": "0000.nii.gz"}
    assert item["label_values"] == {"TZ": 1, "PZ": 2}


@pytest.mark.parametrize(
    ("labels", "fact"),
    [
        ({"all": [1, 2], "TZ": [1]}, {"TZ": 1, "PZ": 2}),  # as `datalist --nnunet` writes it
        ({"all": [1, 2], "TZ": 1, "PZ": 2}, {"TZ": 1, "PZ": 2}),
        ({"all": [1, 2]}, "leave open which value is"),
        ({"all": [1, 2, 3], "TZ": 1, "PZ": 2}, "do not give each value one class"),
        ({"all": [1], "TZ": 1, "PZ": 2}, "each region all values"),
    ],
)
def test_raw_data_of_nnunet_may_name_these_regions(tmp_path, labels, fact):
    cohort = get_cohort(written(tmp_path, PROSTATE | {"regions": {"all": ["PZ", "TZ"], "TZ": ["TZ"]}}))
    content = {"channel_names": {"0": "T2", "1": "ADC"}, "labels": {"background": 0, **labels}}
    (tmp_path / "dataset.json").write_text(json.dumps(content))
    if isinstance(fact, dict):
        assert described(tmp_path).values(cohort.labels) == fact
    else:
        with refused(ValueError, "dataset.json", fact):
            described(tmp_path).values(cohort.labels)


def test_weights_carry_the_description(tmp_path):
    path = written(tmp_path, {**PROSTATE, "_note": "ours"})
    text = recorded(path)
    assert get_cohort(text) == get_cohort(path)
    facts = TrainingFacts(method="M3AE", bundle="m3ae", cases=3, settings={"cohort": text})
    assert facts.trained_on == "3 cases of prostate"
    assert recorded("brats2020") == "brats2020"


@pytest.mark.parametrize(
    ("change", "fact"),
    [
        ({"name": "my data"}, "own.json: name: String should match pattern"),
        ({"name": "brats2020"}, "own.json: name: brats2020 is the name of another data set"),
        ({"sequences": []}, "own.json: sequences: List should have at least 1 item"),
        ({"sequences": ["t1ce", "adc"]}, "own.json: sequences.0: 't1ce' is called t1c here"),
        ({"sequences": ["t2", "ADC"]}, "own.json: sequences.1: 'ADC'; expected small letters and digits"),
        ({"sequences": ["t2", "t2"]}, "own.json: sequences ['t2', 't2']; expected each once"),
        ({"sequences": ["t2", "seg"]}, "own.json: sequences.1: 'seg' is what label files are called"),
        ({"regions": {"A/B": ["PZ"]}}, "own.json: regions.A/B.[key]: String should match pattern"),
        ({"labels": {"PZ": 1, "TZ": 1}}, "own.json: labels [1, 1]; expected each once"),
        ({"labels": {"PZ": 0, "TZ": 1}}, "own.json: labels.PZ: Input should be greater than or equal to 1"),
        ({"labels": {"PZ": 1, "TZ": 255}}, "own.json: labels: 255 stands for voxels that do not count"),
        ({"regions": {"all": ["PZ", "CZ"]}}, "own.json: regions.all ['PZ', 'CZ']; expected some of PZ, TZ"),
        ({"image_files": "{case}"}, "own.json: image_files '{case}'; expected {modality} in it, or the key channels"),
        ({"channels": ["t2"]}, "own.json: channels ['t2']; expected t2, adc"),
        ({"case_names": "("}, "own.json: names of files: missing ), unterminated subpattern"),
        ({"label": {}}, "own.json: unknown key 'label'; expected name, sequences, labels"),
    ],
)
def test_descriptions_that_cannot_be_used_are_refused(tmp_path, change, fact):
    with refused(ValueError, fact):
        get_cohort(written(tmp_path, PROSTATE | change))


def test_text_that_is_not_utf8_is_refused(tmp_path):
    path = tmp_path / "own.json"
    path.write_bytes('{"name": "själ"}'.encode("latin-1"))
    with refused(ValueError, "own.json: Invalid JSON"):
        get_cohort(str(path))


def test_a_file_that_is_not_there_is_refused():
    with refused(FileNotFoundError, "own.json: no such file; expected one that describes a data set"):
        get_cohort("own.json")
