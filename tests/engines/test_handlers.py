"""Handlers of training, epochs and rounds, and gradients of several processes."""

import copy
import random

import numpy as np
import pytest
import torch
from ignite.engine import Engine, Events
from ignite.handlers import EMAHandler
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedEvaluator, SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import Compose, RandScaleIntensityd
from processes import run

from common.baselines.cotraining import SMUNetLoss
from common.engines.epoch import Rounds, SetEpoch
from common.engines.handlers import DivergenceCheck, EpochLosses, Reseed, ResumableCheckpoint, counted_voxels
from common.engines.multi_gpu import distributed, local_device, validation_sampler
from common.modalities import IGNORED


def draws(seed, epochs):
    """Return the random numbers that each epoch draws from torch, numpy, random, the shuffle and the transforms."""
    data = [{"image": torch.ones(1, 1), "number": n} for n in range(4)]
    loader = DataLoader(Dataset(data, Compose([RandScaleIntensityd("image", 0.5, prob=1)])), shuffle=True)
    seen = {}

    def step(engine, batch):
        row = (batch["number"].item(), batch["image"].item(), torch.rand(1).item(), np.random.rand(), random.random())
        seen.setdefault(engine.state.epoch, []).append(row)

    engine = Engine(step)
    Reseed(seed, loader).attach(engine)
    engine.add_event_handler(Events.STARTED, lambda e: setattr(e.state, "epoch", epochs[0] - 1))
    engine.run(loader, max_epochs=epochs[-1], epoch_length=len(loader))
    return seen


def test_an_epoch_draws_the_same_whether_or_not_others_went_before():
    whole, second = draws(7, [1, 2, 3]), draws(7, [2, 3])
    assert (whole[2], whole[3]) == (second[2], second[3])
    assert whole[1] != whole[2]
    assert draws(8, [1])[1] != whole[1]


def test_epoch_losses_are_means_over_the_epoch():
    loss, engine = torch.nn.Module(), Engine(lambda e, b: {"loss": torch.tensor(float(b))})
    engine.add_event_handler(Events.ITERATION_STARTED, lambda e: setattr(loss, "terms", {"part": 10.0 * e.state.batch}))
    EpochLosses(loss, prefix="x_").attach(engine)
    engine.run([1, 2, 6], max_epochs=2)
    assert engine.state.metrics == {"x_loss": 3.0, "x_part": 30.0}


@pytest.mark.parametrize(
    ("losses", "stops"),
    [
        ([2, 3, 0.1, 0.1], 0),
        ([2, 1000, 1999, 1999], 0),  # one step, or less than a thousand times
        ([2, 2, 2001, 2001], 2),
        ([2, 1e7, 1, 1], 1),  # already in the first epoch
        ([2, 2, 1, float("nan")], 2),
        ([2, float("-inf"), 1, 1], 1),
        ([-2, -2, 3000, 1200], 2),  # a loss may be negative
        ([0, 0, 0.5, 0.5], 0),  # any loss is many times 0
    ],
)
def test_a_training_that_diverges_stops_before_its_weights_are_saved(losses, stops):
    saved, engine = [], Engine(lambda e, b: {"loss": torch.tensor(float(losses[e.state.iteration - 1]))})
    EpochLosses(torch.nn.Module(), prefix="x_").attach(engine)
    DivergenceCheck(prefix="x_").attach(engine)
    engine.add_event_handler(Events.EPOCH_COMPLETED, lambda e: saved.append(e.state.epoch))
    if stops:
        with pytest.raises(ValueError, match=rf"x_loss: .* in epoch {stops}, {losses[0]} at the start: the training"):
            engine.run([0, 1], max_epochs=2)
    else:
        engine.run([0, 1], max_epochs=2)
    assert saved == [[1, 2], [], [1]][stops]


@pytest.fixture
def trainer():
    """A trainer of a linear network, and a validator whose score is set by the test."""

    def make(folder, epochs, scores, resume=False, momentum=None, rate=0.1):
        torch.manual_seed(0)
        network = torch.nn.Linear(1, 1)
        optimizer = torch.optim.Adam(network.parameters(), rate)
        loader = DataLoader([{"image": torch.ones(1), "label": torch.zeros(1)}] * 2, batch_size=1)
        validator = SupervisedEvaluator(device=torch.device("cpu"), val_data_loader=loader, network=network)
        parts = epochs, loader, network, optimizer, torch.nn.MSELoss()
        trainer = SupervisedTrainer(torch.device("cpu"), *parts, decollate=False)

        @trainer.on(Events.EPOCH_COMPLETED)
        def validate(engine):
            if scores[engine.state.epoch] > validator.state.best_metric:
                validator.state.best_metric = scores[engine.state.epoch]
                validator.state.best_metric_epoch = engine.state.epoch

        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        LrScheduleHandler(schedule, print_lr=False).attach(trainer)
        average = EMAHandler(network, momentum) if momentum else None
        torch.nn.init.constant_(network.weight, 0.5)  # as when weights are loaded after the average was made
        others = {"optimizer": optimizer, "schedule": schedule}
        ResumableCheckpoint(folder, "net", network, others, validator, 1, resume, average).attach(trainer)
        return trainer, network, validator

    return make


