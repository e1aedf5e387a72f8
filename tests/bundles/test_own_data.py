"""Bundles on one's own data, on all data sets as one, and a training that goes on."""

import json

import nibabel as nib
import numpy as np
import pytest
import torch
from bundles.running import Bundle
from cohorts.test_described import MSD
from layouts import LAYOUTS, write_cases
from run_tools import run

from common.io.facts import setting_of_weights
from mmb.experiments.evaluations import read_evaluation

SHAPE = (24, 24, 16)
TINY = {"spacing": [1, 1, 1], "crop": [16, 16, 16], "epochs": 2, "val_interval": 1, "batch_size": 1, "num_workers": 0}
TINY["precision"] = "float32"
M3AE = {"grid": list(SHAPE), "width": 8, "patch_size": 8, "pretrain_epochs": 2}
REGIONS = {"prostate": ["PZ", "TZ"], "PZ": ["PZ"], "TZ": ["TZ"]}
PROSTATE = MSD | {"name": "msd_task05", "regions": REGIONS}
SEVEN = {"name": "seven", "sequences": ["t1", "t2", "flair", "adc", "dwi800", "swi", "cbf"], "labels": {"lesion": 7}}
SEVEN |= {"image_files": "{case}/{modality}", "label_files": ["{case}/seg"]}


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
    assert (len(evaluation.subsets), evaluation.regions) == (127, ("lesion",))


JOINED = [name for name in LAYOUTS if name not in ("brats2023", "brats2025_met", "brats2023_ped", "open_glioma")]
"""The others share their cases' names with one of these."""
SMALL = {"spacing": [12, 12, 12], "crop": [16, 16, 16]}
SMALL |= {"epochs": 1, "val_interval": 1, "val_subsets": [["flair"]], "memory_format": torch.contiguous_format}
SMALL |= {"evaluation#overrides#subsets": [["flair"], ["t1c", "flair"]]}


@pytest.mark.slow
def test_all_as_one(tmp_path, capsys):
    sources = {name: write_cases(tmp_path / "data" / name, name) for name in JOINED}
    path, out = tmp_path / "joined.json", tmp_path / "out"
    assert run("join", path, *(f"{name}={root}" for name, root in sources.items()), "--cohort", "glioma") is None
    base = capsys.readouterr().out.split("--dataset_dir ")[1].split()[0]
    options = {"cohort": "glioma", "dataset_dir": base, "datalist": path, "output_dir": out, **SMALL}
    Bundle("gss").run_here(["train.json", "baselines/zero_filled.json"], **options)
    tested = {item["case"]: item["source"] for item in json.loads(path.read_text())["test"]}
    assert set(tested.values()) == set(JOINED)
    assert set(read_evaluation(out / "evaluation").results["case"]) == set(tested)


M3AE_BUNDLE, MEDMAP, MAG_MS, PASSION = map(Bundle, ("m3ae", "medmap", "mag_ms", "passion"))
SHORT = {"epochs": 3, "val_interval": 3, "batch_size": 3, "evaluate": []}
SMALL = {"crop": [16, 16, 16], "width": 8}
M3AE_STAGES = {"pretrain_epochs": 3, "val_interval": 2}


def tensors(value, name=""):
    """Yield every tensor in nested dicts and lists with its path."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(part, f"{name}/{key}")


@pytest.mark.parametrize(
    ("bundle", "configs", "settings", "stage"),
    [
        (MAG_MS, ["train.json"], {"accumulation_steps": 2}, "training"),
        (MEDMAP, ["train.json", "backbones/acn.json"], SMALL, "training"),
        (
            MEDMAP,
            ["train.json", "backbones/pmkl.json"],
            {**SMALL, "width": 2, "teacher_epochs": 3},
            "teacher",
        ),
        (PASSION, ["train.json"], {}, "training"),
        (M3AE_BUNDLE, ["train.json"], M3AE_STAGES, "pretraining"),
        (M3AE_BUNDLE, ["train.json"], M3AE_STAGES, "fine-tuning"),
    ],
    ids=["MAG-MS", "ACN", "PMKL", "PASSION", "M3AE, pretraining", "M3AE, fine-tuning"],
)
@pytest.mark.slow  # three trainings, one of them killed
def test_killed_run_resumes_to_the_same_end(coarse_dir, tmp_path, bundle, configs, settings, stage):
    settings = {**bundle.tiny, **SHORT, **settings, "dataset_dir": coarse_dir}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    bundle.run_here(configs, **settings, output_dir=whole)
    bundle.kill_in_epoch_two(configs, {**settings, "output_dir": broken}, stage)
    bundle.run_here(configs, **settings, output_dir=broken, resume=True)
    last = "finetuned_last.pt" if bundle is M3AE_BUNDLE else "trained_last.pt"
    ends = [torch.load(folder / last, weights_only=True) for folder in (whole, broken)]
    assert [ends[0][key] for key in ("trainer", "best")] == [ends[1][key] for key in ("trainer", "best")]
    first, second = (dict(tensors(end)) for end in ends)
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]
    if bundle is PASSION:
        assert not torch.equal(first["/loss/beta"], torch.ones(4))
        assert (whole / "preference.csv").read_text() == (broken / "preference.csv").read_text()
