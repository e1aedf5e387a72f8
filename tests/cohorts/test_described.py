"""Data sets that are described: by a JSON file of one's own, or by nnU-Net's dataset.json."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from refusals import refused

from common.cohorts import get_cohort, prepare
from common.cohorts.described import recorded
from common.cohorts.nnunet import described
from common.cohorts.phantom.cohort import generate
from common.evaluation.metrics.conventions import Conventions
from common.io.facts import TrainingFacts
from common.transforms import LoadSubjectd
from mmb.experiments.checking import print_check
from mmb.experiments.comparison.label_maps import evaluate_label_maps
from mmb.experiments.nnunet_raw import write_raw
from mmb.verbs.datalist import datalist

PROSTATE = {"name": "prostate", "sequences": ["t2", "adc"], "labels": {"PZ": 1, "TZ": 2}}
PROSTATE |= {"regions": {"TZ": ["TZ"], "prostate": ["PZ", "TZ"], "PZ": ["PZ"]}}
MSD = PROSTATE | {"case_names": r"prostate_\d+", "image_files": "imagesTr/{case}", "label_files": ["labelsTr/{case}"]}
MSD |= {"channels": ["t2", "adc"]}


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
    folders = ("imagesTr", "labelsTr")
    touch(tmp_path / "Task05", *(f"{folder}/prostate_0{n}.nii.gz" for n in range(2) for folder in folders))
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
    assert (facts.trained_on, recorded("brats2020")) == ("3 cases of prostate", "brats2020")


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


def test_a_file_that_is_not_utf8_or_not_there_is_refused(tmp_path):
    path = tmp_path / "own.json"
    path.write_bytes('{"name": "själ"}'.encode("latin-1"))
    with refused(ValueError, "own.json: Invalid JSON"):
        get_cohort(str(path))
    with refused(FileNotFoundError, "own.json: no such file; expected one that describes a data set"):
        get_cohort("own.json")


REGIONS = {"whole tumor": [1, 2, 3], "tumor core": [2, 3], "enhancing tumor": [3]}  # nnU-Net's conversion of BraTS


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A phantom cohort, and the same as raw data of nnU-Net."""
    folder = tmp_path_factory.mktemp("nnunet")
    generate(folder / "phantom", 4)
    datalist("brats2021", str(folder / "phantom"), str(folder / "Dataset137_Phantom"), "seeded", nnunet=True)
    return folder / "phantom", folder / "Dataset137_Phantom"


def _describe(folder: Path, labels: dict, channels: tuple[str, ...] = ("T1", "T1c", "T2", "FLAIR")) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    names = {str(number): name for number, name in enumerate(channels)}
    content = {"channel_names": names, "labels": {"background": 0, **labels}, "file_ending": ".nii.gz"}
    (folder / "dataset.json").write_text(json.dumps(content))
    return folder


def test_raw_data_has_regions_and_consecutive_values(raw: tuple[Path, Path]) -> None:
    phantom, folder = raw
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == {"background": 0, "WT": [1, 2, 3], "TC": [2, 3], "ET": [3]}
    assert content["regions_class_order"] == [1, 2, 3]
    assert content["channel_names"] == {"0": "T1", "1": "T1c", "2": "T2", "3": "FLAIR"}
    (fold,) = json.loads((folder / "splits_final.json").read_text())
    assert (len(fold["train"]), len(fold["val"])) == (2, 1)
    cases = [path.name.removesuffix(".nii.gz") for path in (folder / "labelsTr").iterdir()]
    assert sorted(fold["train"] + fold["val"]) == sorted(cases)
    for label in (folder / "labelsTr").iterdir():
        case = label.name.removesuffix(".nii.gz")
        own, before = (np.asarray(nib.load(p).dataobj) for p in (label, phantom / case / f"{case}_seg.nii.gz"))
        assert (own == np.array([0, 2, 1, 0, 3])[before]).all()  # NCR 1, ED 2, ET 4 before
        images = phantom / case / f"{case}_flair.nii.gz", folder / "imagesTr" / f"{case}_0003.nii.gz"
        assert images[0].read_bytes() == images[1].read_bytes()


