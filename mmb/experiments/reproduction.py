"""A number of a paper from weights: one row of its table, measured on its split, beside the published one."""

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from monai.bundle import run

from common.cohorts import get_cohort
from common.engines.settings import check_run
from common.evaluation.metrics.results import read_evaluation
from common.evaluation.report.report import write_table
from common.io import bundle_root, require_writable
from common.io.command import unwrapped_errors
from common.io.facts import TrainingFacts, read_facts
from common.io.weights import weights_name
from common.text import printable
from mmb.experiments.dry_run import SPACING, made_small
from mmb.experiments.leaderboard import check_data
from mmb.experiments.lists import MethodList, read_list
from mmb.experiments.paper_tables.tables import Block, paper_tables
from mmb.experiments.training import Entry

DRY_RUN = "Dry run on invented images: the measured numbers mean nothing."
IMPORTED = ", authors' weights"
"""End of the method's name in imported weights."""


def reproduce(
    table: str,
    weights: str,
    output_dir: str,
    dataset_dir: str | None = None,
    method: str | None = None,
    dry_run: bool = False,
) -> None:
    """Run the verb ``reproduce``, whose help describes what it does and the arguments.

    The evaluation is that which follows a training of the list's method.
    """
    made, facts = read_list(table), read_facts(weights)
    if not os.path.isfile(weights) or facts is None:
        raise FileNotFoundError(
            f"{weights}: no weights file with a record of its training; convert the authors' file by import_weights."
        )
    entry = _entry(made, facts, table, weights, method)
    definition = get_cohort(made.cohort)
    check_data(definition, dataset_dir, dry_run)
    require_writable(output_dir)
    notes = [f"Measured: {weights_name(weights)}. {_preparation(entry)}"]
    notes += [f"What {table} says of its own trainings, where it concerns the evaluation too:", *made.notes]
    if dry_run:
        (entry,) = made_small([entry], definition, Path(output_dir, "dry_run"))
        coarse = {"evaluation#overrides#spacing": [SPACING] * 3}  # at that of the weights it would take hours
        entry = replace(entry, settings={**entry.settings, **coarse})
        notes.insert(0, DRY_RUN)
    evaluate(entry, made.cohort, weights, output_dir, dataset_dir)
    evaluation = read_evaluation(Path(output_dir, "evaluation"), entry.name)
    for stem, printed in paper_tables(_rows(made, entry.name), [evaluation], definition.modalities, notes).items():
        write_table(printed, Path(output_dir, "tables"), stem)
        print(f"\n{printable(printed.to_markdown())}")


def evaluate(entry: Entry, cohort: str, weights: str, output_dir: str, dataset_dir: str | None) -> None:
    """Evaluate weights as a training of the method would, into the folder ``evaluation`` of ``output_dir``."""
    settings: dict[str, Any] = {**entry.settings, "output_dir": str(Path(output_dir).resolve())}
    if dataset_dir is not None:
        settings["dataset_dir"] = str(Path(dataset_dir).resolve())
    own = {"ckpt_path": str(Path(weights).resolve()), "cohort": cohort, "method": entry.name}
    own |= {"published": "$None", "calibrate_on": "$None"}  # a table needs no other cases than those of the test
    settings |= {f"evaluation#overrides#{key}": value for key, value in own.items()}
    with unwrapped_errors():
        check_run(entry.files, settings, bundle_root(entry.bundle))
        run("evaluate", config_file=entry.files, bundle_root=bundle_root(entry.bundle), **settings)


def _entry(made: MethodList, facts: TrainingFacts, table: str, weights: str, method: str | None) -> Entry:
    """Return the list's method that the weights are of, by its name or else by their record."""
    if made.cohort is None or made.folds or not made.blocks:
        raise ValueError(f"{table}: expected the list of a paper's table on one published split, as in bundles/tables.")
    name = method or facts.method.removesuffix(IMPORTED)
    printed = {row for block in made.blocks for row in block.trained.values()}
    entries = {entry.name: entry for entry in made.entries if entry.name in printed}
    if name not in entries:
        raise ValueError(
            f"{weights}: weights of {facts.method}; {table} has the rows {', '.join(entries)}. Choose another list, or "
            "say by --method which of them it is."
        )
    if entries[name].bundle != facts.bundle:
        raise ValueError(f"{weights}: are for the bundle {facts.bundle}, but {name} is of {entries[name].bundle}.")
    return entries[name]


def _rows(made: MethodList, name: str) -> Sequence[Block]:
    """Return the published tables that have the method, with its row alone."""
    rows = [(block, {row: ours for row, ours in block.trained.items() if ours == name}) for block in made.blocks]
    return [replace(block, names=tuple(own), trained=own, unavailable={}) for block, own in rows if own]


def _preparation(entry: Entry) -> str:
    return (
        f"Images are prepared, windows joined and regions decided as by the bundle {entry.bundle}; where the authors' "
        f"code differs, bundles/{entry.bundle}/docs/README.md says so."
    )
