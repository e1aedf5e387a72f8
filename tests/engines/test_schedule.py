"""The learning rate of a training in stages."""

import math

import pytest
import torch

from common.engines.schedule import StagedCosine
from common.io.checkpoints import read_checkpoint, write_checkpoint


def schedule(**settings) -> StagedCosine:
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.02)
    return StagedCosine(optimizer, **{"stage_epochs": (8, 2), "stage_time": (0.5, 0.5), "warmup": 0.1, **settings})


def test_the_rate_rises_and_falls_with_the_time_that_has_passed():
    """Eight cheap epochs take as long as two: a sixteenth of the time each, then a quarter."""
    rates, cosine = [], schedule()
    for _ in range(10):
        rates.append(cosine.get_last_lr()[0])
        cosine.optimizer.step()
        cosine.step()
    passed = [*(epoch / 16 for epoch in range(8)), 0.5, 0.75]
    falling = [0.01 * (1 + math.cos(math.pi * (time - 0.1) / 0.9)) for time in passed[2:]]
    assert rates == pytest.approx([0.002, 0.02 * (0.1 + 0.9 * 0.625), *falling])
    assert cosine.get_last_lr()[0] == pytest.approx(0, abs=1e-9)


def test_a_resumed_training_goes_on_where_its_checkpoint_says(tmp_path):
    whole, broken = schedule(), schedule()
    for cosine in (whole, broken):
        for _ in range(5):
            cosine.optimizer.step()
            cosine.step()
    states = {"schedule": broken.state_dict(), "optimizer": broken.optimizer.state_dict()}
    write_checkpoint(states, tmp_path / "last.pt")
    resumed, states = schedule(), read_checkpoint(tmp_path / "last.pt")
    resumed.load_state_dict(states["schedule"])
    resumed.optimizer.load_state_dict(states["optimizer"])
    for cosine in (whole, resumed):
        cosine.optimizer.step()
        cosine.step()
    assert resumed.optimizer.param_groups[0]["lr"] == whole.optimizer.param_groups[0]["lr"]


def test_stages_as_long_as_their_epochs_are_one_plain_cosine():
    cosine = schedule(stage_epochs=(6, 4), stage_time=(0.6, 0.4), warmup=0)
    assert [cosine.factor(epoch) for epoch in range(11)] == pytest.approx(
        [(1 + math.cos(math.pi * epoch / 10)) / 2 for epoch in range(11)]
    )


def test_a_stage_without_epochs_takes_no_time():
    cosine = schedule(stage_epochs=(0, 4, 4), stage_time=(0.0, 0.5, 0.5), warmup=0)
    assert cosine.factor(0) == 1
    assert cosine.factor(4) == pytest.approx(0.5)


@pytest.mark.parametrize("stage_time", [(1.0,), (0.5, 0.4), (0.5, 0.6), (0.2, 0.3, 0.5)])
def test_shares_that_are_no_whole_or_not_one_for_each_stage_are_refused(stage_time):
    with pytest.raises(ValueError, match=r"stage_time .*: expected a share for each of stage_epochs, 1 in all"):
        schedule(stage_time=stage_time)
