def evaluate(
    model: str,
    output_dir: str,
    *,
    cohort: str,
    dataset_dir: str,
    split: str | None = None,
    datalist: str | None = None,
    part: str = "test",
    calibrate_on: str = "validation",
    method: str | None = None,
    device: str | None = None,
    empty: str | None = None,
    hd95: str | None = None,
    et_min_voxels: int | None = None,
    average: str | None = None,
    surface_tolerance: float | None = None,
    lesion_wise: str | None = None,
) -> None:
    """Evaluate a trained nnU-Net as a bundle is evaluated, on the subsets of the sequences that it can segment.

    `compare` and `leaderboard` put the results beside those of other methods. Bundles are evaluated by MONAI; see
    docs/evaluate.md.

    Args:
        model: the folder that nnU-Net v2 trained into, or one that holds such a folder for each subset.
        output_dir: the folder to write.
        cohort: the data set, e.g. brats2021 or open_glioma.
        dataset_dir: its folder as downloaded, or nnU-Net's raw data.
        split: as for `datalist`.
        datalist: a datalist instead of a split.
        part: the part of the split to evaluate: training, validation or test.
        calibrate_on: the part on which volume intervals are calibrated; none for no intervals.
        method: name in tables; by default that of nnU-Net's data set.
        device: cpu, cuda or cuda:1; by default a GPU if there is one.
        empty: scoring of empty regions: brats, released, nan or skip; this and the following as for `compare`.
        hd95: kind of HD95: max or pooled.
        et_min_voxels: number of voxels below which predicted enhancing tumour counts as necrosis.
        average: average of overlap metrics: case or voxel.
        surface_tolerance: tolerance of the surface Dice in mm.
        lesion_wise: the task of BraTS 2023 whose lesion-wise Dice and HD95 are measured too.
    """
    from dataclasses import asdict

    from common.evaluation.metrics.conventions import Conventions
    from mmb.clinic.predictors.evaluate import evaluate_predictor
    from mmb.clinic.predictors.nnunet import is_nnunet, load_nnunet

    if not is_nnunet(model):
        raise FileNotFoundError(f"{model}: no trained nnU-Net (plans.json, fold_*); for bundles see docs/evaluate.md.")
    conventions = {"empty": empty, "hd95": hd95, "et_min_voxels": et_min_voxels, "average": average}
    conventions |= {"surface_tolerance": surface_tolerance, "lesion_wise": lesion_wise}
    conventions = {key: value for key, value in conventions.items() if value is not None}
    calibration = None if calibrate_on.lower() in ("none", "null") else calibrate_on
    settings = asdict(Conventions(**conventions))
    evaluate_predictor(
        load_nnunet(model, device), output_dir, cohort, dataset_dir, settings, method, split, datalist, part,
        calibration,
    )  # fmt: skip
