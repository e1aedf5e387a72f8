"""Complete checkpoints are read; anything else is refused with a reason."""

from pathlib import Path

import pytest
import torch
from refusals import refused
from torch import nn

from common.io import load_weights, read_checkpoint, read_weights, write_checkpoint


class Small(nn.Module):
    """A network with a width."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, width, 1)
        self.norm = nn.BatchNorm3d(width)


def test_round_trip(tmp_path):
    state = {"network": Small().state_dict(), "epoch": 3, "best": {"score": 0.5}}
    write_checkpoint(state, tmp_path / "new" / "last.pt")
    read = read_checkpoint(tmp_path / "new" / "last.pt")
    assert (read["epoch"], read["best"]) == (3, {"score": 0.5})
    torch.testing.assert_close(read["network"], state["network"], rtol=0, atol=0)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["last.pt"]


def truncated(path: Path) -> None:
    torch.save({"a": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def executable(path: Path) -> None:
    torch.save({"a": Small()}, path)


def flipped(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(4000)) + 2003] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        executable,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello world"),
    ],
)
def test_damaged_or_not_of_plain_tensors(tmp_path, damage):
    path = tmp_path / "model.pt"
    with refused(FileNotFoundError, "model.pt: no such checkpoint. Train first, or name one"):
        read_checkpoint(path)
    damage(path)
    with refused(ValueError, "model.pt: not an intact checkpoint of plain tensors ("):
        read_checkpoint(path)


def test_weights_of_another_network(tmp_path):
    renamed = Small().state_dict()
    renamed["extra"] = renamed.pop("conv.bias")
    remedy = "Use the config of its training (cohort, backbone, width, crop); convert a file"
    for state, facts in (
        (Small(4).state_dict(), ("conv.weight", "[4, 1, 1, 1, 1]")),
        (renamed, ("conv.bias", "extra")),
    ):
        write_checkpoint(state, tmp_path / "model.pt")
        with refused(ValueError, str(tmp_path / "model.pt"), "than Small", remedy, *facts):
            load_weights(Small(2), tmp_path / "model.pt")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "model.backbone."])
def test_weights_of_a_wrapped_network(tmp_path, prefix):
    write_checkpoint({prefix + key: value for key, value in Small().state_dict().items()}, tmp_path / "model.pt")
    with refused(ValueError, str(tmp_path / "model.pt"), f"its names begin with '{prefix}'", "state_dict()"):
        load_weights(Small(), tmp_path / "model.pt")


@pytest.mark.parametrize("value", [[0, float("nan")], [float("inf"), 0], [1, 1e300]])
def test_weights_that_are_no_numbers(tmp_path, value):
    state = Small().state_dict() | {"norm.bias": torch.tensor(value, dtype=torch.double)}
    torch.save(state, tmp_path / "model.pt")
    with refused(ValueError, str(tmp_path / "model.pt"), "'norm.bias' holds NaN or infinity"):
        load_weights(Small(), tmp_path / "model.pt")


@pytest.mark.parametrize("key", ["state_dict", "model"])  # of MONAI's zoo and of NVFlare's server
def test_half_precision_and_what_is_saved_around_it(tmp_path, key):
    state = {key: value.half() if value.is_floating_point() else value for key, value in Small().state_dict().items()}
    write_checkpoint({"epoch": 3, key: state, "optim_dict": {"state": {}}}, tmp_path / "model.pt")
    assert all(torch.equal(value, state[key]) for key, value in read_weights(tmp_path / "model.pt").items())
    assert torch.equal(load_weights(Small(), tmp_path / "model.pt").conv.weight, state["conv.weight"].float())


@pytest.mark.parametrize(
    "what",
    [[1, 2], None, {}, {"state_dict": None}, {7: torch.ones(2)}, {"network": {}, "optimizer": {}}],
)
def test_something_else_than_weights(tmp_path, what):
    torch.save(what, tmp_path / "model.pt")
    with refused(ValueError, "model.pt: holds a ", "expected a state dict"):
        read_weights(tmp_path / "model.pt")
