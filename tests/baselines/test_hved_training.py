"""U-HVED and U-HeMIS: what is encoded and fused in training, and their losses."""

import math
from collections import Counter

import numpy as np
import pytest
import torch
from networks.golden import arrays
from torch.distributions import Normal, kl_divergence

from common.baselines.hved import HVEDLoss, JointCompletion, SoftmaxLoss, divergences
from common.baselines.plain import RandomSubset
from common.modalities import drop
from common.networks.hved import UHVED, Completed, HVEDOutput, UHeMIS

CROP = (16, 16, 16)
PRESENT = torch.tensor([[True, True, False, True], [False, True, False, False], [True] * 4])


def image(present=PRESENT):
    return drop(torch.randn(len(present), 4, *CROP, generator=torch.Generator().manual_seed(0)), present)


def made(network):
    torch.manual_seed(0)
    return network(4, 3, 2)


class Recorder(torch.nn.Module):
    """Records what it is asked to encode, decode or segment."""

    def __init__(self):
        super().__init__()
        self.encoded, self.fused = [], []

    def encode(self, image, present):
        self.encoded.append(present)
        return []

    def decode(self, features, present):
        self.fused.append(present)
        return Completed(present, present)

    def forward(self, image, present):
        self.decode(self.encode(image, present), present)


@pytest.mark.parametrize("method", [JointCompletion, RandomSubset])
def test_the_number_of_modalities_is_drawn_first_and_then_which(method):
    recorder, draws = Recorder(), 4000
    torch.manual_seed(0)
    method(recorder)(torch.zeros(draws, 4, 1, 1, 1))
    counts = Counter(map(tuple, recorder.fused[0].tolist()))
    assert len(counts) == 15
    for subset, count in counts.items():
        chance = {1: 1 / 16, 2: 1 / 24, 3: 1 / 16, 4: 1 / 4}[sum(subset)]
        assert abs(count - draws * chance) < 5 * (draws * chance * (1 - chance)) ** 0.5


def test_u_hved_encodes_what_the_subject_has_and_u_hemis_only_what_it_fuses():
    recorder = Recorder()
    for _ in range(20):
        output = JointCompletion(recorder)(image())
        assert torch.equal(output.present, PRESENT)
        assert output.chosen is recorder.fused[-1]
        assert not bool((output.chosen & ~PRESENT).any())
        assert bool(output.chosen.any(dim=1).all())
    assert all(torch.equal(present, PRESENT) for present in recorder.encoded)
    recorder = Recorder()
    for _ in range(20):
        RandomSubset(recorder)(image())
    assert all(one is other for one, other in zip(recorder.encoded, recorder.fused, strict=True))
    assert not any(bool((present & ~PRESENT).any()) for present in recorder.fused)


def test_a_step_of_u_hved_reaches_every_parameter_whatever_is_chosen():
    network, full = made(UHVED), torch.ones(1, 4, dtype=torch.bool)
    method, target = JointCompletion(network), torch.randint(3, (1, 1, *CROP))
    torch.manual_seed(2)
    output = method(image(full))
    assert not bool(output.chosen.all())
    HVEDLoss()(output, target).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() and p.grad.any() for p in network.parameters())


def test_a_step_of_u_hemis_leaves_the_others_encoders_alone():
    network = made(UHeMIS)
    logits = RandomSubset(network)(image(torch.tensor([[True, False, True, False]])))
    SoftmaxLoss()(logits, torch.randint(3, (1, 1, *CROP))).backward()
    for m, encoder in enumerate(network.encoders):
        learnt = [p.grad is not None for p in encoder.parameters()]
        assert not any(learnt) or (m in (0, 2) and all(learnt))
    assert all(p.grad.isfinite().all() for p in network.segmentation.parameters())


@pytest.mark.parametrize("method", [JointCompletion, RandomSubset])
def test_a_subject_without_any_modality_is_refused(method):
    with pytest.raises(ValueError, match="no modality present"):
        method(Recorder())(torch.full((1, 4, 1, 1, 1), torch.nan))


GOLDEN = arrays("uhved_fusion")
TOLERANCE = 1e-4
CHOSEN = torch.tensor([[True, False, False, True], [False, True, False, False], [False, True, True, False]])


