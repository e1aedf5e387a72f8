"""The leaderboard: a list of methods trained and evaluated on one cohort, then a report and the papers' tables.

If a training dies, the others go on. It is named at the end, with its log, and the same command resumes it.
"""

import os
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.cohorts import generate_phantom, get_cohort
from common.cohorts.cohort import Cohort
from common.cohorts.described import is_description
from common.evaluation.metrics.results import write_evaluation
from common.evaluation.report.report import write_table
from common.io.files import require_writable
from common.io.settings import check_number
from common.text import printable
from common.transforms.decision import DECISIONS
from mmb.experiments.comparison.combine import pool_folds
from mmb.experiments.comparison.compare import compare_methods
from mmb.experiments.dry_run import made_small
from mmb.experiments.evaluations import read_evaluation
from mmb.experiments.folders import finished, require_own_folder
from mmb.experiments.lists import MethodList, read_list
from mmb.experiments.paper_tables.tables import paper_tables
from mmb.experiments.slurm import write_array
from mmb.experiments.trainings import folders_of, prepare_entries, run_entries

DRY_RUN = "Dry run: invented images, one epoch of a small network each; the measured numbers mean nothing."


def run_leaderboard(
    methods: str,
    output_dir: str,
    cohort: str | None = None,
    dataset_dir: str | None = None,
    at_once: int | None = None,
    dry_run: bool = False,
    slurm: bool = False,
    only: str | None = None,
) -> None:
    """Run the verb ``leaderboard``, whose help describes what it does and the arguments."""
    _check_options(at_once, slurm, only)
    if cohort and is_description(cohort):
        cohort = os.path.abspath(cohort)  # for jobs that start elsewhere
    made = read_list(methods, cohort)
    named = cohort or made.cohort or "phantom"
    definition = get_cohort(named)
    check_data(definition, dataset_dir, dry_run)
    require_writable(output_dir)
    entries, shared, notes = made.trainings(), {"cohort": named}, list(made.notes)
    if dry_run:
        entries = made_small(entries, definition, Path(output_dir, "dry_run"))
        notes.insert(0, DRY_RUN)
    else:
        data = dataset_dir or generate_phantom(Path(output_dir).resolve() / "phantom")
        shared["dataset_dir"] = str(Path(data).resolve())
    if slurm:
        prepare_entries(entries, folders_of(entries, output_dir), shared)
        options = {"cohort": cohort, "dataset_dir": shared.get("dataset_dir"), "dry_run": dry_run or None}
        _print_array([entry.name for entry in entries], methods, output_dir, options)
        return
    failed: list[str] = []
    if at_once == 0:
        for entry in entries:
            require_own_folder(folders_of(entries, output_dir)[entry.name], entry, {"cohort": named})
    else:
        failed = run_entries(entries, output_dir, shared, at_once, only)
    if only is None:
        _report(made, definition, output_dir, notes)
    elif not failed:
        print(f"{only}: {folders_of(entries, output_dir)[only]}" + f". {DRY_RUN}" * dry_run)
    if failed and only is not None:
        raise ValueError(f"{only}: failed; see log.txt in its folder.")
    if failed:
        raise ValueError(f"{', '.join(failed)}: failed; see log.txt in each folder, then repeat the command.")


def gather(made: MethodList, output_dir: str | os.PathLike) -> dict[str, Path]:
    """Return the folder of each finished method's evaluation; with folds, write the pooled one first.

    Folds are pooled under each decision that all of them have been evaluated with.
    """
    folders = folders_of(made.trainings(), output_dir)
    pooled = folders_of([*made.trainings(), *made.entries], output_dir) if made.folds else folders
    found = {}
    for entry in made.entries:
        trainings = made.trainings_of(entry)
        if all(finished(folders[training.name]) for training in trainings):
            found[entry.name] = pooled[entry.name] / "evaluation"
            if made.folds:
                for part in ("", *DECISIONS):
                    places = {t.name: folders[t.name] / "evaluation" / part for t in trainings}
                    if all((place / "evaluation.json").is_file() for place in places.values()):
                        parts = [read_evaluation(place, name) for name, place in places.items()]
                        write_evaluation(pool_folds(entry.name, parts), found[entry.name] / part)
    return found


def _check_options(at_once: int | None, slurm: bool, only: str | None) -> None:
    if at_once is not None:
        check_number("--at_once", at_once, 0)
    if [slurm, only is not None, at_once is not None].count(True) > 1:
        raise ValueError("--slurm, --only and --at_once: expected at most one of them.")


def check_data(cohort: Cohort, dataset_dir: str | None, dry_run: bool) -> None:
    """Refuse a data folder that is missing, does not exist, or is given to a dry run."""
    if dry_run and dataset_dir is not None:
        raise ValueError(f"--dataset_dir {dataset_dir}: --dry_run makes its own data; give only one of the two.")
    if dataset_dir is None and not dry_run and cohort.name != "phantom":
        raise ValueError(f"--dataset_dir: missing; expected the folder of cohort {cohort.name}.")
    if dataset_dir is not None and not Path(dataset_dir).is_dir():
        raise FileNotFoundError(f"--dataset_dir {dataset_dir}: no such folder; expected that of {cohort.name}.")


def _print_array(names: Sequence[str], methods: str, output_dir: str, options: Mapping[str, Any]) -> None:
    """Write a job array, and print how to submit it and how to make the report afterwards."""
    words = [f"--{key}" + ("" if value is True else f"={value}") for key, value in options.items() if value is not None]
    command = ["leaderboard", str(Path(methods).resolve()), str(Path(output_dir).resolve()), *words]
    script = write_array(names, command, output_dir)
    print(f"{script}: {len(names)} trainings. Submit them, and when they are finished make the report:")
    print(f"    sbatch {shlex.quote(str(script))}")
    print(f"    {shlex.join(['mmb', *command, '--at_once', '0'])}")


def _report(made: MethodList, cohort: Cohort, output_dir: str, notes: Sequence[str]) -> None:
    """Write the report on two or more finished methods and the papers' tables, and print these and where it is."""
    done = gather(made, output_dir)
    if len(done) >= 2:
        report = Path(output_dir, "report")
        compared = compare_methods(str(report), [f"{name}={f}" for name, f in done.items()], {})
        cases = compared[0].results["case"].nunique()
        print(f"{report / 'report.md'}: {len(compared)} methods, {cases} cases")
    else:
        print(f"No report yet: {len(done)} of {len(made.entries)} methods are finished, and it compares two or more.")
    if made.blocks:
        evaluations = [read_evaluation(folder, name) for name, folder in done.items()]
        for stem, table in paper_tables(made.blocks, evaluations, cohort.modalities, notes).items():
            write_table(table, Path(output_dir, "tables"), stem)
            print(f"\n{printable(table.to_markdown())}")
