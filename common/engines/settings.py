"""What a run refuses before an image is read or a network is built; a command refuses it in one line."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.cohorts import take
from common.cohorts.datalist import PARTS
from common.engines.evaluate import check_evaluation
from common.engines.fitting import require_fitting
from common.engines.multi_gpu import claim_output
from common.engines.precision import check_device
from common.engines.run import require_same_settings, require_same_training
from common.engines.tracking import require_server
from common.engines.windows import check_mirror_axes
from common.evaluation.report.report import require_own_parts
from common.io import optional, require_writable
from common.io.bundle import bundle_name, require_same_common
from common.io.command import (
    Given,
    check_settings,
    check_step,
    given_run,
    is_command,
    reached_steps,
    require_null,
    running_config,
    unwrapped_errors,
)
from common.io.facts import read_facts
from common.io.settings import check_choice, check_number, flag, per_axis
from common.text import printable
from common.transforms.decision import DECISIONS

logger = logging.getLogger(__name__)
BUILT = ("cohort_def", "inferer", "validate#inferer", "log")
"""Sections that check their own arguments, and take no time to build."""
DATA = ("data", "cases", "calibration_cases", "report")
"""Sections of the cases that a run works on, which scan folders, but open no image; the run goes on with them."""
MATMUL_PRECISIONS = ("highest", "high", "medium")
"""Of float32 products: on a GPU ``high`` multiplies in TF32 (10 bits of mantissa), as cuDNN's convolutions do."""
LIMITS = {"learning_rate": 1, "ema_momentum": 1, "warmup": 1, "flip_prob": 1, "affine_prob": 1, "rotation": math.pi}
"""Key -> highest number, of those that neither MONAI nor PyTorch refuses; rotation is in radians."""
FILES = ("datalist", "init_from", "ckpt_path", "teacher")
"""Keys that are paths of files, or null."""


def refuse_wrong_settings(bundle_root: str, claimed: str | None = None) -> None:
    """Refuse options, settings and data that cannot be used, as the first line of ``initialize``.

    Besides what `check_run` refuses, these are a word after ``run`` that is no list of steps, a None that MONAI would
    leave out, a device that is not available, an output folder that cannot be written or is in use, cases that cannot
    be found or divided, losses that do not fit them, a server of MLflow that does not answer, a run resumed with other
    settings, and a bundle that was packaged with another version of ``common``. They end ``python -m monai.bundle run``
    with one line and status 1 (MONAI does not wrap the SystemExit); a program that calls `monai.bundle.run` or
    `create_workflow` gets MONAI's RuntimeError, at the end of whose causes is a ValueError or OSError (see
    `unwrapped_errors`). Where a program built the workflow itself, only that version and the folder are checked.
    ``claimed`` is the output folder of a training, which no other one may use meanwhile.
    """
    try:
        with unwrapped_errors():
            require_same_common(bundle_root)
            if given := given_run():
                _check(given, bundle_root, claimed)
            elif claimed is not None:
                claim_output(claimed)
    except (ValueError, OSError) as error:
        if not is_command():
            raise
        raise SystemExit(f"error: {printable(str(error))}") from None


def _check(given: Given, bundle_root: str, claimed: str | None) -> None:
    """Refuse what cannot be run. Without ``claimed`` the run writes into its output folder, as inference does."""
    config = check_run(given.files, given.settings, bundle_root)
    check_step(given.step, config)
    require_null(given.settings, config)
    value = config.get_parsed_content
    check_device(value("device"), value("precision"))
    if "tracking_uri" in given.settings:
        require_server("tracking_uri", value("tracking_uri"))
    if claimed is not None:
        claim_output(claimed)
    else:
        if "report" in config:
            require_own_parts(value("output_dir"))
        require_writable(value("output_dir"))
    running = running_config()
    if running is None:
        return
    if "resume" in config and flag("resume", value("resume")):
        require_same_settings(running.get(), value("output_dir"))
    steps = reached_steps(given.step, config)
    if any("@evaluation" in step for step in steps):
        value("evaluation").require_log()
    stages = [key for key in config.get() if any(f"@{key}#trainer" in step for step in steps)]
    for key in (*DATA, *(f"{stage}#dataset#data" for stage in stages)):
        if key in config:
            resolved = config.ref_resolver.resolved_content
            resolved[config.ref_resolver.normalize_id(key)] = running.get_parsed_content(key)
    if "pretrainer" in config and stages == ["train"] and value("start#init_from") is None:
        require_same_training(running.get_parsed_content("data"), value("output_dir"))
    for key in (f"{stage}#loss" for stage in stages):
        if key in config:  # built a second time by the run, whose random numbers must not be used up here
            value(key)


