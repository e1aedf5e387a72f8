"""Comparison of methods by their evaluations, or by label maps from any program."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from common.cohorts import get_cohort
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import Evaluation, write_evaluation
from common.evaluation.report.report import write_report
from common.evaluation.report.sections import stems
from common.io.files import require_writable
from mmb.experiments.comparison.comparable import require_comparable, select_cases
from mmb.experiments.comparison.label_maps import evaluate_label_maps
from mmb.experiments.comparison.paired import compare_to_first
from mmb.experiments.comparison.side_by_side import side_by_side
from mmb.experiments.evaluations import read_evaluation, require_own_output
from mmb.experiments.paper_tables.published import published as read_published
from mmb.experiments.paper_tables.tables import published_table


def compare_methods(
    output_dir: str,
    methods: Sequence[str],
    conventions: Mapping[str, Any],
    reference: str | None = None,
    cohort: str | None = None,
    published: str | None = None,
    cases: Sequence[str] | None = None,
    panel_cases: Sequence[str] = (),
    panel_subsets: Sequence[str] | None = None,
) -> list[Evaluation]:
    """Write one report on several methods, and return their evaluations, reduced to the cases that are compared.

    The arguments are the options of the verb ``compare``, which `mmb.verbs.compare` describes; messages name them.
    ``conventions`` are for label maps; a key that is missing or None is taken from the first evaluation.
    """
    folders = _by_name(methods, 1 if published else 2)
    require_own_output(output_dir, [*folders.values()])
    conventions = {key: value for key, value in conventions.items() if value is not None}
    source = None if published is None else published.split("/", 2)
    if source:
        if len(source) < 3:
            raise ValueError(f"--published {published}: expected PAPER/TABLE/DATASET.")
        read_published(*source)  # refuses a table that does not exist
    evaluations = {
        name: _chosen(read_evaluation(folder, name), cases)
        for name, folder in folders.items()
        if Path(folder, "results.csv").is_file()
    }
    label_maps = {name: folder for name, folder in folders.items() if name not in evaluations}
    if label_maps and not (reference and cohort):
        folder = next(iter(label_maps.values()))
        if list(Path(folder).glob("fold_*")):
            raise ValueError(f"{folder}: a trained nnU-Net; give a folder of its label maps (docs/nnunet.md).")
        raise ValueError(f"{folder}: has no results.csv; for label maps give --reference and --cohort.")
    if panel_cases and label_maps:
        raise ValueError(
            f"--panel_cases: are drawn from the slices that evaluations store, and {next(iter(label_maps))} is label "
            "maps. Leave the option out, or the label maps."
        )
    if conventions and not label_maps:
        raise ValueError("--conventions: is for label maps; results keep their own conventions.")
    others = next((asdict(evaluation.conventions) for evaluation in evaluations.values()), {})
    settings, files = Conventions(**others | conventions), stems(folders)
    definitions = {name: get_cohort(cohort or "") for name in label_maps}
    require_writable(output_dir)
    for name, folder in label_maps.items():
        measured = evaluate_label_maps(name, folder, reference or "", definitions[name], settings)
        write_evaluation(measured, Path(output_dir, "evaluations", files[name]))
        evaluations[name] = _chosen(measured, cases)
    compared = [evaluations[name] for name in folders]
    remarks = [] if cases is None else [f"Only the cases {', '.join(cases)}."]
    remarks += require_comparable(compared)
    beside = published_table(source, compared) if source else None
    panels = {"": [*side_by_side(compared, folders, panel_cases, panel_subsets)]}
    labels = get_cohort(cohort or compared[0].cohort).labels if panel_cases else None
    tests = compare_to_first(compared) if len(compared) > 1 else None
    write_report(compared, output_dir, tests, beside, remarks, panels, labels)
    return compared


def _by_name(methods: Sequence[str], least: int) -> dict[str, str]:
    """Return name -> folder from ``NAME=FOLDER``."""
    named = [method.partition("=") for method in methods]
    if len(named) < least or not all(name and folder for name, _, folder in named):
        raise ValueError(f"methods {list(methods)}: expected two or more NAME=FOLDER, or with --published one or more.")
    folders = {name: folder for name, _, folder in named}
    if len(folders) < len(named):
        raise ValueError(f"methods {list(methods)}: two have the same name; give each its own.")
    if packed := [folder for folder in folders.values() if Path(folder).is_file()]:
        raise ValueError(f"{packed[0]}: a file; expected a folder. Unpack an archive, and give its folder.")
    if absent := [folder for folder in folders.values() if not Path(folder).is_dir()]:
        raise FileNotFoundError(f"{absent[0]}: no such folder; expected an evaluation's output, or label maps.")
    return folders


def _chosen(evaluation: Evaluation, cases: Sequence[str] | None) -> Evaluation:
    return evaluation if cases is None else select_cases(evaluation, cases)
