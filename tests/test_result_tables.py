"""Tables of results in the documentation agree with the committed results."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from runpy import run_path

import pandas as pd
import pytest
from bundles.running import shipped
from scipy.stats import ttest_1samp, wilcoxon

from common.cohorts.registry import patient
from common.evaluation.analysis.statistics import bootstrap_mean, mean_over_subsets
from common.evaluation.metrics.results import Evaluation
from mmb.experiments.evaluations import read_evaluation

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "docs" / "open_glioma" / "results"
CARDS = {
    bundle: RESULTS / ("mean_of_two_networks/by_sequences" if bundle == "m3ae" else bundle) for bundle in shipped()
}
"""Bundle -> folder with the results of its own weights, under the decision of its inference.json."""
CIRCLES = "○●"
FOLDS = ROOT / "docs" / "open_glioma" / "folds"
INNER = ROOT / "docs" / "open_glioma" / "inner"
REGIONS = ("WT", "TC", "ET")
FULL = "t1+t1c+t2+flair"
GROUPS = ("all four", "mean of 15", "with T1c", "without T1c", "one sequence", "two", "three")


def slug(method: str) -> str:
    """Return the folder's name of a method as tables call it."""
    return re.sub("[^a-z0-9]+", "_", re.sub(r" \(.*\)| on RFNet", "", method).lower())


def rows(page: Path) -> list[list[str]]:
    """Return the cells of all rows of a page's tables."""
    return [line.strip("| \n").split(" | ") for line in page.read_text().splitlines() if line.startswith("| ")]


def table(page: str, start: str, number: int = 0) -> list[tuple[str, list[str]]]:
    """Return name and cells of each row of a table whose first line starts so; of several, the one of a number.

    Of a page that is a CSV file, ``start`` is the name of its first column.
    """
    if page.endswith(".csv"):
        with (ROOT / page).open(newline="", encoding="utf-8") as file:
            head, *lines = csv.reader(file)
        assert head[0] == start
        return [(name, cells) for name, *cells in lines]
    found = [part for part in (ROOT / page).read_text().split("\n\n") if part.startswith(start)]
    lines = [line.strip("| ").split(" | ") for line in found[number].splitlines()[2:]]
    return [(name, cells) for name, *cells in lines]


def all_four_and_mean(evaluation: Evaluation) -> list[str]:
    """Return the Dice of all sequences and of the mean over subsets as tables print it, with and without intervals."""
    values = evaluation.values("dice").loc["t1+t1c+t2+flair"]
    found = [bootstrap_mean(values[region]) for region in evaluation.regions]
    over_subsets = mean_over_subsets(evaluation, "dice")
    found += [tuple(over_subsets.loc[region, ["mean", "low", "high"]]) for region in evaluation.regions]
    return [f"{100 * mean:.1f} ({100 * low:.0f} to {100 * high:.0f})" for mean, low, high in found]


def test_methods():
    lines = table("docs/open_glioma/tables/results.csv", "method")
    assert len(lines) == 12
    for name, cells in lines:
        folder = "m3ae_weights" if "shipped weights" in name else slug(name.split(", ")[0].strip("* "))
        if "as used by default" in name:
            folder += "/by_sequences"
        measured = all_four_and_mean(read_evaluation(RESULTS / folder))
        assert cells[:6] == [cell if "(" in cells[0] else cell.split(" ")[0] for cell in measured], name


def test_mean_of_two_networks():
    """Both networks against the first of them, as used by default, with p of Wilcoxon's test over the nine cases."""
    lines = table("docs/open_glioma/README.md", "| subsets | mean of two networks")
    assert [name for name, _ in lines] == ["all four", "mean of 15", "with T1c", "without T1c", "one sequence", "three"]
    folders = ("mean_of_two_networks", "m3ae_weights")
    groups = [by_group(pd.read_csv(RESULTS / folder / "by_sequences" / "results.csv"), str) for folder in folders]
    for name, cells in lines:
        both, first = (each[name] for each in groups)
        assert cells[:2] == ["/".join(f"{value:.1f}" for value in dice.mean()) for dice in (both, first)], name
        gains = both - first
        expected = [f"{gains[region].mean():+.1f}, {wilcoxon(gains[region]).pvalue:.2f}" for region in REGIONS]
        assert cells[2:] == [cell.replace("-", "−") for cell in expected], name