def check_run(files: Sequence[str], settings: Mapping[str, Any], bundle_root: str | None = None) -> ConfigParser:
    """Return merged config files with settings over them, after refusing values that can be recognised at once.

    These are what `check_settings` refuses, numbers above `LIMITS`, configs of two bundles, paths that do not exist,
    unknown parts of a split, wrong arguments of `BUILT`, and settings of an evaluation that would fail only at its end.
    Raises ValueError or FileNotFoundError, which may be wrapped in MONAI's RuntimeErrors (see `unwrapped_errors`).
    """
    check_settings(files, settings, bundle_root)
    for file in files:
        if len({_bundle_of(file), _bundle_of(files[0])} - {None}) > 1:
            raise ValueError(f"{file}: of another bundle than {files[0]}; expected configs of one bundle.")
    config = ConfigParser(ConfigParser.load_config_files(list(files)))
    config.update({key: value for key, value in settings.items() if value is not None})  # MONAI leaves None out
    value = config.get_parsed_content

    def given(*keys: str) -> dict[str, Any]:
        return {key: value(key) for key in keys if key in config}

    root = Path(bundle_root or Path(files[0]).absolute().parents[1])
    configs = given("evaluation_configs").get("evaluation_configs", ())
    for name in [configs] if isinstance(configs, str) else configs:  # which are read only after the training
        if not (root / "configs" / name).is_file():
            raise FileNotFoundError(f"evaluation_configs {name}: no such file in {root / 'configs'}.")
    for key, path in given(*FILES).items():
        if optional(path) is not None and not os.path.isfile(path):
            raise FileNotFoundError(f"{key} {path}: no such file.")
    folder = str(config.get("dataset_dir", "$"))
    if folder[:1] not in ("$", "@", "%") and not os.path.isdir(folder):
        raise FileNotFoundError(f"dataset_dir {folder}: no such folder.")
    for key, highest in LIMITS.items():
        for number in given(key).values():
            if optional(number) is not None:
                check_number(key, number, 0, highest)
    for sizes in given("spacing").values():
        per_axis("spacing", sizes)
    given(*BUILT)
    for axes in given("mirror_axes").values():
        check_mirror_axes(axes, value("crop"))
    for key, choices in {"decision": DECISIONS, "matmul_precision": MATMUL_PRECISIONS}.items():
        for word in given(key).values():
            check_choice(key, word, choices)
    for parts in given("part", "evaluate_on", "calibrate_on").values():
        take({part: [] for part in PARTS}, parts)
    if (weights := optional(given("ckpt_path").get("ckpt_path"))) is not None:
        require_fitting(weights, value("cohort"), root, value("image_transforms"))
        trained = facts.settings if (facts := read_facts(weights)) else {}
        for key, asked in given("spacing", "crop", "percentiles").items():
            if list(trained.get(key, asked)) != list(asked):
                logger.warning(f"{weights}: was trained with {key} {trained[key]}; here it is {asked}.")
    given("start")
    if "evaluation" in config:
        value("evaluation").require_same_steps(value("recorded"))
    if "conventions" in config:
        names = ("method", "conventions", "decision")
        check_evaluation({name: optional(value(name)) for name in names})
    return config


def _bundle_of(file: str) -> str | None:
    """Return the name of the bundle in whose ``configs`` a file lies, or None."""
    folders = [folder.parent for folder in Path(os.path.abspath(file)).parents if folder.name == "configs"]
    return bundle_name(folders[0]) if folders else None
