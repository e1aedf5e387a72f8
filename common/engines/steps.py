"""Steps that connect a bundle's configs: an evaluation after a training, facts for inference."""

import logging
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from ignite.engine import Engine
from monai.bundle import ConfigParser, ConfigWorkflow

from common.cohorts import get_cohort
from common.cohorts.described import recorded
from common.cohorts.registry import patient_of
from common.engines.preprocessing import image_steps, only
from common.io.command import is_command, unwrapped_errors
from common.io.facts import SETTINGS, TrainingFacts, patient_digest, read_facts
from common.io.settings import check_choice, optional
from common.io.weights import metadata_of, trained_on, trained_patients, weights_name
from common.text import shortened

logger = logging.getLogger(__name__)


def run_engine(engine: Engine) -> None:
    """Run an engine, so that of a command that fails the last line says why, in place of MONAI's expressions.

    The traceback is that of the error itself, without those of the errors that MONAI wraps around it.
    """
    try:
        with unwrapped_errors():
            engine.run()
    except Exception as error:
        if not is_command():
            raise
        traceback.print_exception(error)
        raise SystemExit(1) from None  # which MONAI does not wrap


class BundleEvaluation:
    """An evaluation by configs of a bundle, e.g. ``inference.json`` with ``evaluate.json`` as an overlay, on rank 0.

    The configs are names of files in its folder ``configs``; later ones override earlier ones, and ``overrides`` all of
    them.
    """

    def __init__(self, bundle_root: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> None:
        self.files = [str(Path(bundle_root) / "configs" / name) for name in configs]
        self.overrides = {"bundle_root": bundle_root, **overrides}

    def require_same_steps(self, recorded: Mapping[str, Any]) -> None:
        """Refuse a training that prepares its images in another way than the evaluation, and so inference, would.

        Args:
            recorded: settings of the training that its weights will hold, and ``steps``, its transforms.
        """
        config = self._config()
        config.update({key: recorded[key] for key in SETTINGS if key in recorded and key in config})
        own, theirs = image_steps(recorded["steps"]), image_steps(config.get_parsed_content("image_transforms"))
        if own != theirs:
            training, evaluation = ", ".join(only(own, theirs)), ", ".join(only(theirs, own))
            raise ValueError(
                f"deterministic_transforms: images go through {training} in the training, but through {evaluation} in "
                f"{' and '.join(Path(file).name for file in self.files)}. Add the steps to `image_transforms` in a "
                "config for inference, and name its path in `evaluation_configs` (docs/extend.md)."
            )

    def require_log(self) -> None:
        """Refuse a server of MLflow that does not answer now, rather than after the training."""
        config = self._config()
        if "log" in config:
            config.get_parsed_content("log")

    def _config(self) -> ConfigParser:
        config = ConfigParser(ConfigParser.load_config_files(self.files))
        config.update(self.overrides)
        return config

    def __call__(self) -> None:
        """Run the evaluation, unless there is no labelled case to evaluate."""
        if idist.get_rank() == 0:
            workflow = ConfigWorkflow(self.files, workflow_type="infer", **self.overrides)
            workflow.initialize()
            value = workflow.parser.get_parsed_content
            if "report" in workflow.parser and not any("label" in item for item in value("cases")):
                logger.warning(f"No case to evaluate: part {value('part')} of the split has none with a label.")
                return
            workflow.run()
            workflow.finalize()


def training_facts(
    bundle_root: str,
    evaluation: Mapping[str, Any],
    cases: Sequence[Mapping[str, Any]],
    init_from: str | None,
    pretrained_on: Sequence[Mapping[str, Any]] = (),
) -> TrainingFacts:
    """Return the record of a training that its weights file will hold.

    Args:
        bundle_root: folder of the bundle.
        evaluation: settings of the evaluation that follows, among them ``method``, those of `SETTINGS`, and ``recipe``,
            the names of the config files over ``train.json``; and ``steps``, the transforms of its images.
        cases: datalist items of the training, and ``pretrained_on`` those of a training before it.
        init_from: weights that it starts from, or None.
    """
    metadata = metadata_of(bundle_root)
    before = init_from and f"{trained_on(init_from, bundle_root) or 'unknown data'} ({weights_name(init_from)})"
    cohort = get_cohort(evaluation["cohort"])
    patients = {patient_digest(cohort.name, patient_of(item)) for item in [*cases, *pretrained_on]}
    patients |= {*trained_patients(init_from, bundle_root)} if init_from else set()
    seen = {name for item in cases for name in item["modalities"]}
    return TrainingFacts(
        method=evaluation["method"],
        bundle=metadata["bundle"],
        version=metadata["version"],
        cases=len(cases),
        modalities=[name for name in cohort.modalities if name in seen],
        recipe=list(evaluation.get("recipe", ())),
        before=before or "",
        patients=sorted(patients),
        preprocessing=image_steps(evaluation["steps"]) if "steps" in evaluation else [],
        settings={key: optional(evaluation[key]) for key in SETTINGS if key in evaluation}
        | {"cohort": recorded(evaluation["cohort"])},
    )


def trained_cases(
    cases: Sequence[Mapping[str, Any]], cohort: str, ckpt_path: str, bundle_root: str, allowed: str
) -> int | None:
    """Return how many of the cases to evaluate the weights were trained on; None for none, or if that is unknown.

    Patients are told by the cohort of the evaluation, and by that of the weights. Raises ValueError if there are such
    cases, unless ``allowed`` is ``mark``, which warns; ``refuse`` is the other choice.
    """
    check_choice("trained_cases", allowed, ("refuse", "mark"))
    patients, facts = trained_patients(ckpt_path, bundle_root), read_facts(ckpt_path)
    if not patients:
        logger.warning(f"{ckpt_path}: does not say which patients it was trained on; make sure that these are others.")
    named = {cohort, facts.settings.get("cohort", cohort) if facts else cohort}
    cohorts = {get_cohort(name).name for name in named}
    digests = {item["case"]: {patient_digest(name, patient_of(item)) for name in cohorts} for item in cases}
    seen = [case for case, names in digests.items() if names & {*patients}]
    if not seen:
        return None
    text = f"{ckpt_path}: was trained on {len(seen)} of the {len(cases)} cases to evaluate ({shortened(seen)})."
    if allowed == "refuse":
        raise ValueError(f"{text} Evaluate on others; or, with --trained_cases mark, the report says so.")
    logger.warning(text)
    return len(seen)
