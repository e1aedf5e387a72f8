import math

import numpy as np
import pytest
import torch
from networks.golden import arrays
from torch.distributions import Normal, kl_divergence

from common.baselines.hved import HVEDLoss, SoftmaxLoss, divergences
from common.networks.hved import Completed, HVEDOutput

GOLDEN = arrays("uhved_fusion")
TOLERANCE = 1e-4
PRESENT = torch.tensor([[True, True, False, True], [False, True, False, False], [True] * 4])
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
    assert prior[1].item() == pytest.approx(
        kl_divergence(product(posteriors[1], [1]), standard).mean().item(), rel=1e-5
    )


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