def test_a_channel_of_a_file_and_voxels_that_do_not_count_are_written_as_such(tmp_path: Path) -> None:
    """Of a file with the channels FLAIR, T1, T1c and T2, and a label whose cavities (4) are to be ignored."""
    volumes = np.random.default_rng(0).uniform(1, 9, (3, 3, 3, 4)).astype(np.float32)
    label = np.arange(27, dtype=np.uint8).reshape(3, 3, 3) % 5
    for name, voxels in {"images": volumes, "label": label}.items():
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / f"{name}.nii.gz")
    images = {"image": [str(tmp_path / "images.nii.gz")] * 4, "channels": [1, 2, 3, 0]}
    item = {"case": "A", "modalities": ["t1", "t1c", "t2", "flair"], "label": str(tmp_path / "label.nii.gz"), **images}
    parts = {"training": [item | {"source": "mu_glioma_post"}], "validation": [], "test": []}
    write_raw(parts, get_cohort("glioma_cavity_ignored"), tmp_path / "raw")
    for number, channel in enumerate(images["channels"]):
        written = nib.load(tmp_path / "raw" / "imagesTr" / f"A_{number:04d}.nii.gz")
        np.testing.assert_array_equal(written.dataobj, volumes[..., channel])
    found = np.asarray(nib.load(tmp_path / "raw" / "labelsTr" / "A.nii.gz").dataobj)
    np.testing.assert_array_equal(found, np.array([0, 2, 1, 3, 4])[label])  # NCR 1, ED 2, ET 3 before
    assert json.loads((tmp_path / "raw" / "dataset.json").read_text())["labels"]["ignore"] == 4


def test_labels_are_read_by_meaning(raw: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    phantom, folder = raw
    parts = prepare("brats2021", folder, "full")
    assert [len(parts[part]) for part in ("training", "validation", "test")] == [3, 0, 1]
    load = LoadSubjectd("brats2021")
    for item in parts["training"]:
        truth = np.asarray(nib.load(phantom / item["case"] / f"{item['case']}_seg.nii.gz").dataobj)
        assert (load(item)["label"][0].numpy() == truth).all()
    print_check("brats2021", folder)
    out = capsys.readouterr().out
    assert "label value 1 (ED)" in out
    assert "ignored" not in out


def test_label_values_of_unknown_classes_are_refused(raw: tuple[Path, Path], tmp_path: Path) -> None:
    _, folder = raw
    datalist("brats2021", str(folder), str(tmp_path / "list.json"), "full")
    content = json.loads((tmp_path / "list.json").read_text())
    assert content["training"][0]["label_values"] == {"ET": 3, "NCR": 2, "ED": 1}
    content["training"][0]["label_values"] = {"liver": 1}
    (tmp_path / "list.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="label_values of case Phantom_"):
        prepare("brats2021", folder, datalist=tmp_path / "list.json")


def test_label_maps_of_nnunet_are_compared_by_meaning(raw: tuple[Path, Path]) -> None:
    phantom, folder = raw
    predicted = folder / "labelsTs"  # as nnUNetv2_predict leaves them: dataset.json says what they mean
    result = evaluate_label_maps("nnU-Net", predicted, phantom, get_cohort("brats2021"), Conventions())
    assert (result.values("dice") == 1).all(axis=None)


@pytest.mark.parametrize(
    ("labels", "values"),
    [
        (REGIONS, {"ED": 1, "NCR": 2, "ET": 3}),
        ({"edema": 1, "non-enhancing tumor": 2, "enhancing tumour": 3}, {"ED": 1, "NET": 2, "ET": 3}),
        ({"NCR": 1, "ED": 2, "ET": 3, "RC": 4}, {"NCR": 1, "ED": 2, "ET": 3, "RC": 4}),
        ({"NETC": 1, "SNFH": 2, "ET": 3}, {"NCR": 1, "ED": 2, "ET": 3}),
        ({"necrotic core": 2, "peritumoral oedema": 1, "enhancing": 3, "ignore": 4}, None),
        ({"whole tumor": [1, 2, 3], "tumor core": [1, 3], "ET": 3}, {"NCR": 1, "ED": 2, "ET": 3}),
    ],
)
def test_classes_by_their_names(tmp_path: Path, labels: dict, values: dict | None) -> None:
    expected = values or {"ED": 1, "NCR": 2, "ET": 3, "ignore": 4}
    assert described(_describe(tmp_path, labels)).values() == expected


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"liver": 1}, "'liver' is no known class"),
        ({"WT": [1, 2, 3], "TC": [2, 3]}, "leave open which value is NCR"),
        ({"ED": 1, "NCR": 2, "ET": 3, "WT": [1, 2]}, "each region all values"),
    ],
)
def test_unclear_labels_are_refused(tmp_path: Path, labels: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        described(_describe(tmp_path, labels)).values()


@pytest.mark.parametrize(("names", "said"), [(("T1", "CT"), "'CT' is no known"), (("T1", "t1n"), "twice")])
def test_foreign_channels_are_refused(tmp_path: Path, names: tuple[str, ...], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        described(_describe(tmp_path, REGIONS, names)).modalities()


def test_data_of_version_1_are_refused(tmp_path: Path) -> None:
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "imagesTr" / "a_0000.nii.gz").touch()
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "T1"}}')
    with pytest.raises(ValueError, match="nnU-Net v1; convert it by nnUNetv2_convert"):
        described(tmp_path)
