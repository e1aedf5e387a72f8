"""Shipping of a training's results in a bundle: weights, what is calibrated for them, and their metrics."""

import json
from contextlib import ExitStack
from pathlib import Path
from time import process_time
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigParser

from common.engines.efficiency import peak_memory_mb
from common.engines.evaluate import window_facts
from common.evaluation.metrics.results import Evaluation
from common.io.checkpoints import load_weights, read_weights, write_checkpoint
from common.io.facts import read_facts
from common.io.files import file_digest, replacing
from common.io.settings import check_choice
from common.modalities import subset_name, subset_names
from mmb.experiments.evaluations import read_evaluation
from mmb.predictors.bundle import Inference, config_files
from mmb.predictors.calibration import calibrate, calibration_file, write_calibration
from tools.configs import text

NAMES = ("model", "single", "phantom")
"""Names of a bundle's weights: the default, one network where that has several, and those of the recipe ``phantom``."""
SMALL = 30_000
"""Maximum number of values of tensors that stay in single precision: they take little space but affect outputs most."""
FLAT = 1e-4
"""Maximum distance of values from their channel's mean for them to be stored as this mean: a constant x_sub."""
TOLERANCE = 1e-3  # maximum change of the logits in half precision, as a fraction of their range


def ship(run: str | Path, bundle: str | Path, name: str, data_source: str) -> Path:
    """Write ``models/<name>.pt`` and its calibration beside it, all or nothing.

    Weights are in half precision except for `SMALL` tensors: in bfloat16 if it holds them exactly, else in float16. In
    metadata.json, ``weights`` gets the file's SHA-256 and the description of the data; for those that inference uses by
    default, ``data_source``, the Dice (``eval_metrics``, ``test_results``) and ``inference_cost`` are also set.
    Calibration and Dice are of the decision of inference.json. Returns their path.

    Args:
        run: the output folder of a training and its evaluation.
        bundle: the bundle's folder, e.g. bundles/m3ae.
        name: model, single or phantom, the weights to replace.
        data_source: what they were trained on, in a few words.
    """
    run, bundle = Path(run), Path(bundle)
    check_choice("name", name, NAMES)
    trained = next((path for path in (run / "finetuned.pt", run / "trained.pt") if path.is_file()), None)
    if trained is None:
        raise FileNotFoundError(f"{run}: neither finetuned.pt nor trained.pt; expected the output_dir of a training.")
    root, files = config_files(str(bundle), "phantom" if name == "phantom" else None)
    config = ConfigParser()
    config.read_config([str(path) for path in files])
    config["bundle_root"], config["ckpt_path"], config["device"] = str(root), str(trained), "$torch.device('cpu')"
    evaluated = run / "evaluation"
    if read_evaluation(evaluated).facts.get("decision", "threshold") != config["decision"]:
        evaluated /= config["decision"]  # the results of the same run under the bundle's decision
    evaluation = read_evaluation(evaluated)
    if evaluation.facts.get("weights") != file_digest(trained):
        raise ValueError(f"{evaluated}: is not of the current {trained.name}; evaluate again (run evaluate).")
    weights = _in_half_precision(trained)
    _require_fit(evaluation, config)
    _require_same_outputs(config, trained, weights)
    metadata_file, target = root / "configs" / "metadata.json", root / "models" / f"{name}.pt"
    metadata = json.loads(metadata_file.read_text())
    if target.name == default_weights(root).name:
        metadata |= {"data_source": data_source, "eval_metrics": eval_metrics(evaluation)}
        metadata |= {"test_results": dice_by_subset(evaluation), "inference_cost": inference_cost(bundle, trained)}
    with ExitStack() as stack:  # the files are moved into place together, once all are written
        temporary = stack.enter_context(replacing(target))
        write_checkpoint(weights, temporary, read_facts(trained))
        shipped = file_digest(temporary)
        write_calibration(calibrate([evaluation], shipped), stack.enter_context(replacing(calibration_file(target))))
        metadata["weights"] = metadata.get("weights", {}) | {
            target.name: {"sha256": shipped, "data_source": data_source}
        }
        stack.enter_context(replacing(metadata_file)).write_text(text(metadata) + "\n")
    return target


def default_weights(bundle: str | Path) -> Path:
    """Return the weights that a bundle's inference uses unless others are named."""
    config = ConfigParser({"bundle_root": str(bundle)})
    config["ckpt_path"] = ConfigParser.load_config_file(Path(bundle, "configs", "inference.json"))["ckpt_path"]
    return Path(config.get_parsed_content("ckpt_path"))


