"""What plan.md asks of rules and weights, from the CSV files beside it: each with PASS or FAIL; status 1 if one fails.

The files are those of `judge.py`, a row for each network, case, subset, mirroring and rule; ``seconds.csv`` has a row
for each run of ``mmb predict``, ``half.csv`` the voxels whose label changes in half precision.
"""

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

FOLDER = Path(__file__).parent
BUNDLES = Path(__file__).parents[3] / "bundles"
REGIONS = ["WT", "TC", "ET"]
LIMITS = range(5, 65, 5)
"""Limits in % that are tried."""
MOST_COST = 0.5
"""Points of Dice in a region that a limit must not cost."""


@dataclass(frozen=True)
class Rules:
    """How probabilities become regions.

    ``with_t1c`` and ``without`` are rules of `judge.py`, e.g. ``ett``. Nothing is marked where the score of the whole
    tumour, or with ``of`` ``any`` the highest score of a region, is below ``limit`` (%).
    """

    with_t1c: str
    without: str
    mirrored: str = "no"
    of: str = "WT"
    limit: float = 0

    def applied(self, rows: pd.DataFrame) -> pd.DataFrame:
        """Return the rows of these rules, with Dice and volumes as they are after the limit."""
        rule = np.where(rows["subset"].str.contains("t1c"), self.with_t1c, self.without)
        rows = rows[(rows["rule"] == rule) & (rows["mirrored"] == self.mirrored)].copy()
        scores = rows[[f"{name}_score" for name in (["WT"] if self.of == "WT" else REGIONS)]]
        blank = scores.max(axis=1) < self.limit
        for name in REGIONS:
            rows.loc[blank, name] = np.where(rows.loc[blank, f"{name}_true_ml"] > 0, 0.0, 100.0)
            rows.loc[blank, f"{name}_ml"] = 0.0
        return rows


TODAY = Rules("ett", "eee", "left and right", "WT", 40)
"""Rules of 0.5.0's default, the decision ``by_sequences``."""
CHOSEN = Rules("ett", "tee", "left and right", "any", 30)
"""Rules of the members' mean."""


def choose(patients: pd.DataFrame, brains: pd.DataFrame) -> Rules:
    """Return the rules that plan.md's criterion gives: of patients and brains that a part's member did not see."""
    letters = {True: "", False: ""}
    for with_t1c in letters:
        some = patients[(patients["subset"].str.contains("t1c") == with_t1c) & (patients["mirrored"] == "no")]
        for number, name in enumerate(REGIONS):
            by = {letter: "t" * number + letter + "t" * (2 - number) for letter in "te"}
            dice = {letter: some[some["rule"] == rule].groupby("network")[name].mean() for letter, rule in by.items()}
            letters[with_t1c] += "e" if (dice["e"] > dice["t"]).all() else "t"
    plain, both = (Rules(letters[True], letters[False], mirrored) for mirrored in ("no", "left and right"))
    means = [each.applied(patients).groupby("network")[REGIONS].mean().mean(axis=1) for each in (plain, both)]
    start = both if (means[1] > means[0]).all() else plain
    tried = [
        Rules(start.with_t1c, start.without, start.mirrored, of, limit) for of in ("any", "WT") for limit in LIMITS
    ]
    allowed = [each for each in tried if _may_limit(start, each, patients, brains)]
    return min([start, *allowed], key=lambda each: each.applied(brains)["WT_ml"].mean())  # of equal ones the first


def _may_limit(start: Rules, limited: Rules, patients: pd.DataFrame, brains: pd.DataFrame) -> bool:
    dice = [each.applied(patients).groupby("network")[REGIONS].mean() for each in (start, limited)]
    marked = [each.applied(brains).groupby("network")["WT_ml"].mean() for each in (start, limited)]
    return bool((dice[0] - dice[1] < MOST_COST).all(axis=None) and (marked[1] < marked[0]).all())


def conditions(folder: Path, bundles: Path, chosen: Rules) -> Iterator[tuple[str, bool]]:
    """Yield each condition as text, and whether it holds."""
    tables = {path.stem: pd.read_csv(path) for path in folder.glob("*.csv")}
    of_members = [
        tables[name][lambda t: t["network"].str.startswith("member")] for name in ("out_of_fold", "without_tumour")
    ]
    found = choose(*of_members)
    yield f"rules by {len(of_members[0]['case'].unique())} cases left out: {found}", found == chosen

    def means(name: str) -> list[pd.DataFrame]:
        table = tables[name].set_index("network")
        return [
            rules.applied(table.loc[network].reset_index())
            for network, rules in (("mean, logits", chosen), ("default", TODAY))
        ]

    new, old = (each[REGIONS].mean() for each in means("validation"))
    change = new - old
    said = " ".join(f"{name} {new[name]:.1f} ({change[name]:+.1f})" for name in REGIONS)
    yield f"validation, mean of the regions {new.mean():.1f} ({change.mean():+.1f}; at least -1)", change.mean() >= -1
    yield f"validation, {said}; at least -2 each", bool((change >= -2).all())
    new_ml, old_ml = (each["WT_ml"].mean() for each in means("without_tumour"))
    yield f"brains without a tumour: {new_ml:.1f} ml ({old_ml:.1f} before; at most 5)", new_ml <= 5
    seconds = tables["seconds"].groupby("network")["seconds"].median()
    later = seconds["mean"] - seconds["default"]
    yield f"predict: {seconds['mean']:.1f} s ({later:+.1f} s; at most +10)", later <= 10
    voxels = int(tables["half"]["voxels"].sum())
    yield f"half precision: {voxels} voxels of the validation cases differ (0)", voxels == 0
    packed = [*bundles.glob("*/models/*.pt")]
    sizes = [each.stat().st_size / 1e6 for each in packed if each.stem != "phantom" or "m3ae" in each.parts]
    text = f"largest file {max(sizes):.1f} MB (at most 50), all weights of the wheel {sum(sizes):.1f} MB (at most 100)"
    yield text, max(sizes) <= 50 and sum(sizes) <= 100


def main(folder: Path = FOLDER, bundles: Path = BUNDLES) -> int:
    """Print the conditions and return the status."""
    results = [*conditions(folder, bundles, CHOSEN)]
    for text, holds in results:
        print("PASS" if holds else "FAIL", text)
    return int(not all(holds for _, holds in results))


if __name__ == "__main__":
    sys.exit(main())
