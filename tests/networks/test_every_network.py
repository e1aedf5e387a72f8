"""What holds for every network that encodes modalities separately: subsets, batches, NaN, and what is refused.

Their own tests have the published numbers and what is special.
"""

from collections.abc import Callable

import pytest
import torch
from monai.data import MetaTensor
from monai.networks import eval_mode, train_mode
from networks.golden import TOLERANCE
from torch import nn
from torch.utils._pytree import tree_leaves

from common.modalities import drop, subsets
from common.networks import ACN, M3AE, M2FTrans, MMFormer, RFNet, SMUNet
from common.networks.gated import GatedNetwork
from common.networks.hved import UHVED, HVEDOutput, UHeMIS
from common.networks.mag_ms import MAGMS
from common.networks.robustseg import RobustSeg
from common.networks.unetr import DedicatedUNETR, FilledUNETR

NAMES = ("t1", "t1c", "t2", "flair")
TOKENS = {"width": 2, "mlp_dim": 8, "heads": 2, "dropout": 0.0}
UNETR = {"width": 4, "hidden": 16, "mlp_dim": 16, "heads": 2}
SEPARATE: dict[str, tuple[Callable[..., nn.Module], int, dict]] = {
    "RFNet": (RFNet, 16, {"width": 4}),
    "mmFormer": (MMFormer, 32, {**TOKENS, "embed_dim": 8}),
    "M2FTrans": (M2FTrans, 32, TOKENS),
    "gated": (GatedNetwork, 16, {"width": 2}),
    "RobustSeg": (RobustSeg, 16, {"width": 2}),
    "U-HVED": (UHVED, 16, {"width": 2}),
    "U-HeMIS": (UHeMIS, 16, {"width": 2}),
    "MAG-MS": (MAGMS, 16, UNETR),
}
"""Networks with encoders of single modalities: class, edge of the window, and the smallest sensible sizes."""
NETWORKS = SEPARATE | {
    "UNETR": (FilledUNETR, 16, {**UNETR, "fill": "mean"}),
    "dedicated": (DedicatedUNETR, 16, UNETR),
    "M3AE": (M3AE, 16, {"width": 8, "grid": (24, 20, 16)}),
    "ACN": (ACN, 16, {"width": 8}),
    "SMU-Net": (SMUNet, 16, {"width": 8}),
}
WINDOWED = ("RFNet", "mmFormer", "M2FTrans", "MAG-MS", "UNETR", "dedicated")
"""Those that are told their crop."""
MIXED = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])
separate = pytest.mark.parametrize("name", SEPARATE)
each = pytest.mark.parametrize("name", NETWORKS)


def made(name, **changes):
    """Return a network whose weights make a difference; the initial ones of gated networks are too small."""
    torch.manual_seed(0)
    network, edge, sizes = NETWORKS[name]
    crop = {"crop": (edge,) * 3} if name in WINDOWED else {}
    network = network(**{**crop, **sizes, **changes})
    for parameter in network.parameters() if isinstance(network, GatedNetwork) else ():
        nn.init.normal_(parameter, std=1 / max(1.0, parameter[0].numel()) ** 0.5)
    return network


def image(name, present=MIXED, modalities=4):
    edge, generator = NETWORKS[name][1], torch.Generator().manual_seed(1)
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
        for names in subsets(NAMES):
            present = torch.tensor([[modality in names for modality in NAMES]])
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
        assert type(together) is torch.Tensor or name == "M3AE"  # whose inferer reads the location
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


@separate
@pytest.mark.parametrize("kind", [None, "shared", "separate"])
def test_nan_never_gets_into_values_or_gradients(name, kind):
    if kind is not None and name not in ("RFNet", "mmFormer", "M2FTrans", "gated"):
        pytest.skip("takes no feature encoder")
    network, x = made(name, **({} if kind is None else {"feature_encoder": kind})), image(name)
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
    edge = NETWORKS[name][1]
    window = (edge, edge + 16, edge + 32)
    sizes = {"grid": window, "out_channels": classes} if name == "M3AE" else {"classes": classes}
    network = made(name, modalities=2, **sizes, **({"crop": window} if name in WINDOWED else {}))
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