def test_filters_that_die_are_told_once(tmp_path, caplog):
    network = torch.nn.Sequential(torch.nn.Conv3d(1, 4, 1), torch.nn.InstanceNorm3d(4, affine=True))
    with torch.no_grad():
        network[0].weight.copy_(torch.tensor([1.0, 1.0, 0.0, 1e-5]).view(4, 1, 1, 1, 1))
    loader = DataLoader([{"image": torch.rand(1, 2, 2, 2), "label": torch.zeros(4, 2, 2, 2)}], batch_size=1)
    parts = 4, loader, network, torch.optim.SGD(network.parameters(), 0.0), torch.nn.MSELoss()
    engine = SupervisedTrainer(torch.device("cpu"), *parts, decollate=False)

    @engine.on(Events.EPOCH_COMPLETED(once=3))
    def decay():
        network[0].weight.data[0] *= 1e-7

    ResumableCheckpoint(tmp_path, "net", network, {}).attach(engine)
    engine.run()
    told = [record.getMessage() for record in caplog.records if " filters" in record.getMessage()]
    assert [text.split(" filters")[0] for text in told] == ["epoch 1: 1 of 4", "epoch 3: 2 of 4"]


def test_resumed_training_ends_like_an_unbroken_one_and_keeps_the_best(trainer, tmp_path):
    scores = {1: 0.1, 2: 0.9, 3: 0.5, 4: 0.3}
    whole, network, _ = trainer(tmp_path / "whole", 4, scores)
    whole.run()
    first, _, _ = trainer(tmp_path / "broken", 4, scores)
    first.add_event_handler(Events.EPOCH_STARTED(once=3), first.terminate)
    first.run()
    best = torch.load(tmp_path / "broken" / "net.pt", weights_only=True)
    second, resumed, validator = trainer(tmp_path / "broken", 4, scores, resume=True)
    second.run()
    assert torch.equal(network.weight, resumed.weight)
    assert second.state.iteration == whole.state.iteration == 8
    assert (validator.state.best_metric, validator.state.best_metric_epoch) == (0.9, 2)
    kept = torch.load(tmp_path / "broken" / "net.pt", weights_only=True)
    assert torch.equal(kept["weight"], best["weight"])  # epochs 3 and 4 were worse than the best before the break
    assert not torch.equal(kept["weight"], resumed.weight)


def test_weights_written_are_the_moving_average_also_after_a_break(trainer, tmp_path):
    scores = {1: 0.1, 2: 0.2, 3: 0.3}
    whole, network, _ = trainer(tmp_path / "whole", 3, scores, momentum=0.25)
    seen = []
    whole.add_event_handler(Events.ITERATION_COMPLETED, lambda: seen.append(network.weight.item()))
    whole.run()
    expected = 0.5
    for weight in seen:
        expected = 0.75 * expected + 0.25 * weight
    written = torch.load(tmp_path / "whole" / "net.pt", weights_only=True)
    assert list(written) == ["weight", "bias"]
    assert written["weight"].item() == pytest.approx(expected)
    assert abs(expected - seen[-1]) > 1e-3
    first, _, _ = trainer(tmp_path / "broken", 3, scores, momentum=0.25)
    first.add_event_handler(Events.EPOCH_STARTED(once=2), first.terminate)
    first.run()
    trainer(tmp_path / "broken", 3, scores, resume=True, momentum=0.25)[0].run()
    resumed = torch.load(tmp_path / "broken" / "net.pt", weights_only=True)
    assert torch.equal(resumed["weight"], written["weight"])


@pytest.mark.parametrize("rate", [0.1, 0.01])  # another one is for the stages that are not finished
def test_finished_training_is_not_repeated_on_resume(trainer, tmp_path, rate):
    scores = {1: 0.1, 2: 0.2}
    trainer(tmp_path, 2, scores)[0].run()
    again, _, _ = trainer(tmp_path, 2, scores, resume=True, rate=rate)
    counted = []
    again.add_event_handler(Events.ITERATION_COMPLETED, lambda: counted.append(1))
    again.run()
    assert not counted


def test_resume_without_a_checkpoint_starts_from_the_beginning(trainer, tmp_path):
    engine, _, _ = trainer(tmp_path, 1, {1: 0.1}, resume=True)
    engine.run()
    assert (tmp_path / "net_last.pt").is_file()