def test_validation_of_the_long_run():
    lines = table("docs/open_glioma/tables/validation.csv", "network, decision")
    dice = pd.read_csv(ROOT / "docs/open_glioma/long_run/validation.csv").set_index(["network", "decision"])
    assert [name for name, _ in lines] == [f"{name}, `{decision}`" for name, decision in dice.index.unique()]
    for name, cells in lines:
        rows = dice.loc[tuple(name.replace("`", "").rsplit(", ", 1))]
        count, with_t1c = rows["modalities"].str.count(r"\+") + 1, rows["modalities"].str.contains("t1c")
        groups = [rows[chosen] for chosen in (count == 4, count > 0, with_t1c, ~with_t1c, count == 1)]
        assert cells == ["/".join(f"{value:.1f}" for value in group[list(REGIONS)].mean()) for group in groups], name


def test_own_weights():
    """The table of README gives the Dice of the shipped weights, as used by default."""
    dice = 100 * read_evaluation(CARDS["m3ae"]).values("dice").groupby("modalities").mean()[list(REGIONS)]
    found = {cells[0]: cells[1:] for cells in rows(ROOT / "README.md") if len(cells) == 4}
    means = {
        "all four": dice.loc[FULL],
        "mean of all 15 subsets": dice.mean(),
        "mean of the 7 subsets without T1c": dice[~dice.index.str.contains("t1c")].mean(),
    }
    for name, values in means.items():
        assert found[name] == [f"{value:.1f}" for value in values], name


def by_patient(method: str, decision: str = "threshold") -> dict[str, pd.DataFrame]:
    """Return the Dice (%) of each patient and region in five folds, for the groups of subsets in the pages' tables."""
    place = "results.csv" if decision == "threshold" else "expected_dice/results.csv"
    folds = [pd.read_csv(FOLDS / f"{slug(method)}_fold{number}" / place) for number in range(5)]
    return by_group(pd.concat(folds), patient)


def by_group(results: pd.DataFrame, unit: Callable[[str], str]) -> dict[str, pd.DataFrame]:
    """Return the Dice (%) of each unit (patient or case) and region, for the same groups."""
    dice = results.query("metric == 'dice'").assign(unit=lambda table: table["case"].map(unit))
    count = dice["modalities"].str.count(r"\+") + 1
    with_t1c = dice["modalities"].str.contains("t1c")
    groups = [count == 4, count > 0, with_t1c, ~with_t1c, count == 1, count == 2, count == 3]
    return {
        name: 100 * dice[rows].groupby(["unit", "region"])["value"].mean().unstack()[list(REGIONS)]
        for name, rows in zip(GROUPS, groups, strict=True)
    }


def test_methods_in_five_folds():
    lines = table("README.md", "| method | train")
    assert len(lines) == 2
    for name, (_, *cells) in lines:
        dice = by_patient(name)
        assert len(dice["all four"]) == 49
        means = [bootstrap_mean(dice["mean of 15"][region]) for region in REGIONS]
        assert cells == [f"{mean:.1f} ({low:.0f} to {high:.0f})" for mean, low, high in means], name


def test_decisions_in_five_folds():
    lines = table("docs/open_glioma/tables/folds_by_decision.csv", "method, decision")
    assert len(lines) == 12
    for name, cells in lines:
        dice = by_patient(*name.rsplit(", ", 1))
        assert cells == ["/".join(f"{mean:.1f}" for mean in dice[group].mean()) for group in GROUPS], name


