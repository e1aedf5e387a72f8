"""PMKL and RobustSeg as the golden files define them: weights and inputs by a rule.

Everything is in the authors' order, FLAIR, T1c, T1, T2: the networks do not know which modality is which.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common.methods.pmkl import MetricHeads
from common.networks.gated import ContentEncoder, Decoder, GatedNetwork
from common.networks.pmkl import PMKL
from common.networks.robustseg import RobustSeg

GOLDEN = Path(__file__).parents[1] / "golden"
NAMES = ("flair", "t1c", "t1", "t2")
TOLERANCE = 1e-4
"""Largest difference allowed, relative to the largest absolute value of the golden array."""

Layers = Iterator[tuple[nn.Module, str]]


def published_shapes(name: str) -> dict[str, tuple[int, ...]]:
    """Return variable -> shape, in PyTorch's layout, of ``pmkl`` (48^3 crops) or ``robustseg`` as published."""
    lines = (GOLDEN / f"state_dict_{name}.txt").read_text().splitlines()
    pairs = (line.split("\t") for line in lines if not line.startswith("#"))
    return {key: tuple(int(n) for n in text.strip("()").split(",") if n.strip()) for key, text in pairs}


def with_golden_weights(name: str, layers: Layers) -> None:
    """Give each layer the weights that the rule assigns to the authors' variables of its name; all must be used."""
    shapes = published_shapes(name)
    for layer, key in layers:
        for ours, parameter in layer.named_parameters():
            theirs = f"{key}/{_variable(layer, ours)}"
            shape = shapes.pop(theirs)
            assert tuple(n for n in shape if n > 1) == tuple(n for n in parameter.shape if n > 1), theirs
            n = np.random.default_rng(zlib.crc32(theirs.encode())).standard_normal(shape)
            if theirs.endswith("kernel"):
                n = n / np.sqrt(np.prod(shape[1:]))
            else:
                n = 1 + 0.1 * n if theirs.endswith("gamma") else 0.1 * n
            parameter.data.copy_(torch.from_numpy(n.astype(np.float32)).reshape(parameter.shape))
    assert not shapes, list(shapes)


def pmkl_layers(network: PMKL, heads: MetricHeads, subset: tuple[int, ...]) -> Layers:
    """Pair the teacher's layers and those of one student with the authors' names."""
    yield from gated_layers(network.full, "_abs")
    student = network.missing.network_for(subset)
    yield from _encoder(student.encoder, "Model/ce_prs")
    yield from _decoder(student.decoder, "Model/mask_de_prs")
    for head, name in ((heads.student, "prs"), (heads.teacher, "abs")):
        yield head.hidden, f"Model/metric_{name}/linear_0/dense"
        yield head.embedding, f"Model/metric_{name}/linear_1/dense"


def robustseg_layers(network: RobustSeg) -> Layers:
    """Pair the network's layers with the authors' names."""
    yield from gated_layers(network)
    yield network.image_head, "Model/G_logit/conv3d"
    for m, name in enumerate(NAMES):
        scope = f"Model/se_{name:_<5}"
        *convolutions, last = [x for x in network.appearances[m] if isinstance(x, (nn.Conv3d, nn.Linear))]
        yield last, f"{scope}/se_logit/conv3d"
        for number, layer in enumerate(convolutions):
            yield layer, f"{scope}/c_{number}/conv3d"
        decoder, scope = network.image_decoders[m], f"Model/image_de_{name:_<5}"
        yield decoder.hidden[0], f"{scope}/MLP/linear_0/dense"
        yield decoder.hidden[2], f"{scope}/MLP/linear_1/dense"
        yield decoder.scale, f"{scope}/MLP/mu/dense"
        yield decoder.shift, f"{scope}/MLP/sigma/dense"
        for number, block in enumerate(decoder.residuals):
            yield block.conv1, f"{scope}/adaptive_resblock{number}/res1/conv3d/conv3d"
            yield block.conv2, f"{scope}/adaptive_resblock{number}/res2/conv3d/conv3d"
        for number, up in enumerate(decoder.ups):
            yield up[1], f"{scope}/conv_{number}/conv3d"
            yield up[2], f"{scope}/layer_norm_{number}"


def gated_layers(network: GatedNetwork, suffix: str = "") -> Layers:
    """Pair the layers of encoders, fusions and decoder with the authors' names."""
    for encoder, name in zip(network.encoders, NAMES, strict=True):
        yield from _encoder(encoder, f"Model/ce_{name}{suffix}")
    for number, fusion in enumerate(network.fusions, start=1):
        yield from _unit(fusion.gate, f"Model/att_c{number}{suffix}")
        yield from _unit(fusion.mix, f"Model/fusion_c{number}{suffix}")
    yield from _decoder(network.decoder, f"Model/mask_de{suffix}")


def draw_image(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    """Return the golden files' input."""
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


def relative_error(found: torch.Tensor, arrays: dict[str, np.ndarray], key: str) -> float:
    """Return the largest difference to a golden array, relative to the array's largest absolute value."""
    expected, stride = torch.from_numpy(arrays[key]), int(arrays[f"{key}/stride"])
    assert tuple(found.shape) == tuple(arrays[f"{key}/shape"]), key
    found = found.detach()
    return float((found[:, :, *[slice(None, None, stride)] * (found.ndim - 2)] - expected).abs().max()) / float(
        expected.abs().max()
    )


def _variable(layer: nn.Module, ours: str) -> str:
    if isinstance(layer, (nn.Conv3d, nn.Linear)):
        return {"weight": "kernel", "bias": "bias"}[ours]
    return {"weight": "gamma", "bias": "beta"}[ours]


def _unit(unit: nn.Sequential, scope: str) -> Layers:
    yield unit[0], f"{scope}/conv3d"
    yield unit[1], f"{scope}/instance_norm/InstanceNorm"


def _encoder(encoder: ContentEncoder, scope: str) -> Layers:
    for level, units in enumerate(encoder.levels, start=1):
        for number, unit in enumerate(units, start=1):
            yield from _unit(unit, f"{scope}/e{level}_c{number}")


def _decoder(decoder: Decoder, scope: str) -> Layers:
    for number, level in enumerate(decoder.levels, start=1):
        yield from _unit(level.up, f"{scope}/d{number}_c1")
        yield from _unit(level.merge, f"{scope}/d{number}_c2")
        yield from _unit(level.out, f"{scope}/d{number}_out")
    yield decoder.head, f"{scope}/seg_logit/conv3d"
