"""Complete checkpoints are read; anything else is refused with a reason."""

import re
import zipfile
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


def compressed(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        compressed,
        executable,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello world"),
        lambda path: path.write_text("\n"),
    ],
)
def test_damaged_or_not_of_plain_tensors(tmp_path, damage):
    path = tmp_path / "model.pt"
    with refused(FileNotFoundError, "model.pt: no such checkpoint. Train first, or name one"):
        read_checkpoint(path)
    damage(path)
    with refused(ValueError, "model.pt: not an intact checkpoint of plain tensors ("):
        read_checkpoint(path)


def test_another_width(tmp_path):
    write_checkpoint(Small(4).state_dict(), tmp_path / "model.pt")
    sizes = "conv.weight (4, 1, 1, 1, 1) in the file, (2, 1, 1, 1, 1) in the network"
    remedy = "Use the config that it was trained with (cohort, backbone, width, crop), or another checkpoint"
    with refused(ValueError, str(tmp_path / "model.pt"), "than Small: 0 keys missing", sizes, remedy):
        load_weights(Small(2), tmp_path / "model.pt")


def test_other_keys_are_counted_and_named_and_nothing_is_loaded(tmp_path):
    state = Small().state_dict()
    state["extra"] = state.pop("conv.bias")
    write_checkpoint(state, tmp_path / "model.pt")
    target = Small()
    before = target.conv.weight.clone()
    with pytest.raises(ValueError, match=r"1 keys missing \['conv.bias'\], 1 unexpected \['extra'\]"):
        load_weights(target, tmp_path / "model.pt")
    assert torch.equal(target.conv.weight, before)


def test_the_same_tensors_give_the_same_bytes(tmp_path):
    state = Small().state_dict()
    for name in ("one.pt", "another.pt"):
        write_checkpoint(state, tmp_path / name)
    assert (tmp_path / "one.pt").read_bytes() == (tmp_path / "another.pt").read_bytes()


NO_WEIGHTS = {
    "nan": (torch.tensor([0, float("nan")]), "holds NaN or infinity in 1 of 2 values"),
    "infinity": (torch.tensor([float("inf"), -float("inf")]), "holds NaN or infinity in 2 of 2 values"),
    "overflow": (torch.tensor([1, 1e300], dtype=torch.double), "holds NaN or infinity in 1 of 2 values"),
    "complex": (torch.ones(2, dtype=torch.cfloat), "holds complex numbers"),
    "sparse": (torch.ones(2).to_sparse(), "is not a plain tensor of numbers"),
    "meta": (torch.ones(2, device="meta"), "is not a plain tensor of numbers"),
    "expanded": (torch.ones(1).expand(2), "claims 2 values but holds fewer"),
    "float8": (torch.ones(2).to(torch.float8_e4m3fn), "has type torch.float8_e4m3fn; expected one of torch.float16"),
    "integers": (torch.ones(2, dtype=torch.int), "has type torch.int32; expected torch.float32"),
    "none": (None, "is a NoneType; expected a state dict"),
}


@pytest.mark.parametrize("what", NO_WEIGHTS)
def test_weights_that_are_no_numbers_are_refused_and_nothing_is_loaded(tmp_path, what):
    value, said = NO_WEIGHTS[what]
    torch.save(Small().state_dict() | {"norm.bias": value}, tmp_path / "model.pt")
    network = Small()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'model.pt'}: 'norm.bias' {said}")):
        load_weights(network, tmp_path / "model.pt")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("key", ["state_dict", "model"])  # of MONAI's zoo and of NVFlare's server
def test_half_precision_and_what_is_saved_around_it(tmp_path, key):
    state = {key: value.half() if value.is_floating_point() else value for key, value in Small().state_dict().items()}
    write_checkpoint({"epoch": 3, key: state, "optim_dict": {"state": {}}}, tmp_path / "model.pt")
    assert all(torch.equal(value, state[key]) for key, value in read_weights(tmp_path / "model.pt").items())
    assert torch.equal(load_weights(Small(), tmp_path / "model.pt").conv.weight, state["conv.weight"].float())


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        (None, "holds a NoneType"),
        (5, "holds a int"),
        ({}, "holds a dict of nothing"),
        ({"state_dict": None}, "holds a NoneType"),
        ({7: torch.ones(2)}, "7 is a Tensor"),
        ({"network": {}, "optimizer": {}}, "'network' is a dict of nothing"),
    ],
)
def test_something_else_than_weights(tmp_path, what, said):
    torch.save(what, tmp_path / "model.pt")
    with pytest.raises(ValueError, match=rf"model\.pt: {said}.*expected a state dict"):
        read_weights(tmp_path / "model.pt")
