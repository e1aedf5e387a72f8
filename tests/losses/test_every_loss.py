"""What holds for every loss on class indices, its parts in the authors' numbers, and the loss of fusion networks."""

import math
from inspect import signature

import numpy as np
import pytest
import torch
from baselines import test_hved_training as hved
from networks.golden import arrays
from papers import test_gss_training as gss
from papers import test_mag_ms_training as mag_ms
from papers import test_passion_training as passion
from torch.utils._pytree import tree_leaves

from common.baselines.hved import SoftmaxLoss
from common.losses.dice_ce import dice_loss, probabilities, weighted_cross_entropy
from common.losses.fusion import FusionLoss
from common.modalities import IGNORED
from common.networks.fusion import Decoded, FusionOutput
from common.papers.gss import GSSLoss
from common.papers.m3ae import DiceBCELoss, FineTuningLoss, Pretraining, PretrainingLoss
from common.papers.mag_ms import MagMSLoss
from common.papers.medmap import AlignedLoss
from common.papers.passion import PassionLoss

GOLDEN = arrays("passion_losses")


def given(key):
    return torch.from_numpy(GOLDEN[key])


def output(present, size=(4, 4), classes=3, deep=2, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def draw(n, *shape):
        return torch.randn(n, classes, *shape, generator=generator).requires_grad_()

    present = torch.tensor(present, dtype=torch.bool)
    fused = Decoded(draw(len(present), *size), [draw(len(present), *(s // 2 for s in size)) for _ in range(deep)], None)
    return FusionOutput(fused, draw(int(present.sum()), *size), present)


def label(samples, size=(4, 4), classes=3):
    return torch.randint(classes, (samples, 1, *size), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["all", "absent"])
def test_cross_entropy_and_dice_give_the_authors_numbers(kind):
    target = given(f"{kind}/labels").long()[:, None]
    full, half = (probabilities(given(key), (8, 8, 8)) for key in ("student_logits", "student_logits_half"))
    found = {
        "weighted_ce": weighted_cross_entropy(full, target).mean(),
        "weighted_ce_bs": weighted_cross_entropy(full, target)[:, None],
        "weighted_ce_bs_up2": weighted_cross_entropy(half, target)[:, None],
        "dice": dice_loss(full, target, batch=True),
        "dice_bs": dice_loss(full, target)[:, None],
        "dice_bs_up2": dice_loss(half, target)[:, None],
    }
    for name, value in found.items():
        np.testing.assert_allclose(value, GOLDEN[f"{kind}/{name}"], rtol=1e-5, atol=1e-6, err_msg=name)


def test_coarse_heads_are_upsampled_after_the_softmax_with_aligned_corners():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), -math.log(3)]])[None, :, None, :]  # two classes at 1 x 2
    assert probabilities(logits, (1, 3))[0, 1, 0].tolist() == pytest.approx([0.75, 0.5, 0.25])
    assert probabilities(logits, (1, 3), temperature=2)[0, 1, 0, 0].item() == pytest.approx(3**0.5 / (1 + 3**0.5))


@pytest.mark.parametrize("size", [(4, 4), (4, 4, 2)])
def test_fusion_loss_is_the_sum_over_all_heads(size):
    out, target = output([[True, True], [True, False]], size), label(2, size)
    loss = FusionLoss()
    total = loss(out, target)

    def single(logits, target):
        soft = probabilities(logits, size)
        return (weighted_cross_entropy(soft, target).mean() + dice_loss(soft, target, batch=True)).item()

    fuse, deep = single(out.fused.logits, target), sum(single(logits, target) for logits in out.fused.deep)
    # rows 0 and 2 are the first modality of both samples, row 1 is the second one of the first sample
    separate = single(out.separate[[0, 2]], target) + single(out.separate[[1]], target[:1])
    expected = {"fuse": fuse, "separate": separate, "deep": deep}
    assert {k: v.item() for k, v in loss.terms.items()} == pytest.approx(expected, rel=1e-5)
    assert total.item() == pytest.approx(fuse + separate + deep, rel=1e-5)


def test_a_modality_that_no_sample_has_adds_nothing():
    target = label(1)
    without, with_it = output([[True, False]]), output([[True]])
    assert FusionLoss()(without, target).item() == pytest.approx(FusionLoss()(with_it, target).item())


def test_gradients_reach_every_head():
    out = output([[True, True], [True, False]])
    FusionLoss()(out, label(2)).backward()
    for logits in (out.fused.logits, *out.fused.deep, out.separate):
        assert logits.grad.isfinite().all()
        assert logits.grad.abs().amax(dim=(1, 2, 3)).min() > 0


def test_the_fused_prediction_counts_from_its_first_epoch_on():
    out, target, whole, late = output([[True, True]]), label(1), FusionLoss(), FusionLoss(fusion_start_epoch=20)
    everything, found = whole(out, target), {}
    for epoch in (0, 19, 20):
        late.epoch = epoch
        found[epoch] = late(out, target).item()
    assert found[0] == found[19] == pytest.approx((everything - whole.terms["fuse"]).item())
    assert found[20] == everything.item()
    late.epoch = 19
    late(out, target).backward()
    assert out.fused.logits.grad.abs().max() == 0
    assert out.separate.grad.abs().max() > 0


PAPERS = {
    GSSLoss: {"task_weight": 0.7, "kd_weight": 0.3, "tau": 8, "leader_threshold": 0.65, "member_threshold": 0.75,
              "rho": 0.3, "alpha": 0.2},
    Pretraining: {"mask_ratio": 0.875, "patch_size": 16},
    PretrainingLoss: {"gamma": 0.005},
    DiceBCELoss: {"dice_weight": 0.7, "ce_weight": 0.3},
    FineTuningLoss: {"lambda_con": 0.1, "dice_weight": 0.7, "ce_weight": 0.3},
    MagMSLoss: {"lambda_kl": 1, "gamma": 1, "temperature": 1},
    AlignedLoss: {"alpha": 1 / 8, "prior": "flair", "anchor": "adaptive"},
    PassionLoss: {"lambda_1": 0.5, "lambda_2": 0.1, "temperature": 4, "gamma": 0.01, "growth": (0, 100, 200),
                  "growth_factor": 1.5, "beta_range": (0.1, 4.0)},
}  # fmt: skip
"""Class -> constants of its paper or of the code released with it."""


@pytest.mark.parametrize("part", PAPERS)
def test_defaults_are_those_of_the_paper(part):
    given = {name: each.default for name, each in signature(part).parameters.items()}
    assert {name: given[name] for name in PAPERS[part]} == PAPERS[part]


def parts_of(output, keep):
    """Return a training output whose maps are ``keep`` of those on the label's grid, without heads of coarser grids."""
    if isinstance(output, torch.Tensor):
        return keep(output) if output.ndim > 3 and max(output.shape[2:]) > 1 else output
    if not isinstance(output, tuple):
        return output
    parts = {name: [] if name == "deep" else parts_of(getattr(output, name), keep) for name in output._fields}
    return type(output)(**parts)


IGNORING = {
    "fusion": (FusionLoss, lambda: (output([[True, True], [True, False]]), label(2))),
    "GSS": (gss.loss, lambda: (gss.output(), gss.label())),
    "U-HeMIS": (SoftmaxLoss, lambda: (hved.output().completed.logits, hved.label())),
    "MAG-MS": (MagMSLoss, lambda: (mag_ms.output(), mag_ms.label())),
    "PASSION": (passion.passion, lambda: (passion.output(), passion.label())),
    "PMR": (lambda: passion.passion(training="pmr"), lambda: (passion.output(), passion.label())),
}
"""Name -> the loss, and a function that returns random outputs and their label."""


@pytest.mark.parametrize("name", IGNORING)
def test_ignored_voxels_count_as_if_they_had_been_cut_off(name):
    """No loss, no gradient, no share in any mean: the terms are those of the volume without its last plane."""
    make, example = IGNORING[name]
    output, label = example()
    expected, found = make(), make()
    small = expected(parts_of(output, lambda x: x[..., :-1]), label[..., :-1])
    label[..., -1] = IGNORED
    whole = parts_of(output, lambda x: x.detach().requires_grad_())
    total = found(whole, label)
    assert total.item() == pytest.approx(small.item(), rel=1e-5)
    terms = [{name: value.item() for name, value in loss.terms.items()} for loss in (found, expected)]
    assert terms[0] == pytest.approx(terms[1], rel=1e-5)
    total.backward()
    maps = [x for x in tree_leaves(whole) if isinstance(x, torch.Tensor) and x.grad is not None and x.shape[-1] > 1]
    assert maps
    assert all((x.grad[..., -1] == 0).all() and (x.grad != 0).any() for x in maps)
