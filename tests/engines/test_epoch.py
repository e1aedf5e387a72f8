import copy

import pytest
import torch
from ignite.engine import Engine, Events

from common.baselines.cotraining import SMUNetLoss
from common.engines.epoch import Rounds, SetEpoch


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


@pytest.mark.parametrize("cut_off_after", [None, 2, 3])
def test_a_round_starts_from_the_weights_with_optimiser_and_schedule_anew(cut_off_after):
    """Two rounds of two epochs equal a training of two epochs that starts from the weights of the first round."""

    def made(network):
        optimizer = torch.optim.Adam(network.parameters(), lr=0.1)
        return optimizer, torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=2, power=0.9)

    def trainer(network, optimizer, schedule, seen):
        def step(engine, batch):
            seen.append(optimizer.param_groups[0]["lr"])
            optimizer.zero_grad()
            (network(batch) - 3 * batch**2).square().sum().backward()
            optimizer.step()

        engine = Engine(step)
        engine.add_event_handler(Events.EPOCH_COMPLETED, lambda: schedule.step())
        return engine

    data = torch.tensor([[1.0], [2.0]])
    expected, rates = torch.nn.Linear(1, 1), []
    start = copy.deepcopy(expected.state_dict())
    for _ in range(2):
        trainer(expected, *made(expected), rates).run(data, max_epochs=2)
    assert rates == pytest.approx([0.1, 0.1, 0.1 * 0.5**0.9, 0.1 * 0.5**0.9] * 2)

    network, seen = torch.nn.Linear(1, 1), []
    network.load_state_dict(start)
    optimizer, schedule = made(network)
    engine = trainer(network, optimizer, schedule, seen)
    Rounds(optimizer, schedule, epochs=2, rounds=2).attach(engine)
    engine.run(data, max_epochs=cut_off_after or 4)
    if cut_off_after:
        states = copy.deepcopy([one.state_dict() for one in (network, optimizer, schedule)])
        network = torch.nn.Linear(1, 1)
        optimizer, schedule = made(network)
        engine = trainer(network, optimizer, schedule, seen)
        Rounds(optimizer, schedule, epochs=2, rounds=2).attach(engine)
        for one, state in zip((network, optimizer, schedule), states, strict=True):
            one.load_state_dict(state)
        engine.load_state_dict({"epoch": cut_off_after, "max_epochs": 4, "epoch_length": 2})
        engine.run(data)
    assert seen == pytest.approx(rates)
    assert network.weight.item() == pytest.approx(expected.weight.item(), abs=1e-6)
    assert network.bias.item() == pytest.approx(expected.bias.item(), abs=1e-6)


def test_rounds_of_no_epoch_are_refused():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, total_iters=2)
    for settings, said in (({"epochs": 2, "rounds": 2.5}, r"rounds 2\.5"), ({"epochs": 0, "rounds": 5}, "epochs 0")):
        with pytest.raises(ValueError, match=f"{said}: expected a whole number"):
            Rounds(optimizer, schedule, **settings)
