"""Data sets that only a JSON file describes: MSD's prostate, and seven sequences; trained, evaluated, inferred on."""

import json

import nibabel as nib
import numpy as np
import pytest
from bundles.running import Bundle

from common.evaluation.metrics.results import read_evaluation
from common.io import setting_of_weights

SHAPE = (24, 24, 16)
TINY = {"spacing": [1, 1, 1], "crop": [16, 16, 16], "epochs": 2, "val_interval": 1, "batch_size": 1, "num_workers": 0}
TINY |= {"precision": "float32", "evaluation#overrides#mlflow": "none"}
M3AE = {"grid": list(SHAPE), "width": 8, "patch_size": 8, "pretrain_epochs": 2}
PROSTATE = {
    "name": "msd_task05",
    "sequences": ["t2", "adc"],
    "labels": {"PZ": 1, "TZ": 2},
    "regions": {"prostate": ["PZ", "TZ"], "PZ": ["PZ"], "TZ": ["TZ"]},
    "case_names": r"prostate_\d+",
    "image_files": "imagesTr/{case}",
    "label_files": ["labelsTr/{case}"],
    "channels": ["t2", "adc"],
}
SEVEN = {
    "name": "seven",
    "sequences": ["t1", "t2", "flair", "adc", "dwi800", "swi", "cbf"],
    "labels": {"lesion": 7},
    "image_files": "{case}/{modality}",
    "label_files": ["{case}/seg"],
}


def save(voxels, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 1, 1])), path)


def made(number, channels, values):
    """Return images ``(X, Y, Z, channels)`` with a bright ball, and the ball as a label, one half for each value."""
    rng, grid = np.random.default_rng(number), np.indices(SHAPE)
    centre = rng.integers(7, 10, 3)[:, None, None, None]
    ball = ((grid - centre) ** 2).sum(0) < 25
    label = np.where(ball, np.where(grid[0] < centre[0], values[0], values[-1]), 0).astype(np.uint8)
    images = rng.normal(100, 5, (*SHAPE, channels)) + 60 * ball[..., None] + 20 * (label == values[-1])[..., None]
    images[0, 0, 0] = 0
    return images.astype(np.float32), label


def trained_on(tmp_path, description, bundle, configs, **settings):
    """Train and evaluate a bundle on a described data set; return the output folder."""
    path, out = tmp_path / "own.json", tmp_path / "out"
    path.write_text(json.dumps(description))
    options = {**TINY, **settings, "cohort": path, "dataset_dir": tmp_path / "data", "output_dir": out}
    assert bundle.complaint(configs, **options) == ""
    path.unlink()  # the weights carry it with them
    return out


@pytest.mark.slow
def test_a_prostate_of_two_sequences_in_one_file(tmp_path):
    for number in range(6):
        images, label = made(number, 2, (1, 2))
        save(images, tmp_path / "data" / "imagesTr" / f"prostate_{number:02}.nii.gz")
        save(label, tmp_path / "data" / "labelsTr" / f"prostate_{number:02}.nii.gz")
    bundle = Bundle("m3ae")
    out = trained_on(tmp_path, PROSTATE, bundle, ["train.json", "recipes/own.json"], **M3AE)
    evaluation = read_evaluation(out / "evaluation")
    assert (evaluation.cohort, evaluation.regions) == ("msd_task05", ("prostate", "PZ", "TZ"))
    assert evaluation.subsets == ["t2", "adc", "t2+adc"]
    assert json.loads(setting_of_weights(out / "finetuned.pt", "cohort", ""))["name"] == "msd_task05"
    where = {"ckpt_path": out / "finetuned.pt", "dataset_dir": tmp_path / "data", "output_dir": tmp_path / "seg"}
    bundle.run_here(["inference.json"], **where, modalities=["adc"])
    written = nib.load(tmp_path / "seg" / "prostate_00" / "prostate_00_seg.nii.gz")
    assert written.shape == SHAPE
    assert {*np.unique(written.dataobj)} <= {0, 1, 2}


@pytest.mark.slow
def test_seven_sequences_some_of_which_are_missing(tmp_path):
    for number in range(6):
        images, label = made(number, 7, (7,))
        for channel, name in enumerate(SEVEN["sequences"]):
            if (number, name) != (0, "swi"):
                save(images[..., channel], tmp_path / "data" / f"P{number}" / f"{name}.nii.gz")
        save(label, tmp_path / "data" / f"P{number}" / "seg.nii.gz")
    settings = {"backbone": "RFNet", "width": 4, "missing_rates": [0.3] * 7, "val_subsets": [["cbf"]]}
    out = trained_on(tmp_path, SEVEN, Bundle("passion"), ["train.json"], **settings)
    evaluation = read_evaluation(out / "evaluation")
    assert len(evaluation.subsets) == 127
    assert evaluation.regions == ("lesion",)
