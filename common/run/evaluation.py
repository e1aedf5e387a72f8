"""The evaluation that follows a training, and the record that its weights hold."""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Any

import ignite.distributed as idist
from monai.bundle import ConfigParser, ConfigWorkflow

from common.cohorts import get_cohort, take
from common.cohorts.datalist import PARTS
from common.cohorts.described import recorded
from common.cohorts.registry import patient_of
from common.engines.evaluate import check_evaluation
from common.io.facts import TrainingFacts, patient_digest, read_facts
from common.io.settings import check_choice
from common.io.weights import metadata_of, trained_on, trained_patients, weights_name
from common.run.fitting import image_steps
from common.run.keys import check_config
from common.run.workflow import configs_of
from common.text import shortened

logger = logging.getLogger(__name__)
TOLD = ("method", "recipe", "steps")
"""Of the keys of ``recorded``, those that are no settings of inference."""


class BundleEvaluation:
    """An evaluation by configs of a bundle, e.g. ``inference.json`` with ``evaluate.json`` as an overlay, on rank 0.

    The configs are names of files in its folder ``configs``; later ones override earlier ones, and ``overrides`` all of
    them. Raises FileNotFoundError if one does not exist.
    """

    def __init__(self, bundle_root: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> None:
        self.files = configs_of(bundle_root, configs)
        self.overrides = {
            "bundle_root": bundle_root,
            "_first_": [],
            "_given_": [*overrides, "trained_for"],
            **overrides,
        }
        self.begun: float | None = None
        """When the training began that is evaluated, if it is a step of the same run."""

    def check(self, recorded: Mapping[str, Any]) -> None:
        """Refuse what would fail only after the training: settings, and images that are not prepared as in it.

        Args:
            recorded: settings of the training that its weights will hold, and ``steps``, its transforms.
        """
        config = ConfigParser(ConfigParser.load_config_files(self.files))
        config.update(self.overrides)
        config.update({key: value for key, value in recorded.items() if key in config})
        value = config.get_parsed_content
        check_config(config.get())
        settings = {key: value(key) for key in ("method", "conventions", "decision") if key in config}
        if "conventions" in settings:
            check_evaluation(settings)
        for key in ("part", "calibrate_on"):
            if key in config:
                take({part: [] for part in PARTS}, value(key))
        own, theirs = image_steps(recorded["steps"]), image_steps(value("image_transforms"))
        if own != theirs:
            raise ValueError(
                f"deterministic_transforms: images go through {', '.join(own)} in the training, but through "
                f"{', '.join(theirs)} in the evaluation. Add the steps to `image_transforms` in a config for "
                "inference, and name its path in `evaluation_configs` (docs/extend.md)."
            )

    def __call__(self) -> None:
        """Run the evaluation, unless there is no labelled case to evaluate."""
        if idist.get_rank() == 0:
            minutes, seconds = divmod(round(time.monotonic() - (self.begun or 0)), 60)
            trained_for = {"trained_for": f"{minutes}:{seconds:02} minutes"} if self.begun else {}
            workflow = ConfigWorkflow(self.files, workflow_type="infer", **self.overrides, **trained_for)
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
        evaluation: settings that inference with the weights needs; besides them ``method``, ``recipe``, the names of
            the config files over ``train.json``, and ``steps``, the transforms of its images.
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
        settings={key: value for key, value in evaluation.items() if key not in TOLD}
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
