import numpy as np
import pandas as pd
import pytest
from small_lesion import LABELS, lesion

from common.study.measurements import gains, intervals, volumes


def test_volumes_in_ml():
    # 216, 64 and 56 voxels of 6 mm3
    assert volumes(lesion(), LABELS, (1, 2, 3)) == pytest.approx({"WT": 1.296, "TC": 0.384, "ET": 0.336})


def test_gains_are_those_of_the_subset_that_is_there():
    rows = [
        ("t2", "flair", "WT", 0.2),
        ("t2", "t1c", "ET", 0.3),
        ("t2", "flair", "ET", 0.1),
        ("t1+t2", "flair", "WT", 0.5),
    ]
    advice = pd.DataFrame(rows, columns=["modalities", "modality", "region", "average"])
    assert gains(advice, "t2") == {"flair": {"WT": 0.2, "ET": 0.1}, "t1c": {"ET": 0.3}}
    assert gains(advice, "t1") == gains(None, "t2") == {}


def test_no_interval_exceeds_the_brain():
    table = {"modalities": "t1", "region": ["WT", "TC"], "quantile": [2.0, np.inf], "coverage": 0.8, "n": [5, 0]}
    found = intervals(pd.DataFrame(table), "t1", {"WT": 400.0, "TC": 100.0}, 1500.0)
    assert list(found) == ["WT"]  # nothing is known about TC
    assert found["WT"][1:] == (1500.0, 0.8)
    assert found["WT"][0] < 400
    small = intervals(pd.DataFrame(table), "t1", {"WT": 4.0}, 1500.0)["WT"]
    assert small[1] == pytest.approx(5 * np.exp(2) - 1)
