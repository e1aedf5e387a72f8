"""Shipping the results of a training: its weights, their calibration and the entries in metadata.json."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.examples import random_evaluation
from run_tools import run_script

from common.evaluation.metrics.results import Evaluation, write_evaluation
from common.io import file_digest, read_checkpoint, shipped_weights, write_checkpoint
from mmb.clinic.calibration.calibration import read_calibration
from tools.ship import eval_metrics, ship

NETWORK = {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 30, "kernel_size": 7}
INFERENCE = {
    "imports": ["$import common.cohorts as cohorts"],
    "cohort": "brats2020",
    "crop": [8, 8, 8],
    "decision": "threshold",
    "spacing": [2.0, 2, 2],
    "cohort_def": "$cohorts.get_cohort(@cohort)",
    "network_def": NETWORK,
}


def evaluated(run: Path, cohort: str = "brats2020", window: str = "8x8x8", **kwargs: Any) -> Evaluation:
    """Write a random evaluation of the weights, with the scores that a calibration needs."""
    modalities = ("t1", "t1c", "t2", "flair")
    facts = {"weights": file_digest(run / "trained.pt"), "window": window, "spacing": "2x2x2"}
    evaluation = random_evaluation(cohort=cohort, modalities=modalities, facts=facts, probabilities=True, **kwargs)
    write_evaluation(evaluation, run / "evaluation")
    return evaluation


def trained() -> dict[str, torch.Tensor]:
    weight = torch.randn(30, 4, 7, 7, 7, generator=torch.Generator().manual_seed(0))
    weight[0, 0, 0, 0, 0] = 1 / 3
    return {"weight": weight, "bias": torch.full((30,), 1 / 3)}


@pytest.fixture
def places(tmp_path):
    """An evaluated run, and a bundle."""
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    run.mkdir()
    write_checkpoint(trained(), run / "trained.pt")
    evaluation = evaluated(run)
    for name in ("configs/recipes", "models"):
        (bundle / name).mkdir(parents=True)
    metadata = {"bundle": "tiny", "version": "0.1.0", "data_source": "phantom"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (bundle / "configs" / "inference.json").write_text(json.dumps(INFERENCE))
    (bundle / "configs" / "recipes" / "phantom.json").write_text("{}")
    (bundle / "models" / "model_calibration.json").write_text("of other weights\n")
    return run, bundle, evaluation


def test_weights_in_half_with_their_calibration_and_what_they_are_worth(places):
    run, bundle, evaluation = places
    target = ship(run, bundle, "model", "39 cases")
    assert target == bundle / "models" / "model.pt"
    state = read_checkpoint(target)
    assert state["weight"].dtype == torch.float16
    assert state["weight"][0, 0, 0, 0, 0].item() == pytest.approx(1 / 3, abs=1e-4)
    assert state["bias"][0].item() == torch.tensor(1 / 3).item()
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.pt", "model_calibration.json"]
    assert read_calibration(target.with_name("model_calibration.json")).weights == file_digest(target)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert shipped_weights(target, bundle)["data_source"] == metadata["data_source"] == "39 cases"
    results = evaluation.results[evaluation.results["metric"] == "dice"]
    full = results[results["modalities"] == "+".join(evaluation.modalities)]
    for region in evaluation.regions:
        name = f"test_dice_{region.lower()}"
        ours = full[full["region"] == region]["value"].mean()
        assert metadata["eval_metrics"][f"{name}_full"] == pytest.approx(ours, abs=5e-4)
        by_subset = results[results["region"] == region].groupby("modalities")["value"].mean()
        assert metadata["eval_metrics"][f"{name}_mean_of_{len(by_subset)}"] == pytest.approx(by_subset.mean(), abs=5e-4)


def test_calibration_and_metrics_are_of_the_bundles_decision(places):
    run, bundle, _ = places
    facts = {"weights": file_digest(run / "trained.pt"), "window": "8x8x8", "spacing": "2x2x2"}
    facts["decision"] = "expected_dice"
    cases = {"cohort": "brats2020", "modalities": ("t1", "t1c", "t2", "flair"), "probabilities": True}
    other = random_evaluation(**cases, facts=facts, seed=1)
    write_evaluation(other, run / "evaluation" / "expected_dice")
    (bundle / "configs" / "inference.json").write_text(json.dumps(INFERENCE | {"decision": "expected_dice"}))
    ship(run, bundle, "model", "39 cases")
    assert (bundle / "models" / "model_calibration.json").is_file()
    assert json.loads((bundle / "configs" / "metadata.json").read_text())["eval_metrics"] == eval_metrics(other)


def test_demo_weights_leave_the_metrics_alone(places):
    run, bundle, _ = places
    assert run_script("ship", run, bundle, "phantom", "the phantom") is None
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["data_source"] == "phantom"
    assert "eval_metrics" not in metadata


def unfit(run: Path, state: dict) -> None:
    write_checkpoint(state, run / "trained.pt")
    evaluated(run)


DAMAGES = {
    "too large for half": (lambda run: unfit(run, {**trained(), "weight": trained()["weight"] * 1e6}), "change by nan"),
    "too small for half": (
        lambda run: unfit(run, {"weight": trained()["weight"] * 1e-7, "bias": torch.zeros(30)}),
        r"change by 0\.\d+ of their range",
    ),
    "of another network": (lambda run: unfit(run, {"weight": torch.ones(3)}), "another architecture"),
    "a checkpoint to resume from": (lambda run: unfit(run, {"epoch": 3}), "expected a state dict"),
    "changed since": (
        lambda run: write_checkpoint({"weight": torch.ones(1)}, run / "trained.pt"),
        r"not of the current trained\.pt",
    ),
    "some subsets": (lambda run: evaluated(run, only=["t1", "t2"]), r"no results of t1c, flair, t1\+t1c"),
    "another cohort": (
        lambda run: evaluated(run, cohort="iseg2017"),
        r"cohort of the evaluation is iseg2017, that of inference\.json brats2020",
    ),
    "other windows": (
        lambda run: evaluated(run, window="8x16x8"),
        r"window of the evaluation is 8x16x8, that of inference\.json 8x8x8",
    ),
    "validation cases": (lambda run: evaluated(run, calibration=["c4"]), "calibrated on, e.g. c4"),
    "none": (lambda run: (run / "trained.pt").unlink(), r"neither finetuned\.pt nor trained\.pt"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_shipped_leaves_the_bundle_as_it_was(places, damage):
    run, bundle, _ = places
    ship(run, bundle, "model", "39 cases")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    do, message = DAMAGES[damage]
    do(run)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ship(run, bundle, "model", "40 cases")
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", ["write_checkpoint", "write_calibration", "text"])
def test_files_take_their_places_together(places, step, monkeypatch):
    run, bundle, _ = places
    ship(run, bundle, "model", "39 cases")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    unfit(run, {"weight": trained()["weight"] + 1, "bias": torch.zeros(30)})

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(f"tools.ship.{step}", full)
    with pytest.raises(OSError, match="no space left"):
        ship(run, bundle, "model", "40 cases")
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
