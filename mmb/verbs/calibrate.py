import json
from pathlib import Path


def calibrate(weights: str, *evaluations: str, without_tumour: str | None = None) -> None:
    """Calibrate what weights say of their own outlines, for the pages of predict; no outline changes.

    Writes WEIGHTS_calibration.json beside the weights, and prints how good it is on patients that it was not fitted on.

    Args:
        weights: the weights' file.
        evaluations: output folders of evaluations of these weights, all with the decision that predict is to use, e.g.
            OUT/evaluation/expected_dice. All their cases count: those of the test part, and those of calibrate_on.
        without_tumour: folder of outputs of predict (summary.json in any of its folders) for brains without a tumour,
            segmented with these weights and this decision; they set the limit below which no tumour was found with
            confidence.
    """
    from common.io.files import file_digest
    from mmb.experiments.evaluations import read_evaluation
    from mmb.predictors.calibration import calibrate as fitted
    from mmb.predictors.calibration import calibration_file, write_calibration
    from mmb.predictors.calibration_table import left_out_table

    if not Path(weights).is_file():
        raise FileNotFoundError(f"{weights}: no such file; expected the weights to calibrate.")
    if not evaluations:
        raise ValueError("No evaluation; expected the output folder of at least one, after the weights.")
    digest, read = file_digest(weights), [read_evaluation(folder) for folder in evaluations]
    decision = str(read[0].facts.get("decision", "threshold"))
    for folder, evaluation in zip(evaluations, read, strict=True):
        if evaluation.facts.get("weights") != digest:
            raise ValueError(f"{folder}: not an evaluation of {weights}; evaluate these weights (run evaluate).")
    scores = None if without_tumour is None else _scores(Path(without_tumour), read[0].regions[0], digest, decision)
    calibration = fitted(read, digest, scores)
    path = calibration_file(weights)
    write_calibration(calibration, path)
    print(f"{left_out_table(calibration).to_markdown()}\n{path}")


def _scores(folder: Path, region: str, digest: str, decision: str) -> list[float]:
    """Return the raw scores of a region in all outputs of predict in a folder; refuse those of other weights."""
    files = sorted(folder.rglob("summary.json"))
    if not files:
        raise FileNotFoundError(f"--without_tumour {folder}: no summary.json in it; expected outputs of predict.")
    scores = []
    for file in files:
        try:
            summary = json.loads(file.read_text(encoding="utf-8"))
            score, made_with, decided = summary["scores"][region], summary["weights"], summary["asked"]["decision"]
            scores.append(float(score))
        except (ValueError, KeyError, TypeError) as error:
            what = f"{region}, weights and decision"
            raise ValueError(f"{file}: expected a score of {what} ({error!r}); segment this study again.") from error
        if made_with.rpartition(" ")[2] != digest:
            raise ValueError(
                f"{file}: made with the weights {made_with}; segment this study with those of SHA-256 {digest}."
            )
        if decided != decision:
            raise ValueError(
                f"{file}: made with the decision {decided}; segment this study with --decision {decision}."
            )
    return scores
