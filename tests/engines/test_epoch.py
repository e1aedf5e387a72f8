import torch
from ignite.engine import Engine

from common.engines.epoch import SetEpoch
from common.losses.smunet import SMUNetLoss


def test_the_loss_is_told_the_epoch_from_0_also_when_a_run_is_resumed():
    loss, seen = SMUNetLoss(width=8), []
    engine = Engine(lambda engine, batch: seen.append(loss.epoch))
    SetEpoch(loss).attach(engine)
    engine.run(torch.zeros(2), max_epochs=3)
    assert seen == [0, 0, 1, 1, 2, 2]
    resumed = Engine(lambda engine, batch: seen.append(loss.epoch))
    SetEpoch(loss).attach(resumed)
    resumed.load_state_dict({"epoch": 7, "max_epochs": 9, "epoch_length": 2})
    resumed.run(torch.zeros(2))
    assert seen[6:] == [7, 7, 8, 8]
