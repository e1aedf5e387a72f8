import math

import numpy as np
import pytest
import torch
from networks.golden import arrays

from common.losses.dice_ce import dice_loss, probabilities, weighted_cross_entropy
from common.losses.fusion import FusionLoss
from common.networks.fusion import Decoded, FusionOutput
from common.networks.subsets import scatter_rows

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
    soft = probabilities(logits, (1, 3))
    assert soft[0, 1, 0].tolist() == pytest.approx([0.75, 0.5, 0.25])
    assert probabilities(logits, (1, 3), temperature=2)[0, 1, 0, 0].item() == pytest.approx(3**0.5 / (1 + 3**0.5))


def test_rows_go_to_the_modalities_that_are_present():
    present = torch.tensor([[True, False, True], [False, True, False]])
    table = scatter_rows(torch.tensor([1.0, 2.0, 3.0]), present)
    assert table.tolist() == [[1, 0, 2], [0, 3, 0]]


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
    assert {k: v.item() for k, v in loss.terms.items()} == pytest.approx(
        {"fuse": fuse, "separate": separate, "deep": deep}, rel=1e-5
    )
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
