from collections.abc import Sequence
from pathlib import Path


def compare(
    output_dir: str,
    *methods: str,
    reference: str | None = None,
    cohort: str | None = None,
    published: str | None = None,
    cases: Sequence[str] | None = None,
    panel_cases: Sequence[str] = (),
    panel_subsets: Sequence[str] | None = None,
    empty: str | None = None,
    hd95: str | None = None,
    et_min_voxels: int | None = None,
    average: str | None = None,
    surface_tolerance: float | None = None,
    lesion_wise: str | None = None,
) -> None:
    """Write one report on several methods: tables, paired tests and figures, as Markdown.

    Args:
        output_dir: the folder to write. Measurements of label maps are stored in its folder evaluations/, and can be
            given as FOLDER the next time.
        methods: two or more NAME=FOLDER, or with --published one; the others are tested against the first one. A
            folder is the output of an evaluation, or holds label maps from any program, with one folder per subset of
            the modalities (t1c+flair, ...), or without such folders if all modalities were used. A trained nnU-Net is
            measured by `evaluate` first.
        reference: the folder of the reference label maps; required for label maps.
        cohort: the cohort that defines the label values; required for label maps.
        published: a published table to add, as PAPER/TABLE/DATASET, e.g. "M3AE/1/BraTS2018 test split (57)".
        cases: names or patterns of the cases to compare, such as "BraTS2021_*,case_01", e.g. those of one hospital.
        panel_cases: names of cases of which a slice is drawn, with the outlines of all methods side by side.
        panel_subsets: subsets for these, such as t1c,t1c+flair; by default each sequence alone, and all of them.
        empty: scoring of empty regions in label maps: brats, released, nan or skip. By default, this and the following
            conventions are those of the first evaluation, or else the general defaults.
        hd95: kind of HD95: max or pooled.
        et_min_voxels: number of voxels below which predicted enhancing tumour counts as necrosis.
        average: average of overlap metrics: case or voxel.
        surface_tolerance: tolerance of the surface Dice in mm.
        lesion_wise: the task of BraTS 2023 whose lesion-wise Dice and HD95 are measured too: GLI (adult glioma), SSA,
            PED, MEN or MET.
    """
    from mmb.experiments.comparison.compare import compare_methods

    conventions = {"empty": empty, "hd95": hd95, "et_min_voxels": et_min_voxels, "average": average}
    conventions |= {"surface_tolerance": surface_tolerance, "lesion_wise": lesion_wise}
    shown = {"panel_cases": panel_cases, "panel_subsets": panel_subsets}
    compared = compare_methods(output_dir, methods, conventions, reference, cohort, published, cases, **shown)
    count = compared[0].results["case"].nunique()
    print(f"{Path(output_dir, 'report.md')}: {len(compared)} methods, {count} cases")
