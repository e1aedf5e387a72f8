"""Steps that connect a bundle's configs: an evaluation after a training, facts for inference."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import run

from common.cohorts import get_cohort
from common.io.command import recipe_names
from common.io.facts import SETTINGS, TrainingFacts
from common.io.settings import optional
from common.io.weights import metadata_of, trained_on, weights_name


class BundleEvaluation:
    """An evaluation by configs of a bundle, e.g. ``inference.json`` with ``evaluate.json`` as an overlay, on rank 0.

    The configs are names of files in its folder ``configs``; later ones override earlier ones, and ``overrides`` all of
    them.
    """

    def __init__(self, bundle_root: str, configs: Sequence[str], overrides: Mapping[str, Any]) -> None:
        self.files = [str(Path(bundle_root) / "configs" / name) for name in configs]
        self.overrides = {"bundle_root": bundle_root, **overrides}

    def __call__(self) -> None:
        """Run the evaluation."""
        if idist.get_rank() == 0:
            given = {key: "$None" if value is None else value for key, value in self.overrides.items()}
            run(config_file=self.files, **given)  # which would leave out None


def training_facts(
    bundle_root: str, evaluation: Mapping[str, Any], cases: Sequence[Mapping[str, Any]], init_from: str | None
) -> TrainingFacts:
    """Return the record of a training that its weights file will hold.

    Args:
        bundle_root: folder of the bundle.
        evaluation: settings of the evaluation that follows, among them ``method`` and those of `SETTINGS`.
        cases: datalist items of the training.
        init_from: weights that it starts from, or None.
    """
    metadata = metadata_of(bundle_root)
    before = init_from and f"{trained_on(init_from, bundle_root) or 'unknown data'} ({weights_name(init_from)})"
    seen = {name for item in cases for name in item["modalities"]}
    return TrainingFacts(
        method=evaluation["method"],
        bundle=metadata["bundle"],
        version=metadata["version"],
        cases=len(cases),
        modalities=[name for name in get_cohort(evaluation["cohort"]).modalities if name in seen],
        recipe=recipe_names(),
        before=before or "",
        settings={key: optional(evaluation[key]) for key in SETTINGS if key in evaluation},
    )