def eval_metrics(evaluation: Evaluation) -> dict[str, float]:
    """Return the mean Dice of each region over the cases, with all modalities and as the mean over all subsets."""
    dice = evaluation.values("dice").groupby("modalities").mean()
    full = subset_name(evaluation.modalities)
    metrics = {f"test_dice_{region.lower()}_full": dice.loc[full, region] for region in evaluation.regions}
    metrics |= {f"test_dice_{region.lower()}_mean_of_{len(dice)}": dice[region].mean() for region in evaluation.regions}
    return {key: round(float(value), 3) for key, value in metrics.items()}


def dice_by_subset(evaluation: Evaluation) -> dict[str, Any]:
    """Return what was tested, and the mean Dice of each subset and region over its cases."""
    tested = {"cohort": evaluation.cohort} | {key: evaluation.facts.get(key) for key in ("split", "part")}
    dice = evaluation.values("dice").groupby("modalities", sort=False).mean().round(3)
    return tested | {"cases": evaluation.results["case"].nunique(), "dice": dice.to_dict("index")}


def inference_cost(bundle: str | Path, weights: str | Path | None = None) -> dict[str, Any]:
    """Return what inference for one case takes on a CPU, with one thread and all sequences, without reading files.

    The case is an ellipsoid of noise as large as a brain. The memory is the peak of this process since its start.
    """
    inference, noise = Inference(str(bundle), None, weights and str(weights), "cpu"), np.random.default_rng(0)
    x, y, z = np.ogrid[-1:1:140j, -1:1:172j, -1:1:140j]
    brain = np.pad(x**2 + y**2 + z**2 < 1, ((50, 50), (34, 34), (8, 7)))
    volumes = {name: brain * noise.random(brain.shape, np.float32) for name in inference.cohort.modalities}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    start = process_time()
    inference.run({name: nib.Nifti1Image(volume, np.eye(4)) for name, volume in volumes.items()})
    seconds, memory = round(process_time() - start, 1), round(peak_memory_mb(inference.device))
    torch.set_num_threads(threads)
    cpu = {"threads": 1, "processor_seconds": seconds, "memory_mb": memory}
    return {"voxels": list(brain.shape), "CPU": cpu, "GPU": "not measured"}


def _require_fit(evaluation: Evaluation, config: ConfigParser) -> None:
    cohort, crop, spacing = (config.get_parsed_content(key) for key in ("cohort", "crop", "spacing"))
    expected = {"cohort": cohort, **window_facts(crop, spacing)}
    for key, value in expected.items():
        found = evaluation.cohort if key == "cohort" else evaluation.facts.get(key, "unknown")
        if found != value:
            raise ValueError(
                f"The {key} of the evaluation is {found}, that of inference.json {value}. Evaluate again, with the "
                "settings that the weights are to be used with."
            )
    lost = [name for name in subset_names(evaluation.modalities) if name not in evaluation.subsets]
    if lost:
        raise ValueError(f"The evaluation has no results of {', '.join(lost)}; evaluate all subsets.")
    both = sorted(set(evaluation.results["case"]) & set(evaluation.calibration["case"]))
    if both:
        raise ValueError(
            f"The evaluation includes cases that it is calibrated on, e.g. {both[0]}; evaluate on test cases only."
        )


def _require_same_outputs(config: ConfigParser, trained: Path, weights: dict[str, torch.Tensor]) -> None:
    """Refuse weights of another network, and weights whose logits for a window change by more than `TOLERANCE`."""
    network = load_weights(config.get_parsed_content("network"), trained).eval()
    modalities = len(config.get_parsed_content("cohort_def").modalities)
    window = torch.rand(1, modalities, *config.get_parsed_content("crop"), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        exact = network(window)
        network.load_state_dict(weights)
        change = ((network(window) - exact).abs().max() / (exact.max() - exact.min())).item()
    if not change <= TOLERANCE:
        raise ValueError(
            f"{trained}: in half precision, logits change by {change:.2g} of their range; expected at most "
            f"{TOLERANCE}. The weights were not shipped."
        )


def _in_half_precision(path: Path) -> dict[str, torch.Tensor]:
    state = read_weights(path)
    large = {key for key, value in state.items() if value.is_floating_point() and value.numel() > SMALL}
    return {key: _halved(value) if key in large else value.contiguous() for key, value in state.items()}


def _halved(value: torch.Tensor) -> torch.Tensor:
    """Return a tensor in half precision; one whose channels are constant takes the space of one value for each."""
    if value.dim() > 2:
        mean = value.float().mean(tuple(range(2, value.dim())), keepdim=True)
        if (value - mean).abs().max() <= FLAT:
            return mean.half().expand_as(value)
    exact = value.bfloat16()
    return (exact if torch.equal(exact.float(), value.float()) else value.half()).contiguous()
