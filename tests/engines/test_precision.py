"""The key ``precision``: the types inside the network and of its outputs, and what is refused."""

from typing import NamedTuple

import pytest
import torch
from monai.engines import SupervisedTrainer
from monai.inferers import SlidingWindowInferer
from torch import nn
from two_stage import TwoStage

from common.engines import (
    ForegroundInferer,
    PrecisionInferer,
    fast_memory_format,
    fast_precision,
)
from common.engines.precision import autocast, check_device
from common.engines.windows import decode_subsets


class Out(NamedTuple):
    logits: torch.Tensor
    features: list[torch.Tensor]
    present: torch.Tensor | None


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv3d(2, 16, 3, padding=1)
        self.seen: list[torch.dtype] = []

    def forward(self, image: torch.Tensor) -> Out:
        features = self.conv(image)
        self.seen.append(features.dtype)
        return Out(features, [features.double(), (image[:, 0] > 0)], None)


class Logits(Network):
    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return super().forward(image).logits


PRECISIONS = [("float32", torch.float32, 0.0), ("bfloat16", torch.bfloat16, 0.05), ("float16", torch.float16, 0.01)]


@pytest.mark.parametrize(("precision", "inside", "error"), PRECISIONS)
def test_half_inside_and_single_outside(precision, inside, error):
    network, image = Network(), torch.randn(1, 2, 8, 8, 8)
    out = PrecisionInferer(precision)(image, network)
    assert network.seen == [inside]
    assert isinstance(out, Out)
    found = [tensor.dtype for tensor in (out.logits, *out.features)]
    assert found == [torch.float32, torch.float64, torch.bool]
    assert out.present is None
    out.logits.square().mean().backward()
    assert network.conv.weight.grad.dtype == torch.float32
    difference = float((out.logits - network(image).logits).detach().abs().max())
    assert 1e-5 < difference < error if error else difference == 0


@pytest.mark.parametrize(("precision", "inside", "error"), PRECISIONS)
@torch.no_grad()
def test_windows_are_forwarded_in_it_and_summed_in_single(precision, inside, error):
    network, image = Logits(), torch.randn(1, 2, 12, 8, 8)
    logits = ForegroundInferer((8, 8, 8), 1, 0.5, precision=precision)(image, network)
    assert set(network.seen) == {inside}
    assert logits.dtype == torch.float32
    difference = float((logits - SlidingWindowInferer((8, 8, 8), 1, 0.5)(image, network)).abs().max())
    assert 1e-5 < difference < error if error else difference == 0


@torch.no_grad()
def test_windows_of_all_subsets_are_those_of_each():
    network, image = TwoStage(3, 2).eval(), torch.randn(1, 3, 12, 8, 8)
    keep = torch.tensor([[True, True, True], [False, True, False]])
    inferer = ForegroundInferer((8, 8, 8), 1, 0.5, precision="bfloat16")
    with autocast("bfloat16", image.device):
        found = list(decode_subsets(image, network, keep, inferer))
    alone = [inferer(image.masked_fill(~row[None, :, None, None, None], torch.nan), network) for row in keep]
    assert all(torch.equal(a, b) for a, b in zip(found, alone, strict=True))


def test_single_is_single_within_another_precision():
    network, image = Network(), torch.randn(1, 2, 8, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        PrecisionInferer("float32")(image, network)
    assert network.seen == [torch.float32]


@pytest.mark.filterwarnings("ignore:.*GradScaler", "ignore:.*CUDA is not available")
@pytest.mark.parametrize(("precision", "inside", "_"), PRECISIONS)
def test_the_loss_is_in_single(precision, inside, _):
    seen = []

    def loss(pred, label):
        seen.append((pred.logits @ pred.logits.mT).dtype)
        return pred.logits.square().mean()

    network, batch = Network(), {"image": torch.randn(1, 2, 8, 8, 8), "label": torch.zeros(1)}
    trainer = SupervisedTrainer(
        torch.device("cpu"),
        1,
        [batch],
        network,
        torch.optim.SGD(network.parameters()),
        loss,
        inferer=PrecisionInferer(precision),
        decollate=False,
        amp=precision == "float16",
        amp_kwargs={"enabled": False},
    )
    trainer.run()
    assert (network.seen, seen) == ([inside], [torch.float32])


@pytest.mark.parametrize(
    ("check", "facts"),
    [
        (lambda: PrecisionInferer("half"), "precision 'half': .* 'float32', 'bfloat16', 'float16'"),
        (lambda: ForegroundInferer((8, 8, 8), precision="half"), "precision 'half'"),
        (lambda: check_device("cpu", "half"), "precision 'half'"),
        (lambda: check_device("cpu", "float16"), "'float16' with device cpu"),
        (lambda: check_device("gpu", "float32"), "^device gpu: not available"),
    ],
)
def test_wrong_settings_are_refused(check, facts):
    with pytest.raises(ValueError, match=facts):
        check()


def test_memory_format_of_each_device():
    assert fast_memory_format("cpu", [80, 80, 80]) is torch.channels_last_3d
    assert fast_memory_format("cpu", [80, 80]) is torch.contiguous_format
    assert fast_memory_format(torch.device("cuda", 0), [80, 80, 80]) is torch.contiguous_format


@pytest.mark.parametrize(("flags", "expected"), [("fpu amx_bf16 sse", "bfloat16"), ("fpu avx512f", "float32")])
def test_precision_of_each_device(monkeypatch, tmp_path, flags, expected):
    (tmp_path / "cpuinfo").write_text(f"flags\t\t: {flags}\n")
    monkeypatch.setattr("common.engines.precision.CPU_FACTS", tmp_path / "cpuinfo")
    assert fast_precision(torch.device("cpu")) == expected
    assert fast_precision("cuda:0") == "float32"
