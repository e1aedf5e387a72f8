"""nnU-Net's raw data: read and written by the meaning of channels and labels."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from common.cohorts import get_cohort, prepare
from common.cohorts.check import print_check
from common.cohorts.nnunet import described
from common.cohorts.phantom.cohort import generate
from common.evaluation.metrics.conventions import Conventions
from common.transforms import LoadSubjectd
from mmb.experiments.comparison.label_maps import evaluate_label_maps
from mmb.verbs.datalist import datalist

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
    assert json.loads((folder / "splits_final.json").read_text())[0]["val"]
    for label in (folder / "labelsTr").iterdir():
        case = label.name.removesuffix(".nii.gz")
        own, before = (np.asarray(nib.load(p).dataobj) for p in (label, phantom / case / f"{case}_seg.nii.gz"))
        assert (own == np.array([0, 2, 1, 0, 3])[before]).all()  # NCR 1, ED 2, ET 4 before
        images = phantom / case / f"{case}_flair.nii.gz", folder / "imagesTr" / f"{case}_0003.nii.gz"
        assert images[0].read_bytes() == images[1].read_bytes()


def test_labels_are_read_by_meaning(raw: tuple[Path, Path], capsys: pytest.CaptureFixture[str]) -> None:
    phantom, folder = raw
    parts = prepare("brats2021", folder, "full")
    assert [len(parts[part]) for part in ("training", "validation", "test")] == [3, 0, 1]
    load = LoadSubjectd("brats2021")
    for item in parts["training"]:
        truth = np.asarray(nib.load(phantom / item["case"] / f"{item['case']}_seg.nii.gz").dataobj)
        loaded = load(item)
        assert (loaded["label"][0].numpy() == truth).all()
    print_check("brats2021", folder)
    out = capsys.readouterr().out
    assert "have 1, ED" in out
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
