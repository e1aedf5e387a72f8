"""What holds for every network that encodes modalities separately: subsets, batches, NaN, and what is refused.

Their own tests have the published numbers and what is special.
"""

import inspect
import json
from functools import cache
from itertools import product

import pytest
import torch
from monai.data import MetaTensor
from monai.networks import eval_mode, train_mode
from networks.golden import TOLERANCE
from processes import ROOT
from torch import nn
from torch.utils._pytree import tree_leaves

from common.modalities import drop, subsets
from common.networks import NETWORKS, build_network
from common.networks.build import network_class
from common.networks.gated import GatedNetwork
from common.networks.hved import HVEDOutput

MODALITIES = ("t1", "t1c", "t2", "flair")
M3AE = "common.networks.M3AE"
CONFIGS = [json.loads(path.read_text()) for path in ROOT.glob("bundles/*/configs/**/*.json")]
CHOSEN = {name for config in CONFIGS if (name := config.get("backbone", "$"))[0] not in "$@"}
CHOSEN |= {found["_target_"] for config in CONFIGS if "_target_" in (found := config.get("network_def", {}))}
MADE_OF = {"common.networks.gated.GatedNetwork"}
NAMES = sorted({*NETWORKS, *CHOSEN, *MADE_OF} - {"common.networks.build_network", "common.networks.replicated"})
"""All networks that a config names, and what they are made of."""
SIZES = {"mlp_dim": 16, "heads": 2, "hidden": 16, "embed_dim": 8, "dropout": 0.0, "fill": "mean", "grid": (24, 20, 16)}
TAKEN = {name: inspect.signature(network_class(name)).parameters for name in NAMES}
SEPARATE = [name for name in NAMES if "modalities" in TAKEN[name] and hasattr(network_class(name), "encode")]
"""Those with encoders of single modalities."""
ALIGNED = [name for name in SEPARATE if "feature_encoder" in TAKEN[name]]
MIXED = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
separate = pytest.mark.parametrize("name", SEPARATE)
each = pytest.mark.parametrize("name", NAMES)


@cache
def smallest(name):
    """Return the first edge of a window and width with which a network can be made."""
    for edge, width in product((16, 32), (2, 4, 8)):
        try:
            build_network(name, 4, 4, width, (edge,) * 3, **SIZES)
        except ValueError:
            continue
        return edge, width
    raise AssertionError(f"{name}: no width of 8 or less is accepted")


def made(name, modalities=4, classes=4, crop=None, **changes):
    """Return a network whose weights make a difference; the initial ones of gated networks are too small."""
    torch.manual_seed(0)
    edge, width = smallest(name)
    sizes = {**SIZES, "out_channels": classes, **changes}
    network = build_network(name, modalities, classes, width, crop or (edge,) * 3, **sizes)
    for parameter in network.parameters() if isinstance(network, GatedNetwork) else ():
        nn.init.normal_(parameter, std=1 / max(1.0, parameter[0].numel()) ** 0.5)
    return network


def image(name, present=MIXED, modalities=4):
    edge, generator = smallest(name)[0], torch.Generator().manual_seed(1)
    x = torch.randn(len(present), modalities, *[edge] * 3, generator=generator)
    return drop(x, present) if modalities == present.shape[1] else x


def error(found, expected):
    return float((found - expected).abs().max() / expected.abs().max())


@separate
def test_one_encoding_serves_every_subset(name):
    """Training that does or does not encode modalities left out (the published pdt and idt) therefore decodes alike."""
    network, x = made(name), image(name, MIXED[2:])
    with eval_mode(network), torch.no_grad():
        features = network.encode(x)
        logits = []
        for names in subsets(MODALITIES):
            present = torch.tensor([[modality in names for modality in MODALITIES]])
            logits.append(network.decode(features, present))
            expected = network(drop(x, present))
            assert error(logits[-1], expected) <= TOLERANCE, names
            assert torch.equal(network(x, present), expected), names
    assert all(tensor.shape[0] == 1 for tensor in features)
    assert all(error(other, logits[-1]) > 1e-3 for other in logits[:-1])


