"""Tables in the papers' layout show the published numbers, and ours in the right places."""

import numpy as np
import pytest
from evaluation.examples import random_evaluation

from common.evaluation.report.tables import ABSENT, NOTHING, PRESENT, decimal
from mmb.experiments.paper_tables.tables import Block, paper_tables, published_table

MODALITIES = ("t1", "t1c", "t2", "flair")
M3AE_1 = ("M3AE", "1", "BraTS2018 test split (57)")
PAIRS = ("t1+t1c", "t1+t2", "t1+flair", "t1c+t2", "t1c+flair", "t2+flair")


def evaluation(name, seed, **more):
    return random_evaluation(name, MODALITIES, ("WT", "TC", "ET"), seed=seed, cohort="brats2018", **more)


@pytest.fixture(scope="module")
def ours():
    return [evaluation("M3AE", 0), evaluation("U-HVED", 1)]


def column(table, label, group):
    (number,) = [number for number, name in enumerate(table.frame) if name == (group, label)]
    return table.frame.iloc[:, number].tolist()


def first_column(table):
    return table.frame.iloc[:, 0].tolist()


def labels_of(table, group):
    return [label for part, label in table.frame if part == group]


def test_subsets_in_the_papers_order_with_the_published_number_beside(ours):
    block = Block(M3AE_1, ("HVED", "ACN", "M3AE"), {"M3AE": "M3AE"}, {"ACN": "no code"})
    tables = paper_tables([block], ours[:1], MODALITIES, notes=["as said"])
    table = tables["m3ae_1"]
    assert list(tables) == ["m3ae_1"]
    assert labels_of(table, "WT") == ["HVED‡", "ACN‡", "M3AE", "M3AE†"]
    assert table.frame.iloc[0, :4].tolist() == [ABSENT, ABSENT, PRESENT, ABSENT]  # T2 alone comes first
    dice = ours[0].values("dice")["WT"]
    assert column(table, "M3AE", "WT")[0] == decimal(100 * dice.loc["t2"].mean())
    means = dice.groupby("modalities").mean()
    assert column(table, "M3AE", "WT")[-1] == decimal(100 * means.mean())
    assert column(table, "M3AE†", "WT")[0] == "84.8"
    assert column(table, "M3AE†", "WT")[-1] == "85.8"
    assert column(table, "ACN‡", "TC")[0] == "70.4"
    assert table.notes[1] == "ACN: no code."
    assert "mean over 4 cases" in table.notes[2]
    assert table.notes[-1] == "as said"


def test_methods_that_the_paper_has_not_follow(ours):
    table = paper_tables([Block(M3AE_1, ("M3AE",), {"M3AE": "M3AE"})], ours, MODALITIES)["m3ae_1"]
    assert labels_of(table, "ET") == ["M3AE", "M3AE†", "U-HVED"]


def test_where_a_paper_prints_means_alone_methods_are_the_rows(ours):
    block = Block(("GSS", "9", "BraTS2020"), ("RFNet", "RFNet+GSS"), {"RFNet": "U-HVED", "RFNet+GSS": "absent"})
    table = paper_tables([block], ours[1:2], MODALITIES)["gss_9"]
    assert first_column(table) == ["RFNet", "RFNet+GSS‡"]
    expected = ours[1].values("hd95")["TC"].groupby("modalities").mean().mean()
    assert column(table, "ours", "HD95 (mm) TC") == [decimal(expected), NOTHING]
    assert all(text != NOTHING for text in column(table, "published†", "HD95 (mm) TC"))


def test_datasets_of_one_table_stand_in_it_together(ours):
    names = ("mmFormer baseline",)
    blocks = [Block(("PASSION", "1", f"BraTS2020 MR=({mr})"), names, {}) for mr in ("0,0,0", "s,m,l")]
    table = paper_tables(blocks, [], MODALITIES)["passion_1"]
    assert first_column(table) == ["BraTS2020 MR=(0,0,0)", "BraTS2020 MR=(s,m,l)"]
    assert column(table, "published†", "Dice (%) WT")[0] == "83.7"


