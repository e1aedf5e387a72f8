"""Published numbers are read as printed; tables in the papers' layout show them, and ours in the right places."""

import math

import numpy as np
import pytest
from evaluation.examples import random_evaluation

from common.evaluation.metrics.conventions import METRICS
from common.evaluation.report.tables import ABSENT, NOTHING, PRESENT, decimal
from common.modalities import subset_name, subsets
from mmb.experiments.paper_tables.published import CITATIONS, COLUMNS, published, sources
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
    assert column(table, "M3AE", "WT")[-1] == decimal(100 * dice.groupby("modalities").mean().mean())
    assert column(table, "M3AE†", "WT")[0] == "84.8"
    assert column(table, "M3AE†", "WT")[-1] == "85.8"
    assert (column(table, "ACN‡", "TC")[0], table.notes[1]) == ("70.4", "ACN: no code.")
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


def test_means_are_over_the_subsets_that_they_name_and_of_nothing_less(ours):
    block = Block(("MedMAP", "II", "BraTS2018"), ("PMKL",), {"PMKL": "M3AE"})
    table = paper_tables([block], ours[:1], MODALITIES)["medmap_ii"]
    means = ours[0].values("dice")["ET"].groupby("modalities").mean()
    rows = {
        "mean of triples (N=1 missing)": means[means.index.str.count("[+]") == 2],
        "mean of pairs (N=2 missing)": means[[*PAIRS]],
    }
    for name, expected in rows.items():
        row = first_column(table).index(name)
        assert column(table, "PMKL", "ET")[row] == decimal(100 * expected.mean())
    table = paper_tables([block], [evaluation("M3AE", 0, only=[*PAIRS[1:], "t1"])], MODALITIES)["medmap_ii"]
    assert column(table, "PMKL", "ET")[row] == NOTHING
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
    assert (teacher, students[0]) == ([dice] + [NOTHING] * 4, NOTHING)
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


M3AE_2018 = ("M3AE", "1", "BraTS2018 test split (57)")
SUBSETS = {subset_name(subset) for subset in subsets(("t1", "t1c", "t2", "flair"))}


def number(source, method, modalities, region, metric="dice", column="value") -> float:
    rows = published(*source)
    wanted = {"method": method, "modalities": modalities, "region": region, "metric": metric}
    found = rows[(rows[list(wanted)] == list(wanted.values())).all(axis=1)]
    assert len(found) == 1
    return found[column].item()


PASSION = ("PASSION", "1", "BraTS2020 MR=(0,0,0)")
MAG_MS = ("MAG-MS", "3", "MSD Task01 test (24)")
IM_FUSE = ("IM-Fuse protocol", "README of orhna/missing_modality_MRI", "BraTS2023 GLI (875/125/251)")


@pytest.mark.parametrize(
    ("source", "of", "expected"),
    [
        *(
            (M3AE_2018, ("M3AE", "mean", region), mean)
            for region, mean in (("WT", 0.858), ("TC", 0.774), ("ET", 0.599))
        ),
        (M3AE_2018, ("HVED", "t2", "WT"), 0.775),
        (M3AE_2018, ("RFNet", "t1+t1c+t2+flair", "WT"), 0.906),
        (M3AE_2018, ("M3AE", "t1c+flair", "ET"), 0.75),
        (M3AE_2018, ("M3AE", "mean", "WT", "dice", "std"), math.nan),
        (("M3AE", "S3", "BraTS2020 test split (100)"), ("U-HVED", "t2", "WT", "dice", "std"), 0.15),
        (("M3AE", "S1", "BraTS2020 online validation"), ("U-HVED", "t1+t1c+t2+flair", "ET", "hd95", "std"), 109.4),
        (MAG_MS, ("MAG-MS", "flair", "mean"), 0.656),
        (MAG_MS, ("MAG-MS", "flair", "mean", "dice", "std"), 0.016**0.5),  # printed as variance
        # other means and measures keep their words
        (("MedMAP", "II", "BraTS2018"), ("PMKL", "mean of pairs (N=2 missing)", "WT"), 0.7672),
        (("M3AE", "S2", "BraTS2018 test split (57)"), ("ACN", "mean", "mean", "training_time_h"), 450),
        (PASSION, ("mmFormer baseline", "mean", "WT", "hd"), 14.99),
        (PASSION, ("mmFormer baseline", "mean", "WT", "hd95"), 14.99),  # the paper does not say which
        (IM_FUSE, ("IM-Fuse", "mean", "ET"), 0.743),
        (("DeMoSeg", "README of kk42yy/DeMoSeg", "BraTS2020 (219/50/100)"), ("DeMoSeg", "mean", "TC"), 0.8158),
    ],
)
def test_numbers_are_as_printed(source, of, expected):
    assert number(source, *of) == pytest.approx(expected, nan_ok=True)


def test_every_table_reads():
    kept = {"parameters_M", "train_memory_GB", "training_time_h", "inference_time_s"}
    for source in sources():
        rows = published(*source)
        assert tuple(rows.columns) == COLUMNS
        assert rows["value"].notna().all()
        assert set(rows["metric"]) <= {*METRICS, *kept}
        assert rows.loc[rows["metric"] == "dice", "value"].between(0, 1).all()
        assert all(name in SUBSETS or name.startswith("mean") for name in rows["modalities"])
    assert (len(sources()), {paper for paper, _, _ in sources()}) == (49, set(CITATIONS))


def test_printed_means_are_those_of_the_rows():
    rows = published(*M3AE_2018)
    assert set(rows["modalities"]) == {*SUBSETS, "mean"}
    means = rows[rows["modalities"] != "mean"].groupby(["method", "region"])["value"].mean()
    printed = rows[rows["modalities"] == "mean"].set_index(["method", "region"])["value"]
    assert (means - printed).abs().max() < 0.001


def test_unknown_table():
    with pytest.raises(ValueError, match=r"No published table M3AE, 9, x; .* of M3AE: 1, BraTS2018 test split"):
        published("M3AE", "9", "x")
    with pytest.raises(ValueError, match="No published table x, 1, y; expected a paper of M3AE, MAG-MS, MedMAP"):
        published("x", "1", "y")
