"""MedMAP around other methods: what is aligned, what is refused, and the alignment's numbers worked out by hand."""

import math
from itertools import product

import pytest
import torch
from draws import follow
from papers.test_passion_training import fused_subsets
from torch import nn

from common.baselines.cotraining import CoTraining
from common.losses.fusion import FusionLoss
from common.modalities import drop
from common.networks import ACN, M2FTrans, MMFormer, RFNet
from common.networks.feature_encoder import FeatureEncoder
from common.papers.gss import RandomSubsetFusion
from common.papers.medmap import AlignedLoss, AlignedOutput, Alignment, FeatureAlignment
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
    assert next(iter(network.encoders[0].parameters())).shape == (4, 4, 3, 3, 3)
    present = torch.tensor([[True, False, False, True]])
    x = drop(image(1, 32), present)
    with torch.no_grad():
        assert torch.equal(network(x), network.decode(network.encode(x), present))


def test_what_is_aligned_are_the_features_that_the_network_saw_kept_for_a_step():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    x = image()
    output = FeatureAlignment(RandomSubsetFusion(network), network)(x)
    assert torch.equal(output.features, network.feature_encoder(x, output.present))
    assert bool(output.present.all())
    assert output.features.requires_grad
    # validation runs hundreds of windows whose features nobody needs
    FeatureAlignment(RandomSubsetFusion(network), network)(image())
    assert not network.feature_encoder._forward_hooks


def test_alignment_teaches_the_feature_encoder_and_nothing_behind_it():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    loss = AlignedLoss(FusionLoss(), NAMES, anchor="adaptive")
    output = FeatureAlignment(RandomSubsetFusion(network), network)(image())
    loss.alignment(output.features, output.present).backward()
    with_gradient = {name for name, p in network.named_parameters() if p.grad is not None}
    assert with_gradient == {"feature_encoder.layers.0.weight", "feature_encoder.layers.0.bias"}


def test_every_subset_is_fused_as_often_while_all_are_aligned():
    torch.manual_seed(0)
    network = RFNet(width=4, crop=(16, 16), feature_encoder="shared").train()
    method, fused = FeatureAlignment(RandomSubsetFusion(network), network), fused_subsets(network)
    with torch.no_grad():
        for _ in range(50):
            assert method(torch.randn(12, 4, 16, 16)).present.all()
    drawn = [tuple(row) for present in fused for row in present.tolist()]
    assert follow(drawn, dict.fromkeys([s for s in product((False, True), repeat=4) if any(s)], 1 / 15))


def test_alignment_at_the_bottleneck_teaches_the_encoder_by_the_features_of_every_modality():
    network = ACN(width=8).train()
    output = FeatureAlignment(CoTraining(network), network, at="bottleneck")(image(1))
    output.features.retain_grad()
    Alignment(NAMES, "adaptive")(output.features, output.present).backward()  # FLAIR is the anchor at the start
    assert output.features.grad.abs().flatten(2).amax(dim=2).min() > 0
    taught = {name for name, parameter in network.named_parameters() if parameter.grad is not None}
    assert taught
    assert all(network.get_parameter(name).grad.abs().max() > 0 for name in taught)