def test_means_of_pairs_are_over_the_six_pairs_and_of_nothing_less(ours):
    block = Block(("MedMAP", "II", "BraTS2018"), ("PMKL",), {"PMKL": "M3AE"})
    table = paper_tables([block], ours[:1], MODALITIES)["medmap_ii"]
    means = ours[0].values("dice")["ET"].groupby("modalities").mean()
    row = first_column(table).index("mean of pairs (N=2 missing)")
    assert column(table, "PMKL", "ET")[row] == decimal(100 * means[list(PAIRS)].mean())
    lacking = evaluation("M3AE", 0, only=[*PAIRS[1:], "t1"])
    table = paper_tables([block], [lacking], MODALITIES)["medmap_ii"]
    assert column(table, "PMKL", "ET")[row] == NOTHING


def test_mean_of_the_complete_set_and_the_single_ones(ours):
    block = Block(("M3AE", "supplement text", "BraTS2018 test split (57)"), ("M3AE",), {"M3AE": "M3AE"})
    table = paper_tables([block], ours[:1], MODALITIES)["m3ae_supplement_text"]
    means = ours[0].values("dice")["ET"].groupby("modalities").mean()
    row = first_column(table).index("mean of full and the four single modalities")
    assert column(table, "M3AE", "ET")[row] == decimal(100 * means[[*MODALITIES, "+".join(MODALITIES)]].mean())


def test_each_metric_of_a_table_of_subsets_has_a_table_with_spreads():
    block = Block(("MAG-MS", "3", "MSD Task01 test (24)"), ("MAG-MS",), {"MAG-MS": "M3AE"})
    one = evaluation("M3AE", 0)
    tables = paper_tables([block], [one], MODALITIES)
    assert list(tables) == ["mag_ms_3_dice", "mag_ms_3_hd95"]
    cases = one.values("dice").loc["flair"].mean(axis=1)
    expected = f"{decimal(100 * cases.mean())} ± {decimal(100 * np.std(cases, ddof=1))}"
    assert column(tables["mag_ms_3_dice"], "MAG-MS", "mean")[0] == expected
    assert column(tables["mag_ms_3_dice"], "MAG-MS†", "mean")[0] == "65.6 ± 12.6"


def test_two_names_of_one_method_show_what_the_paper_prints_of_each(ours):
    """PMKL's network for all four sequences is its teacher; those for a single one are its students."""
    names = ("PMKL teacher + MedMAP P_N", "PMKL + MedMAP P_N")
    block = Block(("MedMAP", "IV", "BraTS2018"), names, dict.fromkeys(names, "M3AE"))
    table = paper_tables([block], ours[:1], MODALITIES)["medmap_iv"]
    assert table.frame.iloc[0, :4].tolist() == [PRESENT] * 4
    dice = decimal(100 * ours[0].values("dice")["WT"].loc["t1+t1c+t2+flair"].mean())
    teacher, _, students, _ = (column(table, label, "WT") for label in labels_of(table, "WT"))
    assert teacher == [dice] + [NOTHING] * 4
    assert students[0] == NOTHING
    assert NOTHING not in students[1:]


class TestPublishedTable:
    def test_methods_of_the_same_name_stand_beside_and_others_last(self, ours):
        other = evaluation("ours", 1)
        table = published_table(M3AE_1, [ours[0], other])["m3ae_1"]
        assert labels_of(table, "WT") == ["HVED‡", "ACN‡", "SMU-Net‡", "RFNet‡", "M3AE", "M3AE†", "ours"]
        dice = other.values("dice")["WT"].groupby("modalities").mean()
        assert column(table, "ours", "WT")[-1] == decimal(100 * dice.mean())
        assert column(table, "HVED‡", "WT")[0] == "77.5"
        assert table.notes[0].startswith("† Published, not measured: M3AE (Liu et al., AAAI 2023), Table 1")

    def test_other_regions_are_shown_without_measured_numbers(self, ours):
        (table,) = published_table(("PASSION", "1", "MyoPS2020 MR=(0,0,0)"), ours[:1]).values()
        assert set(column(table, "ours", "Dice (%) LVB")) == {NOTHING}
        assert "–" not in column(table, "published†", "Dice (%) LVB")[0]