def output(present=PRESENT, chosen=CHOSEN, levels=2, size=(4, 4, 4), classes=3):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=generator)

    batch, modalities = present.shape
    image = torch.where(present[:, :, None, None, None], draw(batch, modalities, *size), torch.nan)
    posteriors = [draw(batch, modalities, 4, *(s // 2**n for s in size)).requires_grad_() for n in range(levels)]
    completed = Completed(draw(batch, classes, *size), draw(batch, modalities, *size))
    return HVEDOutput(Completed(*(x.requires_grad_() for x in completed)), posteriors, image, present, chosen)


def label(batch=3, size=(4, 4, 4), classes=3):
    return torch.randint(classes, (batch, 1, *size), generator=torch.Generator().manual_seed(1))


def product(posteriors, chosen):
    """Return the fused Gaussian of one sample's posteriors ``(M, 2 C, ...)`` in double precision."""
    mean, log_variance = posteriors.double().chunk(2, dim=1)
    precision = 1 + sum((-log_variance[m]).exp() for m in chosen)
    return Normal(sum(mean[m] * (-log_variance[m]).exp() for m in chosen) / precision, precision**-0.5)


@pytest.mark.parametrize("case", range(len(GOLDEN["availability"])))
def test_divergences_are_the_authors(case):
    posteriors = torch.from_numpy(np.concatenate([GOLDEN["mu"], GOLDEN["logvar"]], axis=2)).transpose(0, 1)
    chosen = torch.from_numpy(GOLDEN["availability"][case] > 0)[None]
    between, prior = divergences(posteriors, torch.ones(1, 4, dtype=torch.bool), chosen)
    assert between.item() == pytest.approx(float(GOLDEN[f"case{case}/kl_between"]), rel=TOLERANCE)
    assert prior.item() == pytest.approx(float(GOLDEN[f"case{case}/kl_prior"]), rel=TOLERANCE)


def test_divergences_run_over_the_subsets_of_what_a_sample_has():
    posteriors = output().posteriors[0].detach()
    between, prior = divergences(posteriors, PRESENT, CHOSEN)
    first = [[0], [1], [3], [0, 1], [0, 3], [1, 3], [0, 1, 3]]
    fused = product(posteriors[0], [0, 3])
    expected = sum(kl_divergence(fused, product(posteriors[0], s)).mean() for s in first) / 6
    assert between[0].item() == pytest.approx(expected.item(), rel=1e-5)
    standard = Normal(torch.zeros(1), torch.ones(1))
    expected = sum(kl_divergence(product(posteriors[0], s), standard).mean() for s in first) / 7
    assert prior[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert between[1].item() == pytest.approx(0, abs=1e-6)
    expected = kl_divergence(product(posteriors[1], [1]), standard).mean()
    assert prior[1].item() == pytest.approx(expected.item(), rel=1e-5)


def test_cross_entropy_and_dice_by_hand():
    # probabilities of class 1 at two voxels: 3/4 where it is right, 1/2 where it is wrong
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])[None, :, None, None]
    target = torch.tensor([1, 0]).reshape(1, 1, 1, 1, 2)
    dice = [2 * 0.5 / (1 / 16 + 1 / 4 + 1), 2 * 0.75 / (9 / 16 + 1 / 4 + 1)]
    expected = -(math.log(0.75) + math.log(0.5)) / 2 + 1 - sum(dice) / 2
    loss = SoftmaxLoss()
    assert loss(logits, target).item() == pytest.approx(expected, rel=1e-4)
    assert loss.terms["segmentation"].item() == pytest.approx(expected, rel=1e-4)


def test_total_of_u_hved():
    out, target = output(), label()
    loss = HVEDLoss(kl_weight=0.3, reconstruction_weight=0.7)
    total = loss(out, target)
    levels = [divergences(level, PRESENT, CHOSEN) for level in out.posteriors]
    errors = [out.image[b, m] - out.completed.reconstructions[b, m] for b, m in PRESENT.nonzero().tolist()]
    expected = {
        "segmentation": SoftmaxLoss()(out.completed.logits, target).item(),
        "kl": (sum(between.mean() + prior.mean() for between, prior in levels) / 2).item(),
        "reconstruction": torch.stack(errors).square().mean().item(),
    }
    assert {name: value.item() for name, value in loss.terms.items()} == pytest.approx(expected, rel=1e-5)
    for found, kl, reconstruction in ((total, 0.3, 0.7), (HVEDLoss()(out, target), 0.1, 0.1)):  # the paper's weights
        weighted = expected["segmentation"] + kl * expected["kl"] + reconstruction * expected["reconstruction"]
        assert found.item() == pytest.approx(weighted, rel=1e-5)


def test_no_gradient_comes_from_absent_modalities():
    out = output()
    HVEDLoss()(out, label()).backward()
    for gradient in (out.completed.reconstructions.grad, *(level.grad for level in out.posteriors)):
        assert gradient.isfinite().all()
        assert not gradient[~PRESENT].any()
        # modalities that are present but not chosen learn too
        assert (gradient[PRESENT].flatten(1).abs().amax(dim=1) > 0).all()
