"""What a run refuses before an image is read or a network is built; a command refuses it in one line."""

import logging
import os
import time

import torch
from monai.bundle import ConfigParser, ConfigWorkflow

from common.engines.precision import check_device
from common.engines.tracking import require_server
from common.engines.windows import check_mirror_axes
from common.evaluation.report.report import require_own_parts
from common.io.bundle import require_same_common
from common.io.facts import read_facts, setting_of_weights
from common.io.files import require_writable
from common.io.lock import lock_folder
from common.io.settings import per_axis
from common.io.weights import shipped_weights
from common.run.fitting import require_fitting
from common.run.keys import check_config, check_files, read_words
from common.run.record import require_same_settings, require_same_training
from common.run.workflow import lends_its_network, refused, running, steps_of

logger = logging.getLogger(__name__)
SAMPLED = {"sampling": "points"}
"""How images were sampled for weights whose record does not say so."""


def check(bundle_root: str, claimed: str | None = None) -> None:
    """Refuse settings and data that cannot be used, as the first line of ``initialize``.

    These are what `check_config` refuses, a word after ``run`` that is no list of steps, a device that is not
    available, an output folder that cannot be written or is in use, weights that do not fit, cases that cannot be found
    or divided, losses that do not fit them, a server of MLflow that does not answer, a run resumed with other settings,
    and a bundle that was packaged with another version of ``common``. They end ``python -m monai.bundle run`` with one
    line and status 1 (MONAI does not wrap the SystemExit); a program that calls `monai.bundle.run` gets MONAI's
    RuntimeError, at the end of whose causes is a ValueError or OSError (see `unwrapped_errors`).

    Args:
        bundle_root: folder of the bundle.
        claimed: output folder of a training, which no other one may use meanwhile.
    """
    workflow = running()
    with refused():
        require_same_common(bundle_root)
        if workflow is not None and lends_its_network():
            if claimed is not None:
                _lend_network(workflow.parser, bundle_root)
        elif workflow is None:
            logger.warning("Settings are not checked: MONAI's workflow was not found.")
        else:
            _check(workflow, bundle_root, claimed)


def _lend_network(config: ConfigParser, bundle_root: str) -> None:
    """Make a training's network that of the bundle's weights, by their record, and initialise nothing else."""
    weights = f"{bundle_root}/models/model.pt"
    shipped_weights(weights, bundle_root)  # refuses others under this name
    setting_of_weights(weights, "backbone", None)  # refuses code that the weights must not choose
    facts = read_facts(weights)
    settings = facts.settings if facts else {}
    for key in settings.keys() & config["recorded"].keys():
        config[key] = settings[key]
    own = config["network_def"]
    replicated = {"_target_": "common.networks.replicated", "of": own["_target_"], "count": settings.get("ensemble", 1)}
    config["network_def"] = replicated | {key: value for key, value in own.items() if key != "_target_"}
    rest = [None] * (len(config["initialize"]) - 2)
    config["initialize"] = [None, "$run.load_weights(@network_def, '')", *rest]
    config.parse()  # so that MONAI, which is about to build the other entries, meets these


def _check(workflow: ConfigWorkflow, bundle_root: str, claimed: str | None) -> None:
    """Refuse what cannot be run. Without ``claimed`` the run writes into its output folder, as inference does."""
    config, value = workflow.parser, workflow.parser.get_parsed_content
    read_words(config)
    check_config(config.get())
    check_files(config.get())
    steps = steps_of(config, workflow.run_id)
    check_device(value("device"), value("precision"))
    for key in config.get("_per_axis_", ()):
        per_axis(key, value(key))
    check_mirror_axes(value("mirror_axes"), value("crop"))
    tracking = config.get("tracking_uri", "$")
    if not tracking.startswith("$"):
        require_server("tracking_uri", tracking)
    if claimed is not None:
        require_writable(claimed)
        require_own_parts(os.path.join(claimed, "evaluation"))
        if os.environ.get("RANK", "0") == "0":  # it alone writes there, and torchrun ends all processes together
            lock_folder(claimed)
    elif (folder := value("output_dir")) is not None:
        if "report" in config:
            require_own_parts(folder)
        require_writable(folder)
    if "resume" in config and value("resume"):
        require_same_settings(config.get(), value("output_dir"))
    if (weights := value("ckpt_path") if "ckpt_path" in config else None) is not None:
        if not os.path.isfile(weights):
            raise FileNotFoundError(f"ckpt_path {weights}: no such checkpoint.")
        require_fitting(weights, value("cohort"), bundle_root, value("image_transforms"))
        facts = read_facts(weights)
        for key, trained in (SAMPLED | facts.settings).items() if facts else ():
            if key in ("spacing", "sampling", "crop", "percentiles") and key in config:
                _compare(weights, key, trained, value(key))
    for key in config.get("_first_", ()):
        value(key)
    stages = [key for key in config.get() if any(f"@{key}#trainer" in step for step in steps)]
    if any("@evaluation" in step for step in steps):
        value("evaluation").check(value("recorded"))
        value("evaluation").begun = time.monotonic() if stages and not value("resume") else None
    for stage in stages:
        if f"{stage}#dataset#data" in config:
            value(f"{stage}#dataset#data")
    if "pretrainer" in config and stages == ["train"] and value("start#init_from") is None:
        require_same_training(value("data"), value("output_dir"))
    if stages:
        torch.manual_seed(value("seed"))  # some losses have weights of their own
    for stage in stages:
        if f"{stage}#loss" in config:
            value(f"{stage}#loss")


def _compare(weights: str, key: str, trained: object, asked: object) -> None:
    """Refuse images that are sampled otherwise than in the training; another crop or percentiles cause a warning."""
    if trained == (list(asked) if isinstance(asked, tuple) else asked):
        return
    text = f"{weights}: its network was trained with {key} {trained!r}, not {asked!r}."
    if key in ("spacing", "sampling"):
        raise ValueError(f"{text} Leave out {key}, or the recipe that sets it.")
    logger.warning(text)
