"""An ablation: trainings of one bundle with different settings, and tables that compare them."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common.engines.steps import claim_folder, finished, prepare_training, run_bundle
from common.evaluation.analysis.statistics import MEAN, compare_to_first
from common.evaluation.metrics.results import Evaluation, read_evaluation
from common.evaluation.report.layout import Table
from common.evaluation.report.tables import comparison_table, statistics_table
from common.io import given_options
from common.io.files import replacing

logger = logging.getLogger(__name__)

ABLATION_METRICS = ("dice", "hd95")
OF_ABLATION = ("bundle_root", "configs", "shared", "variants", "reference", "output_dir")
"""Keys of an ablation's recipe itself, which are not passed to the trainings."""


def run_variants(
    bundle_root: str,
    configs: Sequence[str],
    shared: Mapping[str, Any],
    variants: Mapping[str, Mapping[str, Any]],
    reference: str,
    output_dir: str,
) -> None:
    """Train and evaluate a bundle once per variant, and write ``ablation.md`` with mean Dice, HD95 and paired tests.

    A variant that has an ``evaluation/evaluation.json`` is not run again; an interrupted one is resumed. All variants
    are prepared before the first one is trained, so that a mistake is found at once. Options of the command line
    (``--epochs``, ``--backbone`` ...) apply to every variant.

    Args:
        bundle_root: folder of the bundle.
        configs: names of files in its ``configs``, e.g. ``train.json`` and a recipe.
        shared: config keys to set for all variants.
        variants: name -> config keys to set.
        reference: name of the variant that the others are tested against; it becomes the first row.
        output_dir: output folder, in which each variant gets a numbered subfolder.

    Raises:
        ValueError: if no variant has the reference's name, the command line sets a key that a variant sets, a variant
            cannot be trained with its keys, or a subfolder belongs to another variant.
    """
    if reference not in variants:
        raise ValueError(f"reference {reference!r}: expected the name of a variant, one of {', '.join(variants)}.")
    settings = {name: {**shared, **keys, **_given_to(variants)} for name, keys in variants.items()}
    folders = {name: Path(output_dir) / f"{number:02d}" for number, name in enumerate(variants)}
    files = [str(Path(bundle_root, "configs", name)) for name in configs]
    for name, folder in folders.items():
        if not finished(folder):
            with _naming(name):
                prepare_training(files, {**settings[name], "bundle_root": bundle_root, "output_dir": str(folder)})
        claim_folder(folder, {"variant": name, "configs": list(configs), **settings[name]})
    for number, (name, folder) in enumerate(folders.items(), start=1):
        if not finished(folder):
            logger.info(f"variant {number} of {len(variants)}: {name} {dict(variants[name])}")
            run_bundle(bundle_root, configs, {**settings[name], "output_dir": str(folder), "resume": True})
    order = [reference, *(name for name in variants if name != reference)]
    tables = ablation_tables([read_evaluation(folders[name] / "evaluation", name) for name in order])
    text = "\n\n".join(table.to_markdown() for table in tables)
    with replacing(Path(output_dir) / "ablation.md") as temporary:
        temporary.write_text(text)
    print(f"\n{text}", flush=True)


def ablation_tables(evaluations: Sequence[Evaluation]) -> list[Table]:
    """Return the tables of an ablation: mean Dice and HD95 over the subsets and, for several variants, paired tests.

    Args:
        evaluations: evaluations of the variants; the others are tested against the first one.
    """
    if len(evaluations) < 2:
        return [comparison_table(evaluations, metric) for metric in ABLATION_METRICS]
    tests = compare_to_first(evaluations)
    shown = tests[tests["metric"].isin(ABLATION_METRICS) & (tests["modalities"] == MEAN)]
    return [*(comparison_table(evaluations, metric, tests) for metric in ABLATION_METRICS), statistics_table(shown)]


def _given_to(variants: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Return the config keys of the command line that are meant for the trainings, not for the ablation itself.

    Raises:
        ValueError: if a variant sets the same key, or the key would have no effect.
    """
    given = {key: value for key, value in given_options().items() if key.split("#")[0] not in OF_ABLATION}
    if "resume" in given:
        raise ValueError("--resume: an ablation always resumes interrupted trainings; leave the option out.")
    for key in given:
        for name, keys in variants.items():
            if any(f"{one}#".startswith(f"{other}#") for own in keys for one, other in ((key, own), (own, key))):
                raise ValueError(
                    f"--{key}: the variant {name!r} sets it; leave the option out, or give other --variants."
                )
    return given


@contextmanager
def _naming(variant: str) -> Iterator[None]:
    """Add the variant's name to an error."""
    try:
        yield
    except Exception as error:
        raise ValueError(f"variant {variant!r}: {error}") from error
