"""ACN and SMU-Net forward all modalities through the full path and one subset through its missing path."""

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from common.baselines.cotraining import ACNLoss, CoTraining, SMUNetLoss
from common.modalities import drop
from common.networks.cotraining import ACN, SMUNet
from common.papers.medmap import AlignedLoss, FeatureAlignment

SUBSETS = [(0,), (1, 3), (0, 1, 2)]
each = pytest.mark.parametrize("made", [ACN, SMUNet])


def network(made, subsets=SUBSETS, **kwargs):
    torch.manual_seed(0)
    net = made(width=8, subsets=subsets, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def image(samples=2):
    return torch.randn(samples, 4, 16, 16, 16, generator=torch.Generator().manual_seed(1))


def target(samples=2):
    return torch.randint(4, (samples, 1, 16, 16, 16), generator=torch.Generator().manual_seed(2))


def loss_of(made):
    return ACNLoss(width=8) if made is ACN else SMUNetLoss(width=8)


def forwarded(net):
    """Record which missing path runs, and on what."""
    seen = []
    for subset in net.missing.subsets:
        net.missing.network_for(subset).register_forward_hook(
            lambda m, args, out, subset=subset: seen.append((subset, args[0]))
        )
    return seen


@each
def test_full_path_sees_everything_and_one_missing_path_its_subset(made):
    net, x = network(made), image()
    seen = forwarded(net)
    for _ in range(30):
        output = CoTraining(net)(MetaTensor(x))
        torch.testing.assert_close(output.full.logits, net.full(x).logits)
        subset, given = seen[-1]
        assert torch.equal(given, x[:, list(subset)])
        assert type(output.missing.logits) is torch.Tensor
    assert len(seen) == 30
    assert {subset for subset, _ in seen} == set(SUBSETS)


@each
def test_full_path_and_the_drawn_one_learn_and_the_others_do_not(made):
    net = network(made)
    seen = forwarded(net)
    loss = loss_of(made)
    loss(CoTraining(net)(image()), target()).backward()
    learns = {"full", "_".join(map(str, seen[0][0]))}
    for name, path in (("full", net.full), *net.missing.networks.items()):
        got = [parameter.grad is not None for parameter in path.parameters()]
        assert all(got) if name in learns else not any(got), name
    assert all(parameter.grad is not None for parameter in loss.discriminators.parameters())


@each
def test_incomplete_subjects_are_refused(made):
    present = torch.tensor([[True] * 4, [True, False, True, False]])
    with pytest.raises(ValueError, match=r"1 of 2 training samples lack a modality \(channels \[1, 3\]\)"):
        CoTraining(network(made))(drop(image(), present))


@pytest.mark.parametrize(("at", "kind", "channels"), [("input", "shared", 4), ("bottleneck", None, 64)])
def test_medmap_aligns_acn(at, kind, channels):
    net = network(ACN, feature_encoder=kind)
    method = FeatureAlignment(CoTraining(net), net, at=at)
    loss = AlignedLoss(ACNLoss(width=8), ("t1", "t1c", "t2", "flair"))
    output = method(image())
    assert output.features.shape[:3] == (2, 4, channels)
    loss(output, target()).backward()
    assert loss.terms["align"] > 0
    assert loss.alignment.weights.grad.abs().max() > 0
