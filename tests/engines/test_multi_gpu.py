import pytest
import torch
from processes import run

from common.engines import distributed, local_device


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