def by_case(method: str, fold: int, folder: Path = FOLDS) -> pd.DataFrame:
    """Return the Dice (%) of each case and region of a fold, averaged over the subsets; the index has the patients."""
    dice = pd.read_csv(folder / method.format(fold) / "results.csv").query("metric == 'dice'")
    return 100 * dice.groupby(["case", "region"])["value"].mean().unstack()[list(REGIONS)].rename(patient)


def test_gain_of_coarse_to_fine_over_trainings_and_other_patients():
    page = " ".join((ROOT / "docs/open_glioma/README.md").read_text().split())
    pair = ("u_net_with_moddrop_coarse_to_fine_fold{}", "u_net_with_moddrop_fold{}")
    gains = [by_case(pair[0], fold) - by_case(pair[1], fold) for fold in range(5)]
    chances = ttest_1samp([gain.mean() for gain in gains], 0).pvalue
    assert "p = {:.2f}, {:.2f} and {:.3f}; in two folds TC is lower".format(*chances) in page
    assert sum(gain["TC"].mean() < 0 for gain in gains) == 2
    chosen_on = {name for fold in (0, 1) for name in by_case("inner{}_coarse_to_fine", fold, INNER).index}
    gain = pd.concat(gains).groupby(level=0).mean()
    others = gain[~gain.index.isin(chosen_on)]
    assert (len(chosen_on), len(others)) == (15, 34)
    assert "the schedule was chosen, the gain is {:.1f}/{:.1f}/{:.1f} points".format(*others.mean()) in page
    chances = [wilcoxon(others[region]).pvalue for region in REGIONS]
    assert "p = {:.3f}, {:.2f} and < 0.001, not corrected".format(*chances) in page
    assert chances[2] < 0.001


def test_inner_splits():
    """The table has the methods of the list, and the Dice of each of their trainings."""
    lines = table("docs/open_glioma/README.md", "| method | `inner0`")
    methods = json.loads((ROOT / "bundles/open_glioma_inner.json").read_text())["methods"]
    assert [name for name, _ in lines] == list(methods)
    for name, cells in lines:
        for number, cell in enumerate(cells):
            folder = f"inner{number}_{slug(name)}"
            trained = (INNER / folder).is_dir()
            dice = by_case(folder, number, INNER).mean() if trained else ()
            assert cell == ("/".join(f"{value:.1f}" for value in dice) if trained else "not trained"), folder
    page = " ".join((ROOT / "docs/open_glioma/README.md").read_text().split())
    for name, number in (("pasted", 0), ("pasted", 1), ("soft_labels", 0)):
        assert "/".join(f"{value:.1f}" for value in by_case(f"inner{number}_{name}", number, INNER).mean()) in page


def test_x_sub_in_two_folds():
    names = {"zeros": "m3ae_zero_fill_fold{}", "x_sub": "m3ae_fold{}", "slow x_sub": "m3ae_slow_x_sub_fold{}"}
    lines = table("docs/open_glioma/tables/x_sub.csv", "")
    differences = []
    for name, cells in lines:
        pair = [names[part] for part in name.split(" against ")]
        by_fold = [by_case(pair[0], fold) - by_case(pair[1], fold) for fold in (0, 1)]
        differences += [difference.mean() for difference in by_fold]
        gain = pd.concat(by_fold).groupby(level=0).mean().mean()
        assert len(pd.concat(by_fold).index.unique()) == 19
        assert cells[0] == "/".join(f"{value:+.1f}".replace("-", "−").replace("−0.0", "0.0") for value in gain), name
    noise = (pd.DataFrame(differences) ** 2).mean() ** 0.5
    page = " ".join((ROOT / "docs/open_glioma/README.md").read_text().split())
    assert "differ by {:.1f}/{:.1f}/{:.1f} points".format(*noise) in page


