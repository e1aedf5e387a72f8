"""Published numbers are read as printed in the papers."""

import math

import pytest

from common.evaluation.metrics.conventions import METRICS
from common.modalities import subset_name, subsets
from mmb.experiments.paper_tables.published import CITATIONS, COLUMNS, cite, published, sources

M3AE_2018 = ("M3AE", "1", "BraTS2018 test split (57)")
SUBSETS = {subset_name(subset) for subset in subsets(("t1", "t1c", "t2", "flair"))}


def number(source, method, modalities, region, metric="dice", column="value") -> float:
    rows = published(*source)
    found = rows[
        (rows[["method", "modalities", "region", "metric"]] == [method, modalities, region, metric]).all(axis=1)
    ]
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
            for region, mean in {"WT": 0.858, "TC": 0.774, "ET": 0.599}.items()
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
    assert len(sources()) == 49
    assert {paper for paper, _, _ in sources()} == set(CITATIONS)


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


def test_source_in_words():
    assert cite(*M3AE_2018) == "M3AE (Liu et al., AAAI 2023), Table 1, BraTS2018 test split (57)"
    assert cite("M3AE", "Fig S2", "x") == "M3AE (Liu et al., AAAI 2023), Fig S2, x"
    assert cite(*IM_FUSE).startswith("IM-Fuse protocol (the split of Pipoli et al., MICCAI 2025), README of orhna/")
