from collections.abc import Sequence
from pathlib import Path
from typing import Any


def compare(
    output_dir: str,
    *methods: str,
    reference: str | None = None,
    cohort: str | None = None,
    published: str | None = None,
    cases: Sequence[str] | None = None,
    panel_cases: Sequence[str] = (),
    panel_subsets: Sequence[str] | None = None,
    conventions: dict | None = None,
) -> None:
    """Write one report on several methods: tables, paired tests and figures, as Markdown.

    Args:
        output_dir: the folder to write. Measurements of label maps are stored in its folder evaluations/, and can be
            given as FOLDER the next time.
        methods: two or more NAME=FOLDER, or with --published one; the others are tested against the first one. A
            folder is the output of an evaluation, or holds label maps from any program, with one folder per subset of
            the modalities (t1c+flair, ...), or without such folders if all modalities were used.
        reference: the folder of the reference label maps; required for label maps.
        cohort: the cohort that defines the label values; required for label maps.
        published: a published table to add, as PAPER/TABLE/DATASET, e.g. "M3AE/1/BraTS2018 test split (57)".
        cases: names or patterns of the cases to compare, such as "BraTS2021_*,case_01", e.g. those of one hospital.
        panel_cases: names of cases of which a slice is drawn, with the outlines of all methods side by side.
        panel_subsets: subsets for these, such as t1c,t1c+flair; by default each sequence alone, and all of them.
        conventions: how label maps are measured, e.g. hd95=pooled et_min_voxels=500; docs/evaluate.md lists all. By
            default they are those of the first evaluation, or else the general ones.
    """
    from common.evaluation.metrics.conventions import Conventions
    from mmb.arguments import fields_of
    from mmb.experiments.comparison.compare import compare_methods

    given = fields_of(Conventions, "conventions", conventions)
    shown: dict[str, Any] = {"panel_cases": panel_cases, "panel_subsets": panel_subsets}
    compared = compare_methods(output_dir, methods, given, reference, cohort, published, cases, **shown)
    count = compared[0].results["case"].nunique()
    print(f"{Path(output_dir, 'report.md')}: {len(compared)} methods, {count} cases")
