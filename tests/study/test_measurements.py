import pandas as pd
import pytest
from small_lesion import LABELS, lesion

from common.study.measurements import gains, volumes


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
