"""Comparison of methods by their evaluations, or by label maps from any program."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.cohorts import get_cohort
from common.cohorts.splits import PARTS
from common.evaluation.analysis.comparable import require_comparable, select_cases
from common.evaluation.analysis.label_maps import evaluate_label_maps
from common.evaluation.analysis.published import published as read_published
from common.evaluation.analysis.reliability import check_coverage
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import Evaluation, read_evaluation, require_own_output, write_evaluation
from common.evaluation.report.paper_tables import published_table
from common.evaluation.report.report import write_report
from common.evaluation.report.sections import stems
from common.io import require_writable
from common.io.settings import check_choice


def compare_methods(
    output_dir: str,
    methods: Sequence[str],
    conventions: Mapping[str, Any],
    reference: str | None = None,
    cohort: str | None = None,
    datalist: str | None = None,
    part: str = "test",
    published: str | None = None,
    coverage: float | None = None,
    cases: str | Sequence[str] | None = None,
    allow_missing: bool = False,
    force: bool = False,
) -> list[Evaluation]:
    """Write one report on several methods, and return their evaluations, reduced to what is compared.

    The arguments are the options of the verb ``compare``, which `tools.compare` describes; error messages name them.
    ``conventions`` are for label maps; a key that is missing or None is taken from the first evaluation.
    """
    folders = _by_name(methods)
    require_own_output(output_dir, [*folders.values()])
    if Path(output_dir.partition("=")[2] or os.devnull).is_dir():
        raise ValueError(f"output_dir {output_dir}: looks like NAME=FOLDER; expected the folder to write first.")
    check_choice("--part", part, PARTS)
    if coverage is not None:
        check_coverage(coverage)
    conventions = {key: value for key, value in conventions.items() if value is not None}
    if published is not None and published.count("/") < 2:
        raise ValueError(f"--published {published}: expected PAPER/TABLE/DATASET.")
    source = None if published is None else published.split("/", 2)
    if source:
        read_published(*source)  # refuses a table that does not exist
    evaluations = {
        name: read_evaluation(folder, name) for name, folder in folders.items() if Path(folder, "results.csv").is_file()
    }
    label_maps = {name: folder for name, folder in folders.items() if name not in evaluations}
    if label_maps and (reference is None or cohort is None):
        folder = next(iter(label_maps.values()))
        raise ValueError(f"{folder}: has no results.csv; for label maps give --reference and --cohort.")
    for option, value in ({} if label_maps else {**conventions, "datalist": datalist}).items():
        if value is not None:
            raise ValueError(f"--{option}: is for label maps; results keep their own conventions and cases.")
    remarks = []
    if cases is not None:
        if label_maps:
            raise ValueError("--cases: is for results; for label maps name the cases in a --datalist.")
        patterns = [cases] if isinstance(cases, str) else list(cases)
        evaluations = {name: select_cases(evaluation, patterns) for name, evaluation in evaluations.items()}
        remarks.append(f"Only the cases {', '.join(patterns)}.")
    others = next((asdict(evaluation.conventions) for evaluation in evaluations.values()), {})
    settings, files = Conventions(**others | conventions), stems(folders)
    require_writable(output_dir)
    if coverage is None:
        coverage = next((e.facts["coverage"] for e in evaluations.values() if "coverage" in e.facts), 0.9)
    if label_maps:
        definition = get_cohort(cohort)
        evaluated = {c for e in evaluations.values() if e.cohort == definition.name for c in e.results["case"]}
        listed = _cases_of(datalist, part) if datalist else evaluated or None
    for name, folder in label_maps.items():
        measured, left_out = evaluate_label_maps(name, folder, reference, definition, settings, allow_missing, listed)
        write_evaluation(measured, Path(output_dir, "evaluations", files[name]))
        evaluations[name] = measured
        remarks += left_out
    compared, differences = require_comparable([evaluations[name] for name in folders], allow_missing, force)
    beside = published_table(source, compared) if source else None
    write_report(compared, output_dir, coverage, beside, [*remarks, *differences])
    return compared


def _by_name(methods: Sequence[str]) -> dict[str, str]:
    """Return name -> folder from ``NAME=FOLDER``, or from ``NAME=FOLDER/results.csv``."""
    named = [method.partition("=") for method in methods]
    if len(named) < 2 or not all(name and folder for name, _, folder in named):
        raise ValueError(f"methods {list(methods)}: expected two or more NAME=FOLDER.")
    folders = {
        name: str(Path(folder).parent) if Path(folder).name == "results.csv" else folder for name, _, folder in named
    }
    if len(folders) < len(named):
        raise ValueError(f"methods {list(methods)}: two have the same name; give each its own.")
    if absent := [folder for folder in folders.values() if not Path(folder).is_dir()]:
        raise FileNotFoundError(f"{absent[0]}: no such folder; expected an evaluation's output, or label maps.")
    return folders


def _cases_of(datalist: str, part: str) -> list[str]:
    """Return the cases of a part of a datalist; their files need not exist here."""
    try:
        cases = [item["case"] for item in json.loads(Path(datalist).read_text())[part]]
        if foreign := [case for case in cases if not isinstance(case, str)]:
            raise TypeError(f"case {foreign[0]!r} is not text")
        return cases
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{datalist}: not a datalist with cases in part {part} ({error}). Make it with `python -m tools datalist`."
        ) from error