def test_checkpoint_of_another_configuration_is_refused(trainer, tmp_path):
    trainer(tmp_path, 1, {1: 0.1})[0].run()
    state = torch.load(tmp_path / "net_last.pt", weights_only=True)
    state["network"]["weight"] = torch.zeros(3, 3)
    torch.save(state, tmp_path / "net_last.pt")
    with pytest.raises(ValueError, match=r"net_last\.pt: not a checkpoint of this configuration"):
        trainer(tmp_path, 1, {1: 0.1}, resume=True)[0].run()


def test_finished_training_is_extended_where_a_longer_one_would_be(trainer, tmp_path):
    def rates(engine):
        seen = {}

        @engine.on(Events.EPOCH_STARTED)
        def note():
            seen[engine.state.epoch] = engine.optimizer.param_groups[0]["lr"]

        engine.run()
        return seen

    scores = {1: 0.1, 2: 0.2, 3: 0.3, 4: 0.4}
    whole = rates(trainer(tmp_path / "whole", 4, scores)[0])
    trainer(tmp_path / "short", 2, scores)[0].run()
    longer, _, validator = trainer(tmp_path / "short", 4, scores, resume=True)
    assert rates(longer) == pytest.approx({3: whole[3], 4: whole[4]})
    assert validator.state.best_metric_epoch == 4
    with pytest.raises(ValueError, match=r"a run of 4 epochs; expected 4 or more, not 3\."):
        trainer(tmp_path / "short", 3, scores, resume=True)[0].run()


@pytest.mark.parametrize("deterministic", [True, False])
def test_cudnn_may_try_its_algorithms_out_in_every_epoch(monkeypatch, deterministic):
    for name in ("deterministic", "benchmark"):
        monkeypatch.setattr(torch.backends.cudnn, name, not deterministic)
    loader, draws = DataLoader(Dataset([0], Compose([]))), []
    for _ in range(2):
        engine = Engine(lambda *_: None)
        Reseed(1, loader, deterministic).attach(engine)
        engine.run([0], max_epochs=1)
        draws.append(torch.rand(1).item())
        assert torch.backends.cudnn.deterministic == deterministic
        assert torch.backends.cudnn.benchmark != deterministic
    assert draws[0] == draws[1]


def test_validation_leaves_out_ignored_voxels():
    label = torch.tensor([[1, 0, IGNORED, 0]], dtype=torch.uint8)
    pred, counted = counted_voxels([{"pred": torch.tensor([[1.0, 1, 1, 0]]), "label": label}])
    assert (pred[0].tolist(), counted[0].tolist()) == ([[1, 1, 0, 0]], [[1, 0, 0, 0]])
    assert label.tolist() == [[1, 0, IGNORED, 0]]


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


def drawn_by_rank(folder):
    torch.distributed.init_process_group("gloo")
    torch.save(draws(7, [1, 2]), folder / f"{torch.distributed.get_rank()}.pt")
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def test_each_rank_draws_its_own(tmp_path):
    code, said = run(drawn_by_rank, tmp_path, processes=2)
    assert code == 0, said
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=False) for rank in range(2))
    assert first == draws(7, [1, 2])
    for epoch in (1, 2):
        one, other = ([*zip(*ranks[epoch], strict=True)] for ranks in (first, second))
        assert all(a != b for a, b in zip(one[1:], other[1:], strict=True))  # from each source but the order


def average(folder):
    """Average the gradient of a weight over both processes, and save it."""
    torch.distributed.init_process_group("gloo")
    rank = torch.distributed.get_rank()
    network = torch.nn.Linear(1, 1, bias=False)
    wrapped = distributed(network, local_device())
    assert distributed(torch.nn.MSELoss(), local_device()).__class__ is torch.nn.MSELoss  # nothing to average
    network.register_buffer("own", torch.tensor(float(rank)))
    wrapped(torch.tensor([[1.0 + 2 * rank]])).sum().backward()
    assert network.own == rank
    torch.save(network.weight.grad, folder / f"{rank}.pt")
    assert distributed(torch.nn.Linear(1, 1), "cpu").device.type == "cpu"  # --device cpu is a text
    assert validation_sampler([0]) is None  # fewer items than processes: each validates all
    assert list(validation_sampler([0, 1, 2])) == [[0, 2], [1]][rank]
    torch.distributed.barrier()  # a process that leaves early can abort the other one
    torch.distributed.destroy_process_group()


def test_gradients_are_averaged_over_processes(tmp_path):
    code, said = run(average, tmp_path, processes=2)
    assert code == 0, said
    assert [torch.load(tmp_path / f"{rank}.pt").item() for rank in range(2)] == [2.0, 2.0]  # of 1 and 3


def test_a_process_that_is_alone_averages_nothing():
    network = torch.nn.Linear(1, 1)
    assert distributed(network, torch.device("cpu")) is network


def test_without_torchrun_it_is_said(monkeypatch):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    with pytest.raises(RuntimeError, match="with torchrun -m"):
        local_device()
