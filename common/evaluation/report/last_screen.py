"""The last screen of an evaluation: on what, how good, what that means, and what to do next."""

from collections.abc import Sequence

from common.evaluation.analysis.statistics import is_pooled, subset_statistics
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report.tables import counted, decimal
from common.modalities import display_subset, subset_name

EMPTY = {
    "brats": "any mark there counts as Dice 0, none as 1",
    "released": "any mark there counts as Dice 0, none as 1",
    "nan": "it has no Dice there",
    "skip": "it has no Dice there",
}
"""Convention of empty regions -> what becomes of a region that the reference lacks."""


def last_screen(evaluation: Evaluation, report: str, trained: str, documented: Sequence[float] | None = None) -> str:
    """Return some lines on an evaluation: Dice of all modalities, the best and the worst alone, and the mean.

    Args:
        evaluation: results of a method.
        report: path of the report, which has all subsets.
        trained: how long and on what the method was trained, e.g. ``for 1:15 minutes on 24 cases of phantom``.
        documented: the mean Dice (%) over the subsets for each region that the bundle's bare training gives.
    """
    means = 100 * subset_statistics(evaluation, "dice")["mean"]
    alone = means[~means.index.str.contains("+", regex=False)].mean(axis=1).sort_values(ascending=False).index
    chosen = {subset_name(evaluation.modalities): ""} if len(evaluation.modalities) > 1 else {}
    chosen |= dict(zip([*alone[:1], *alone[1:][-1:]], [" alone, best mean", " alone, worst"], strict=False))
    rows = {display_subset(name) + what: means.loc[name] for name, what in chosen.items() if name in means.index}
    rows[f"mean of {counted(len(means), noun='subset')}"] = means.mean()
    width = max(len("Mean Dice (%)"), *map(len, rows)) + 4
    lacking = (evaluation.values("reference_volume").groupby("case").max() == 0).sum()
    cases = evaluation.results["case"].nunique()
    lines = [
        f"{evaluation.name}, trained {trained}; evaluated on {counted(cases, noun='case')} of {evaluation.cohort}.",
        "Mean Dice (%)".ljust(width) + "".join(f"{region:>7}" for region in evaluation.regions),
        *(f"  {name}".ljust(width) + "".join(f"{decimal(value):>7}" for value in row) for name, row in rows.items()),
    ]
    if documented:
        lines[-1] += f"   (documented: {' '.join(map(decimal, documented))}; up to 3 points more or less are normal)"
    for region, number in lacking.items():
        if number and not is_pooled(evaluation, "dice"):
            lines.append(
                f"{counted(number, noun='case')} of {cases} without {region}: {EMPTY[evaluation.conventions.empty]}."
            )
    if evaluation.cohort == "phantom":
        lines.append("Synthetic images show that the software works; they say nothing about patients.")
        lines.append("With a real patient, where mmb is on the path: mmb example patient && mmb predict patient result")
    return "\n".join([*lines, f"Pictures, all subsets, HD95, conventions: {report}"])