def test_alpha_0_gives_the_gradients_of_the_backbone_alone():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    x, label = image(), torch.randint(4, (2, 1, 16, 16, 16))
    found = []
    for align, settings in ((True, {"anchor": "adaptive", "alpha": 0.0}), (False, {"anchor": None})):
        network.zero_grad()
        torch.manual_seed(0)
        output = FeatureAlignment(RandomSubsetFusion(network), network, align)(x)
        AlignedLoss(FusionLoss(), NAMES, **settings)(output, label).backward()
        found.append([p.grad.clone() for p in network.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


def test_under_passion_the_subjects_own_modalities_are_aligned():
    network = RFNet(**SMALL, feature_encoder="shared").train()
    present = torch.tensor([[True, False, True, True], [False, True, True, False]])
    output = FeatureAlignment(SelfDistillation(network), network)(drop(image(), present))
    assert torch.equal(output.present, present)
    assert torch.equal(output.output.present, present)


def test_without_alignment_a_network_needs_no_feature_encoder():
    network = RFNet(**SMALL)
    assert FeatureAlignment(RandomSubsetFusion(network), network, align=False)(image()).features is None


ALL = torch.ones(2, 4, dtype=torch.bool)


def constant(*values: float, batch: int = 2) -> torch.Tensor:
    """Return features ``(B, M, 3, 2, 2, 2)`` with one constant value in each modality."""
    return torch.tensor(values)[None, :, None, None, None, None].expand(batch, -1, 3, 2, 2, 2).clone()


def mixture(*weights: float) -> Alignment:
    """Return the learnt mixture at a later time of the training."""
    alignment = Alignment(NAMES, "adaptive")
    with torch.no_grad():
        alignment.weights.copy_(torch.tensor(weights))
    return alignment


@pytest.mark.parametrize("anchor", ["adaptive", "t1", "flair"])
def test_equal_features_are_aligned(anchor):
    assert Alignment(NAMES, anchor)(torch.randn(2, 1, 3, 4, 4, 4).expand(-1, 4, -1, -1, -1, -1), ALL) == 0


def test_distance_to_the_learnt_mixture():
    alignment = Alignment(NAMES, "adaptive")
    features = constant(1.0, 2.0, 4.0, 7.0)
    assert alignment.weights.tolist() == [0, 0, 0, 1]
    assert alignment(features, ALL) == Alignment(NAMES, "flair")(features, ALL)
    # 0.5 + 1 + 1 = 2.5, whatever the sum of the weights: (1.5^2 + 0.5^2 + 1.5^2 + 4.5^2) / 4
    assert mixture(0.5, 0.5, 0.25, 0.0)(features, ALL).item() == pytest.approx((2.25 + 0.25 + 2.25 + 20.25) / 4)


def test_mixture_of_those_present():
    present = torch.tensor([[True, False, True, False]])
    features = constant(1.0, 0.0, 4.0, 0.0, batch=1)
    anchor = 1.25 / 0.75 * (0.5 * 1 + 0.25 * 4)
    found = mixture(0.5, 0.5, 0.25, 0.0)(features, present)
    assert found.item() == pytest.approx(((1 - anchor) ** 2 + (4 - anchor) ** 2) / 2)
    # as at the start of a training when FLAIR is absent
    found = Alignment(NAMES, "adaptive")(constant(1.0, 9.0, 4.0, 9.0, batch=1), present)
    assert found.item() == pytest.approx(1.5**2)
    # weights can get any sign: 1 % and -0.99 % would be scaled by 10 000, and their gradient by 10^8
    present = torch.tensor([[True, True, False, False]])
    found = mixture(0.01, -0.0099, 0.0, 1.0)(constant(1.0, 4.0, 0.0, 0.0, batch=1), present)
    assert found.item() == pytest.approx(1.5**2)


@pytest.mark.parametrize(("weight", "expected"), [(0.11, (0 + 3**2) / 2), (0.09, 1.5**2)])
def test_weights_are_scaled_up_from_a_tenth_of_all_on(weight, expected):
    """Scaled, T1 is the anchor, 3 from T1c; less is not scaled, and the anchor is their mean."""
    features, present = constant(1.0, 4.0, 0.0, 0.0, batch=1), torch.tensor([[True, True, False, False]])
    assert mixture(weight, 0.0, 0.0, 1 - weight)(features, present).item() == pytest.approx(expected, rel=1e-5)


def test_constant_features_have_the_least_standard_deviation():
    expected = -math.log(1e-6) - 1 / 2
    assert Alignment(NAMES, "normal")(constant(0.0, 0.0, 0.0, 0.0), ALL).item() == pytest.approx(expected, rel=1e-5)


def test_alignment_keeps_its_precision_under_amp():
    loss = AlignedLoss(Constant(), NAMES)
    features = (1000 + torch.rand(2, 1, 3, 4, 4, 4)).expand(-1, 4, -1, -1, -1, -1)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss(AlignedOutput(torch.zeros(()), features, ALL), torch.zeros(()))
    assert loss.terms["align"] == 0


def test_sample_without_the_named_anchor_has_no_loss():
    present = torch.tensor([[True, True, True, True], [True, False, True, True]])
    whole = Alignment(NAMES, "t1c")(constant(1.0, 2.0, 4.0, 7.0, batch=1), ALL[:1])
    assert Alignment(NAMES, "t1c")(constant(1.0, 2.0, 4.0, 7.0), present) == whole / 2


def test_absent_modalities_have_no_say():
    features = torch.randn(2, 4, 3, 4, 4, 4)
    present = torch.tensor([[True, True, False, True], [True, True, True, True]])
    other = features.clone()
    other[0, 2] = 100
    for anchor in ("adaptive", "flair", "normal"):
        alignment = Alignment(NAMES, anchor)
        assert alignment(features, present) == alignment(other, present)


def test_weights_that_nearly_cancel_are_as_printed_unless_a_sequence_is_absent():
    alignment, features = mixture(0.5, -0.5, 0.02, 0.0), constant(1.0, 2.0, 4.0, 7.0, batch=1)
    anchor = 0.5 * 1 - 0.5 * 2 + 0.02 * 4  # eq. (13)
    expected = sum((value - anchor) ** 2 for value in (1, 2, 4, 7)) / 4
    assert alignment(features, ALL[:1]).item() == pytest.approx(expected, rel=1e-5)
    without = alignment(features, torch.tensor([[True, True, True, False]]))
    assert without.item() == pytest.approx(sum((value - 7 / 3) ** 2 for value in (1, 2, 4)) / 3, rel=1e-5)


def test_standardised_features_are_normal_already():
    features = torch.randn(2, 4, 3, 8, 8, 8)
    features = (features - features.mean((3, 4, 5), True)) / features.std((3, 4, 5), unbiased=False, keepdim=True)
    alignment = Alignment(NAMES, "normal")
    assert alignment(features, ALL).item() == pytest.approx(0, abs=1e-5)
    assert alignment(features + 3, ALL).item() == pytest.approx(3**2 / 2, rel=1e-4)
    assert alignment(2 * features, ALL).item() == pytest.approx(math.log(1 / 2) + (4 - 1) / 2, rel=1e-4)


def test_gradients_move_both_sides_of_the_mixture_but_not_a_named_anchor():
    features = torch.randn(1, 4, 3, 2, 2, 2, dtype=torch.double, requires_grad=True)
    Alignment(NAMES, "flair")(features, ALL[:1]).backward()
    assert features.grad[:, 3].abs().max() == 0
    assert features.grad[:, 0].abs().min() > 0
    features.grad = None
    adaptive = Alignment(NAMES, "adaptive")
    adaptive(features, ALL[:1]).backward()
    assert adaptive.weights.grad.abs().min() > 0


@pytest.mark.parametrize("present", [ALL, torch.tensor([[True, False, True, True], [True, True, True, False]])])
def test_gradient_of_the_weights_is_that_of_finite_differences(present):
    alignment, features = mixture(0.3, -0.2, 0.4, 0.7), torch.randn(2, 4, 3, 2, 2, 2)
    alignment(features, present).backward()
    for m in range(4):
        with torch.no_grad():
            alignment.weights[m] += 1e-2
            high = alignment(features, present)
            alignment.weights[m] -= 2e-2
            low = alignment(features, present)
            alignment.weights[m] += 1e-2
        assert alignment.weights.grad[m].item() == pytest.approx((high - low).item() / 2e-2, rel=1e-2, abs=1e-3)


class Constant(nn.Module):
    """A constant loss of 3 with one term."""

    def __init__(self):
        super().__init__()
        self.terms = {"fuse": torch.tensor(3.0)}

    def forward(self, output, target):
        return output.sum() * 0 + 3.0


def test_alignment_is_added_with_its_weight():
    output = AlignedOutput(torch.zeros(1), constant(1.0, 2.0, 4.0, 7.0), ALL)
    loss = AlignedLoss(Constant(), NAMES, anchor="t1c")
    assert loss(output, torch.zeros(1)).item() == pytest.approx(3 + 0.125 * 7.5)
    assert {name: value.item() for name, value in loss.terms.items()} == pytest.approx({"fuse": 3, "align": 7.5})
    loss = AlignedLoss(Constant(), NAMES, anchor=None)
    assert loss(AlignedOutput(torch.zeros(1), None, None), torch.zeros(1)) == 3
    assert not loss.aligns
    assert not list(loss.parameters())


def test_features_of_another_cohort_are_refused():
    with pytest.raises(ValueError, match=r"Features of 3 modalities to align; expected 4 \(t1, t1c, t2, flair\)"):
        Alignment(NAMES)(torch.zeros(1, 3, 4, 2, 2, 2), ALL[:1, :3])
