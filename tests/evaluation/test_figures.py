"""Figures are drawn from the data, and appear whole or not at all."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.image import imread

from common.evaluation import dice_heatmap, substitute_figure
from common.evaluation.tables import COLUMNS
from common.modalities import subset_name, subsets

MODALITIES = ("t1", "t1c", "t2", "flair")


def results(value: float) -> pd.DataFrame:
    rows = [("a", subset_name(s), r, "dice", value) for s in subsets(MODALITIES) for r in ("WT", "TC", "ET")]
    return pd.DataFrame(rows, columns=COLUMNS)


def heatmap(value: float, path) -> np.ndarray:
    dice_heatmap(results(value), MODALITIES, path)
    return imread(path)


def test_heatmap(tmp_path):
    high, low = heatmap(0.9, tmp_path / "new" / "high.png"), heatmap(0.1, tmp_path / "low.png")
    assert min(high.shape[:2]) > 400
    assert high.std() > 0.1
    assert (high != low).any(axis=2).mean() > 0.2  # the cells have another colour
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["high.png"]


def test_substitute_figure(tmp_path):
    x_sub = torch.rand(1, 4, 12, 10, 8, generator=torch.Generator().manual_seed(0))
    substitute_figure(x_sub, MODALITIES, tmp_path / "x_sub.png")
    substitute_figure(torch.zeros_like(x_sub), MODALITIES, tmp_path / "zeros.png")
    drawn, zeros = imread(tmp_path / "x_sub.png"), imread(tmp_path / "zeros.png")
    assert min(drawn.shape[:2]) > 400
    assert (drawn != zeros).any(axis=2).mean() > 0.2


@pytest.mark.parametrize(
    "draw",
    [
        lambda path: dice_heatmap(results(0.5), MODALITIES, path),
        lambda path: substitute_figure(torch.zeros(1, 4, 4, 4, 4), MODALITIES, path),
    ],
)
def test_failure_leaves_nothing(tmp_path, draw):
    with pytest.raises(ValueError, match="not supported"):
        draw(tmp_path / "figure.nosuchformat")
    assert list(tmp_path.iterdir()) == []
