"""The weights for recognising sequences can be trained again, here from a few phantoms."""

import pytest
import torch
from run_tools import run

from common.cohorts.sequence_check import SequenceClassifier
from common.io import load_weights
from common.modalities import GLIOMA
from tools.maintenance import sequence_check


def test_varied_cases_are_finite_and_0_outside_the_brain():
    torch.manual_seed(0)
    case = sequence_check._phantom(3)
    assert case.shape == (6, *sequence_check.SHAPE)
    for images in (sequence_check._plain(case), *(sequence_check._varied(case) for _ in range(8))):
        assert images.shape == (5, *sequence_check.SHAPE)
        assert images.isfinite().all()
        shown = (images != 0).float().mean(dim=(1, 2, 3))
        assert (shown[:4] > 0.03).all()
        assert (shown < 0.5).all()


@pytest.mark.slow  # describes 11 cases, and trains six networks
def test_weights_are_made_by_one_command(phantom_dir, tmp_path, monkeypatch, capsys):
    for name, value in {"VARIANTS": 1, "PHANTOMS": 2, "EPOCHS": 10, "BATCH": 32}.items():
        monkeypatch.setattr(sequence_check, name, value)
    assert run("train_content", phantom_dir, tmp_path / "sequence_check.pt") is None
    load_weights(SequenceClassifier(), tmp_path / "sequence_check.pt")
    said = capsys.readouterr().out.splitlines()[-len(GLIOMA) :]
    counts = [[int(count) for count in line.split()[1:]] for line in said]
    assert [sum(row) for row in counts] == [9] * 4
    assert sum(row[index] for index, row in enumerate(counts)) >= 24  # of 36
