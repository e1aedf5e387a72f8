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
    conventions: dict | None = None,
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
        calibrate_on: a second part, whose results `calibrate` uses too; none for no such part.
        method: name in tables; by default that of nnU-Net's data set.
        device: cpu, cuda or cuda:1; by default a GPU if there is one.
        conventions: how results are measured, as for `compare`.
    """
    from dataclasses import asdict

    from common.evaluation.metrics.conventions import Conventions
    from mmb.arguments import fields_of
    from mmb.predictors.evaluate import evaluate_predictor
    from mmb.predictors.nnunet import is_nnunet, load_nnunet

    if not is_nnunet(model):
        raise FileNotFoundError(f"{model}: no trained nnU-Net (plans.json, fold_*); for bundles see docs/evaluate.md.")
    calibration = None if calibrate_on.lower() in ("none", "null") else calibrate_on
    settings = asdict(Conventions(**fields_of(Conventions, "conventions", conventions)))
    evaluate_predictor(
        load_nnunet(model, device), output_dir, cohort, dataset_dir, settings, method, split, datalist, part,
        calibration,
    )  # fmt: skip