@pytest.mark.parametrize("name", ["open_glioma", "open_glioma_missing"])
def test_lists_have_the_warm_up_of_their_rows(name):
    """Five epochs, as the page's protocol says; the recipe has had a share of the epochs since."""
    made = json.loads((ROOT / f"bundles/{name}.json").read_text())
    for method in made["methods"].values():
        recipe = json.loads((ROOT / "bundles" / method["bundle"] / "configs/recipes/open_glioma.json").read_text())
        settings = recipe | made.get("settings", {}) | method.get("settings", {})
        assert round(settings["warmup"] * settings["epochs"]) == 5, method


def test_what_the_grid_costs_the_labels():
    dice = pd.read_csv(ROOT / "docs/open_glioma/grid.csv").dropna().set_index(["case", "region"])["dice"].unstack()
    test = read_evaluation(RESULTS / "m3ae").values("dice").index.unique("case")
    page = (ROOT / "docs/open_glioma/README.md").read_text()
    for cases in (dice, dice.loc[test]):
        assert "/".join(f"{100 * cases[region].mean():.1f}" for region in REGIONS) + " % " in page


def test_sequences_missing_in_training():
    for name, cells in table("docs/open_glioma/README.md", "| training | WT, all four"):
        assert cells == all_four_and_mean(read_evaluation(RESULTS / f"missing_{name.lower()}")), name


@pytest.mark.parametrize("bundle", CARDS)
def test_model_card(bundle):
    evaluation = read_evaluation(CARDS[bundle])
    found = rows(ROOT / "bundles" / bundle / "docs" / "README.md")
    (whole,) = [cells[1:] for cells in found if cells[0] == "all 9"]
    assert whole == all_four_and_mean(evaluation)
    lead = " ".join((ROOT / "bundles" / bundle / "docs" / "README.md").read_text().split())
    four, subsets = ("/".join(f"{float(cell.split()[0]):.0f}" for cell in part) for part in (whole[:3], whole[3:]))
    assert f"is {four} % with all four sequences and {subsets} % averaged over the 15 subsets" in lead
    dice, hd95 = (evaluation.values(metric).groupby("modalities").mean() for metric in ("dice", "hd95"))
    for subset in evaluation.subsets:
        circles = [CIRCLES[name in subset.split("+")] for name in evaluation.modalities]
        expected = [f"{100 * value:.1f}" for value in dice.loc[subset]] + [f"{value:.1f}" for value in hd95.loc[subset]]
        (first, *_) = [cells[4:] for cells in found if cells[:4] == circles]  # the card is before the phantom's table
        assert first == expected, subset


def test_leaderboard():
    """The table of all methods on the phantom agrees with the means of every subset beside it."""
    folder = ROOT / "docs" / "leaderboard"
    means = pd.read_csv(folder / "means.csv").set_index(["method", "modalities", "region"])
    found = {cells[0]: cells[1:8] for cells in rows(folder / "README.md")[1:]}
    assert (len(found), set(found)) == (18, set(means.index.unique("method")))
    for method, cells in found.items():
        dice, hd95 = (means.loc[method, metric].unstack("region") for metric in ("dice", "hd95"))
        assert len(dice) == 15
        one = dice[~dice.index.str.contains("+", regex=False)]
        expected = [100 * dice[region].mean() for region in ("WT", "TC", "ET")]
        expected += [100 * part.mean(axis=None) for part in (dice, dice.loc[["t1+t1c+t2+flair"]], one)]
        assert [float(cell) for cell in cells] == pytest.approx([*expected, hd95["WT"].mean()], abs=0.06), method


def test_stops():
    """The table of what is not to be used is printed from the rows beside it, in which no correct study is stopped."""
    said = run_path(str(ROOT / "docs" / "preparation" / "stops.py"))["table"]()
    assert said in (ROOT / "docs" / "preparation.md").read_text()
    assert [line.split(" | ")[2][:5] for line in said.splitlines() if line.startswith("| correct")] == ["0 of "] * 2
