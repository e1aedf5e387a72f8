import math

import numpy as np
import pytest
import torch
from networks.golden import M3AE_SEED, TOLERANCE, arrays, draw, relative_error, transpose

from common.modalities import IGNORED
from common.networks import SegmentationOutput
from common.papers.m3ae import DeeplySupervisedLoss, DiceBCELoss, FineTuningLoss, PretrainingLoss, Reconstruction

GOLDEN = arrays("m3ae")


def output(logits, deep, bottleneck):
    return SegmentationOutput(logits, deep, bottleneck)


def test_pretraining_loss_leaves_out_modalities_that_the_subject_lacks():
    image = torch.full((1, 2, 1, 1, 2), float("nan"))
    image[0, 0] = 0
    reconstruction = torch.tensor([1.0, 3.0, 0.0, 2.0]).reshape(1, 2, 1, 1, 2)
    loss = PretrainingLoss(gamma=0)
    assert loss(Reconstruction(reconstruction, image, torch.tensor([[True, False]]), image[:, :1] * 0)).item() == 5.0


def test_the_regulariser_is_the_mean_square_or_the_norm_of_what_differs_from_the_mean():
    x_sub = torch.tensor([5.0, 5.0, 5.0, 9.0]).reshape(1, 1, 1, 2, 2).requires_grad_()  # about the mean: -1, -1, -1, 3
    image = torch.zeros(1, 1, 1, 2, 2)
    there = torch.tensor([[True]])
    for kind, value, pull in (("mean_square", 3.0, 2 / 4), ("norm", 12**0.5, 12**-0.5)):
        loss = PretrainingLoss(gamma=2.0, regulariser=kind)
        total = loss(Reconstruction(image, image, there, x_sub))
        assert total.item() == pytest.approx(2 * value)
        (gradient,) = torch.autograd.grad(total, x_sub)
        assert gradient.flatten().tolist() == pytest.approx([2 * pull * d for d in (-1, -1, -1, 3)])
    with pytest.raises(ValueError, match="regulariser 'l2': expected one of 'mean_square', 'norm'"):
        PretrainingLoss(regulariser="l2")


def test_ignored_voxels_count_as_if_they_had_been_cut_off():
    """Also in the coarser heads, and in the distillation."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(4, 4, 4), (2, 2, 2)]
    full, half = (torch.randn(4, 3, *size, generator=generator).requires_grad_() for size in sizes)
    target = torch.randint(2, (2, 3, 4, 4, 4), generator=generator, dtype=torch.uint8)
    bottleneck = torch.zeros(4, 1, 1, 1, 1)
    loss = FineTuningLoss(lambda_distil=1.0)
    expected = loss(output(full[..., :2], [half[..., :1]], bottleneck), target[..., :2])
    target[..., 2:] = IGNORED
    found = loss(output(full, [half], bottleneck), target)
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    grads = torch.autograd.grad(found, [full, half])
    assert all((g[..., g.shape[-1] // 2 :] == 0).all() and (g != 0).any() for g in grads)


@pytest.fixture(scope="module")
def golden():
    logits = [transpose(draw(M3AE_SEED + 10 + i, (2, 3, 32, 32, 32))).flip(1) for i in range(3)]  # 1/4, 1/2, full
    label = GOLDEN["loss/label"]
    regions = np.stack([label > 0, (label == 1) | (label == 4), label == 4], axis=1)
    return logits, transpose(regions).float()


def test_segmentation_loss_gives_the_authors_numbers(golden):
    (quarter, half, full), target = golden
    each = [DiceBCELoss()(logits, target).item() for logits in (quarter, half, full)]
    assert each == pytest.approx(GOLDEN["loss/seg_each"].tolist(), rel=1e-5)
    dice = [DiceBCELoss(1, 0)(logits, target).item() for logits in (quarter, half, full)]
    assert dice == pytest.approx(GOLDEN["loss/dice_only"].tolist(), rel=1e-5)
    quarter = quarter.clone().requires_grad_()
    total = DeeplySupervisedLoss()(output(full, [quarter, half], None), target)
    total.backward()
    assert total.item() == pytest.approx(float(GOLDEN["loss/seg_sum"]), rel=1e-5)
    stride = int(GOLDEN["loss/grad_logits0/stride"])
    assert relative_error(transpose(quarter.grad.flip(1)), GOLDEN["loss/grad_logits0"], stride) <= TOLERANCE


def test_consistency_gives_the_authors_numbers(golden):
    (quarter, half, full), target = golden
    bottleneck = transpose(draw(M3AE_SEED + 20, (2, 128, 4, 4, 4)))
    views = output(full, [quarter, half], bottleneck)  # a subject whose two views are the golden batch
    for kind, key in (("bottleneck", "consistency_mse"), ("quarter_logits", "consistency_code_ds_quarter")):
        loss = FineTuningLoss(lambda_con=1, consistency=kind)
        loss(views, target[:1])
        assert loss.terms["consistency"].item() == pytest.approx(float(GOLDEN[f"loss/{key}"]), rel=1e-5)


def test_fine_tuning_loss_weighs_the_consistency_and_pools_the_views():
    torch.manual_seed(0)
    logits, target = torch.randn(2, 3, 4, 4, 4), (torch.rand(1, 3, 4, 4, 4) > 0.5).to(torch.uint8)
    views = output(logits, [logits, logits], torch.stack([torch.zeros(8, 1, 1, 1), torch.full((8, 1, 1, 1), 3.0)]))
    both = torch.cat([target, target]).float()
    pooled = 3 * DiceBCELoss()(logits, both)
    assert FineTuningLoss(0.1)(views, target).item() == pytest.approx(pooled.item() + 0.9, rel=1e-6)
    assert FineTuningLoss(0)(views, target).item() == pytest.approx(pooled.item(), rel=1e-6)


def test_views_of_several_subjects_are_paired_subject_by_subject():
    bottleneck = torch.tensor([1.0, 2.0, 1.0, 5.0]).reshape(4, 1, 1, 1, 1)  # views 0 of two subjects, then views 1
    logits = torch.zeros(4, 3, 4, 4, 4)
    loss = FineTuningLoss(1)
    loss(output(logits, [logits, logits], bottleneck), torch.zeros(2, 3, 4, 4, 4))
    assert loss.terms["consistency"].item() == pytest.approx((0 + 9) / 2)


def test_distillation_teaches_the_second_view_by_the_first_alone():
    logits = torch.zeros(2, 3, 4, 4, 4)
    logits[0], logits[1] = math.log(3), math.log(4)  # probabilities 0.75, and 0.8 in the second view
    logits.requires_grad_()
    views = output(logits, [logits.detach()] * 2, torch.zeros(2, 8, 1, 1, 1))
    target = torch.zeros(1, 3, 4, 4, 4)
    with_teacher, without = FineTuningLoss(lambda_distil=0.5), FineTuningLoss()
    difference = with_teacher(views, target) - without(views, target)
    expected = -(0.75 * math.log(0.8) + 0.25 * math.log(0.2))
    assert difference.item() == pytest.approx(0.5 * expected, rel=1e-5)
    assert with_teacher.terms["distillation"].item() == pytest.approx(expected, rel=1e-5)
    assert "distillation" not in without.terms
    first, second = torch.autograd.grad(difference, logits)[0]
    assert first.abs().max() < 1e-7
    assert second.min() > 1e-4
