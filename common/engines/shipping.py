"""What a training leaves becomes what a bundle ships: weights, what is calibrated on them, and what they are worth."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import torch

from common.evaluation.results import Evaluation, read_evaluation
from common.io import file_digest, read_checkpoint, write_checkpoint
from common.io.files import replacing
from common.modalities import subset_name

TABLES = ("intervals.csv", "advice.csv")
SMALL = 30_000
"""Tensors of up to as many values stay in single precision: they are few, and outputs depend on them most."""


def ship(run: str | Path, bundle: str | Path, name: str, data_source: str) -> Path:
    """Write ``models/<name>.pt`` with ``<name>_intervals.csv`` and ``<name>_advice.csv`` beside it.

    Weights are in half precision but for `SMALL` tensors. metadata.json gets the file's SHA-256 and the data's
    description under ``weights``; of ``model`` also as ``data_source``, and the evaluation's Dice as ``eval_metrics``.

    Args:
        run: ``output_dir`` of a training that has been evaluated.
        bundle: the bundle's folder.
        name: of the weights, ``model`` or ``phantom``.
        data_source: what they were trained on, in a few words.

    Returns:
        The weights' file.

    Raises:
        FileNotFoundError: the training or its evaluation is not there.
        ValueError: the weights are no plain state dict, half precision does not hold them, or the evaluation is not of
            them or lacks all modalities.
    """
    run, bundle = Path(run), Path(bundle)
    trained = next((path for path in (run / "finetuned.pt", run / "trained.pt") if path.is_file()), None)
    if trained is None:
        raise FileNotFoundError(f"{run}: neither finetuned.pt nor trained.pt; expected the output_dir of a training.")
    weights, evaluation = _halved(trained), read_evaluation(run / "evaluation")
    if evaluation.facts.get("weights") != file_digest(trained):
        raise ValueError(f"{run / 'evaluation'}: not of {trained.name} as it is; evaluate it again (run evaluate).")
    metadata_file = bundle / "configs" / "metadata.json"
    metadata = json.loads(metadata_file.read_text())
    if name == "model":
        metadata |= {"data_source": data_source, "eval_metrics": eval_metrics(evaluation)}
    target = bundle / "models" / f"{name}.pt"
    write_checkpoint(weights, target)
    for table in TABLES:
        beside = target.with_name(f"{name}_{table}")
        beside.unlink(missing_ok=True)
        if (run / "evaluation" / table).is_file():
            shutil.copyfile(run / "evaluation" / table, beside)
    metadata.setdefault("weights", {})[target.name] = {"sha256": file_digest(target), "data_source": data_source}
    with replacing(metadata_file) as temporary:
        temporary.write_text(_indented(metadata) + "\n")
    return target


def eval_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return the cases' mean Dice of each region, with all modalities and as the mean over all subsets.

    Raises:
        ValueError: there are no results with all modalities.
    """
    dice = evaluation.values("dice").groupby("modalities").mean()
    full = subset_name(evaluation.modalities)
    if full not in dice.index:
        raise ValueError(f"{evaluation.name}: no results of {full}; evaluate all subsets.")
    metrics = {f"test_dice_{region.lower()}_full": dice.loc[full, region] for region in evaluation.regions}
    metrics |= {f"test_dice_{region.lower()}_mean_of_{len(dice)}": dice[region].mean() for region in evaluation.regions}
    return {key: round(float(value), 3) for key, value in metrics.items()}


def _indented(metadata: dict[str, Any]) -> str:
    """Return JSON as people write it: lists of plain values on a line."""
    text = json.dumps(metadata, indent=4, ensure_ascii=False)
    return re.sub(r"\[\s+([^][{}]{,70}?)\s+\]", lambda found: "[" + " ".join(found[1].split()) + "]", text)


def _halved(path: Path) -> dict[str, torch.Tensor]:
    state = read_checkpoint(path)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(f"{path}: more than weights; expected a plain state dict.")
    large = {key for key, value in state.items() if value.is_floating_point() and value.numel() > SMALL}
    halved = {key: value.half() if key in large else value for key, value in state.items()}
    lost = [key for key, value in halved.items() if not value.isfinite().all()]
    if lost:
        raise ValueError(f"{path}: {lost[0]} is not finite, or not in half precision; not shipped.")
    return {key: value.contiguous() for key, value in halved.items()}