@each
def test_samples_of_a_batch_may_lack_different_modalities(name):
    network, x = made(name), image(name)
    with eval_mode(network), torch.no_grad():
        single = torch.cat([network(x[b : b + 1]) for b in range(3)])
        together = network(MetaTensor(x))
        assert type(together) is torch.Tensor or name == M3AE  # whose inferer reads the location
        assert error(together, single) <= TOLERANCE


@separate
def test_what_is_not_fused_has_no_influence(name):
    network, x, present = made(name), image(name, MIXED[2:]), MIXED[:1]
    other = torch.where(present[:, :, None, None, None], x, 1e3 * x)
    with eval_mode(network), torch.no_grad():
        assert torch.equal(network(x, present), network(other, present))
        one, two = network.encode(x), network.encode(other)
        assert torch.equal(network.decode(one, present), network.decode(two, present))


@separate
@pytest.mark.parametrize("mode", [eval_mode, train_mode])
def test_nothing_is_encoded_of_missing_modalities(name, mode):
    network, seen = made(name), []
    for m, encoder in enumerate(network.encoders):
        encoder.register_forward_hook(lambda module, args, output, m=m: seen.append((m, len(args[0]))))
    allowed = torch.tensor([[True, True, True, False], [True] * 4, [True, True, False, False]])
    with mode(network), torch.no_grad():
        network(image(name), allowed)
    assert sorted(seen) == [(0, 2), (1, 2), (2, 1)]  # once each, with the samples that have the modality


@pytest.mark.parametrize(("name", "kind"), [*product(SEPARATE, [None]), *product(ALIGNED, ["shared", "separate"])])
def test_nan_never_gets_into_values_or_gradients(name, kind):
    network, x = made(name, feature_encoder=kind), image(name)
    x[1, 3, : x.shape[2] // 2] = 0.0  # as after padding: NaN next to zeros
    output = network(MetaTensor(x))
    if isinstance(output, HVEDOutput):
        assert torch.equal(output.image.isnan().flatten(2).all(dim=2)[[0, 2]], ~MIXED[[0, 2]])
        output = output._replace(image=None)
    values = [value for value in tree_leaves(output) if isinstance(value, torch.Tensor) and value.is_floating_point()]
    assert all(type(value) is torch.Tensor and value.isfinite().all() for value in values)
    sum(value.square().mean() for value in values).backward()
    trained = [p for p in network.parameters() if p.grad is not None]
    assert all(p.grad.isfinite().all() for p in trained)
    assert len(trained) == len(list(network.parameters())) or name == "MAG-MS"  # its ViTs have unused parts


@each
def test_a_sample_without_any_modality_is_refused(name):
    network, x = made(name), image(name, MIXED[2:].expand(2, -1))
    absent = x.clone()
    absent[1] = torch.nan
    with pytest.raises(ValueError, match="no modality present"):
        network(absent)
    with pytest.raises(ValueError, match="no modality present"):
        network(x, torch.tensor([[True] * 4, [False] * 4]))


@each
@pytest.mark.parametrize("classes", [2, 5])
def test_other_numbers_of_modalities_and_classes_and_other_windows(name, classes):
    edge = smallest(name)[0]
    window = (edge, edge + 16, edge + 32)
    network = made(name, 2, classes, window, grid=window)
    x = drop(torch.randn(2, 2, *window), torch.tensor([[True, True], [False, True]]))
    with eval_mode(network), torch.no_grad():
        assert network(x).shape == (2, classes, *window)
    if name in SEPARATE:
        with train_mode(network), torch.no_grad():
            assert (2, classes, *window) in [tuple(value.shape) for value in tree_leaves(network(x))]


@separate
def test_an_image_of_other_modalities_is_refused(name):
    with pytest.raises(ValueError, match="An image with 3 channels; expected 4, the network's modalities"):
        made(name)(image(name, MIXED[2:], modalities=3))
