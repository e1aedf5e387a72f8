"""MedMAP around other methods: what is aligned, and what is refused."""

import pytest
import torch

from common.losses.fusion import FusionLoss
from common.modalities import drop
from common.networks import M2FTrans, MMFormer, RFNet
from common.networks.feature_encoder import FeatureEncoder
from common.papers.gss import RandomSubsetFusion
from common.papers.medmap import AlignedLoss, FeatureAlignment
from common.papers.passion import SelfDistillation

NAMES = ("t1", "t1c", "t2", "flair")
SMALL = {"width": 4, "crop": (16, 16, 16)}


def image(batch: int = 2, edge: int = 16) -> torch.Tensor:
    return torch.randn(batch, 4, edge, edge, edge)


def test_shared_feature_encoder_treats_modalities_alike_and_separate_ones_do_not():
    x, there, order = image(), torch.ones(2, 4, dtype=torch.bool), [2, 0, 3, 1]
    shared, separate = FeatureEncoder(4, 3, "shared"), FeatureEncoder(4, 3, "separate")
    assert shared(x, there).shape == (2, 4, 4, 16, 16, 16)
    assert torch.allclose(shared(x[:, order], there), shared(x, there)[:, order], atol=1e-6)
    assert separate(x, there).shape == (2, 4, 1, 16, 16, 16)
    assert not torch.allclose(separate(x[:, order], there), separate(x, there)[:, order])


def test_features_of_absent_modalities_are_zero():
    present = torch.tensor([[True, False, True, True], [True, True, True, True]])
    features = FeatureEncoder(4, 3, "shared")(drop(image(), present), present)
    assert not features.isnan().any()
    assert features[0, 1].abs().max() == 0


@pytest.mark.parametrize("network", [RFNet, MMFormer, M2FTrans])
def test_encoders_take_as_many_channels_as_the_feature_encoder_has(network):
    network = network(width=4, crop=(32, 32, 32), feature_encoder="shared").eval()
    first = next(iter(network.encoders[0].parameters()))
    assert first.shape == (4, 4, 3, 3, 3)
    present = torch.tensor([[True, False, False, True]])
    x = drop(image(1, 32), present)
    with torch.no_grad():
        assert torch.equal(network(x), network.decode(network.encode(x), present))


def test_what_is_aligned_are_the_features_that_the_network_saw():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    x = image()
    output = FeatureAlignment(RandomSubsetFusion(network), network)(x)
    assert torch.equal(output.features, network.feature_encoder(x, output.present))
    assert bool(output.present.all())
    assert output.features.requires_grad


def test_alignment_teaches_the_feature_encoder_and_nothing_behind_it():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    loss = AlignedLoss(FusionLoss(), NAMES, anchor="adaptive")
    output = FeatureAlignment(RandomSubsetFusion(network), network)(image())
    loss.alignment(output.features, output.present).backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == {"feature_encoder.layers.0.weight", "feature_encoder.layers.0.bias"}


def test_alpha_0_gives_the_gradients_of_the_backbone_alone():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    x, label = image(), torch.randint(4, (2, 1, 16, 16, 16))
    found = []
    for align, settings in ((True, {"anchor": "adaptive", "alpha": 0.0}), (False, {"anchor": None})):
        network.zero_grad()
        torch.manual_seed(0)
        AlignedLoss(FusionLoss(), NAMES, **settings)(
            FeatureAlignment(RandomSubsetFusion(network), network, align)(x), label
        ).backward()
        found.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_under_passion_the_subjects_own_modalities_are_aligned():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    present = torch.tensor([[True, False, True, True], [False, True, True, False]])
    output = FeatureAlignment(SelfDistillation(network), network)(drop(image(), present))
    assert torch.equal(output.present, present)
    assert torch.equal(output.output.present, present)


def test_a_network_without_a_feature_encoder_cannot_be_aligned():
    network = RFNet(**SMALL)
    with pytest.raises(ValueError, match="RFNet has 0 feature encoders to align; expected one"):
        FeatureAlignment(RandomSubsetFusion(network), network)
    assert FeatureAlignment(RandomSubsetFusion(network), network, align=False)(image()).features is None


def test_features_are_kept_for_no_longer_than_a_step():
    """Validation runs hundreds of windows whose features nobody needs."""
    network = RFNet(**SMALL, feature_encoder="shared").train()
    step = FeatureAlignment(RandomSubsetFusion(network), network)
    step(image())
    assert not network.feature_encoder._forward_hooks
