"""Shipping what a training left: the weights, their tables and what metadata.json says."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation.made_up import made_up

from common.engines.shipping import ship
from common.evaluation.results import Evaluation, write_evaluation
from common.io import file_digest, read_checkpoint, shipped_weights, write_checkpoint


def evaluated(run: Path, **kwargs: Any) -> Evaluation:
    evaluation = made_up(facts={"weights": file_digest(run / "trained.pt")}, **kwargs)
    write_evaluation(evaluation, run / "evaluation")
    (run / "evaluation" / "intervals.csv").write_text("a\n1\n")
    return evaluation


@pytest.fixture
def places(tmp_path):
    """A run that was evaluated, and a bundle."""
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    state = {"weight": torch.full((200, 200), 1 / 3).T, "bias": torch.tensor([1 / 3]), "steps": torch.tensor(7)}
    run.mkdir()
    write_checkpoint(state, run / "trained.pt")
    evaluation = evaluated(run)
    for name in ("configs", "models"):
        (bundle / name).mkdir(parents=True)
    metadata = {"bundle": "tiny", "version": "0.1.0", "data_source": "phantom", "weights": {"phantom.pt": {}}}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (bundle / "models" / "model_advice.csv").write_text("of other weights\n")
    return run, bundle, evaluation


def test_weights_in_half_with_their_tables_and_what_they_are_worth(places):
    run, bundle, evaluation = places
    target = ship(run, bundle, "model", "39 cases")
    assert target == bundle / "models" / "model.pt"
    state = read_checkpoint(target)
    assert state["weight"].dtype == torch.float16
    assert state["weight"][0, 0].item() == pytest.approx(1 / 3, abs=1e-4)
    assert state["bias"].item() == torch.tensor(1 / 3).item()
    assert state["steps"].item() == 7
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.pt", "model_intervals.csv"]
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert shipped_weights(target, bundle)["data_source"] == metadata["data_source"] == "39 cases"
    assert metadata["weights"]["phantom.pt"] == {}
    results = evaluation.results[evaluation.results["metric"] == "dice"]
    full = results[results["modalities"] == "+".join(evaluation.modalities)]
    for region in evaluation.regions:
        name = f"test_dice_{region.lower()}"
        ours = full[full["region"] == region]["value"].mean()
        assert metadata["eval_metrics"][f"{name}_full"] == pytest.approx(ours, abs=5e-4)
        by_subset = results[results["region"] == region].groupby("modalities")["value"].mean()
        assert metadata["eval_metrics"][f"{name}_mean_of_{len(by_subset)}"] == pytest.approx(by_subset.mean(), abs=5e-4)


def test_demo_weights_leave_the_metrics_alone(places):
    run, bundle, _ = places
    ship(run, bundle, "phantom", "the phantom")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["data_source"] == "phantom"
    assert "eval_metrics" not in metadata


def unfit(run: Path, state: dict) -> None:
    write_checkpoint(state, run / "trained.pt")
    evaluated(run)


DAMAGES = {
    "half precision": (lambda run: unfit(run, {"weight": torch.full((200, 200), 1e6)}), "weight is not finite, or not"),
    "a checkpoint to resume from": (lambda run: unfit(run, {"epoch": 3}), "more than weights"),
    "trained on": (lambda run: write_checkpoint({"weight": torch.ones(1)}, run / "trained.pt"), r"not of trained\.pt"),
    "some subsets": (lambda run: evaluated(run, only=["t1", "t2"]), r"no results of t1\+t2\+flair"),
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
