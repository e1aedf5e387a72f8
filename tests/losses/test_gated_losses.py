"""The losses of PMKL and RobustSeg, worked out by hand; the tests of the networks compare the authors' numbers."""

import math

import pytest
import torch

from common.baselines.pmkl import PMKLLoss, PMKLOutput, contrastive_loss, distillation_loss
from common.baselines.robustseg import RobustSegLoss, divergence
from common.losses import parts
from common.losses.gated import SegmentationLoss
from common.networks.gated import GatedOutput
from common.networks.robustseg import RobustSegOutput


def two_samples():
    """Return logits of two classes for two samples of 2 x 1 x 1 voxels, and the label."""
    first = torch.tensor([[0.9, 0.8], [0.4, 0.001]])
    logits = torch.stack([first, 1 - first], dim=1).log()[..., None, None]
    return logits, torch.tensor([[0, 0], [1, 0]])[:, None, :, None, None]


def student_step(seed=0):
    """Return random outputs of a student's step on two subjects, and their label."""
    generator = torch.Generator().manual_seed(seed)
    logits, taught = (torch.randn(2, 3, 4, 4, 4, generator=generator) for _ in range(2))
    ours, theirs = (torch.randn(2, 5, generator=generator) for _ in range(2))
    label = torch.randint(3, (2, 1, 4, 4, 4), generator=generator)
    return PMKLOutput(logits.requires_grad_(), taught, ours.requires_grad_(), theirs, torch.tensor(7.0)), label


def reconstructed(there, error, scale, shift):
    """Return outputs of RobustSeg whose reconstructions are wrong by ``error``, a number for each row."""
    logits, label = two_samples()
    there = torch.tensor(there)
    image = torch.zeros(int(there.sum()), 2, 1, 1)
    reconstruction = image + torch.tensor(error)[:, None, None, None]
    scale, shift = (torch.tensor(values)[:, None].requires_grad_() for values in (scale, shift))
    return RobustSegOutput(logits, image, reconstruction, scale, shift, there, torch.tensor(11.0)), label


class TestSegmentation:
    def test_classes_weigh_by_their_share_in_the_batch(self):
        # class 0 has 3 of the batch's 4 voxels and weighs 1/4, class 1 weighs 3/4; 0.001 counts as 0.005
        loss, (logits, label) = SegmentationLoss(), two_samples()
        total = loss(GatedOutput(logits, None), label)
        entropy = -(0.25 * (math.log(0.9) + math.log(0.8) + math.log(0.005)) + 0.75 * math.log(0.6)) / 4
        squares = 0.81 + 0.64 + 0.16 + 1e-6, 0.01 + 0.04 + 0.36 + 0.998001
        dice = 1 - (2 * 1.701 / (squares[0] + 3) + 2 * 0.6 / (squares[1] + 1)) / 2
        assert {name: value.item() for name, value in loss.terms.items()} == pytest.approx(
            {"ce": entropy, "dice": dice}
        )
        assert total.item() == pytest.approx(entropy + dice)


class TestDistillation:
    TEACHER = torch.tensor([[2.0, 0.0], [0.0, 2.0], [1.0, 0.0], [3.0, 0.0]])
    STUDENT = torch.tensor([[0.0, 0.0], [0.0, 0.0], [2.0, 0.0], [-1.0, 0.0]])
    """All voxels are of class 0. The teacher is wrong in the second, and the student better in the third."""

    def given(self):
        teacher, student = (x.T[None, :, :, None, None].clone() for x in (self.TEACHER, self.STUDENT))
        return student.requires_grad_(), teacher.requires_grad_(), torch.zeros(1, 1, 4, 1, 1, dtype=torch.long)

    def test_by_hand_with_its_gradient(self):
        student, teacher, label = self.given()
        weights = [math.log(2) - math.log(1 + math.exp(-2)), math.log(1 + math.e) - math.log(1 + math.exp(-3))]
        taught = [1 / (1 + math.exp(-0.2)), 1 / (1 + math.exp(-0.3))]
        learnt = [0.5, 1 / (1 + math.exp(0.1))]
        each = [-q * math.log(r) - (1 - q) * math.log(1 - r) for q, r in zip(taught, learnt, strict=True)]
        loss = distillation_loss(student, teacher, label, 10.0)
        expected = (weights[0] * each[0] + weights[1] * each[1]) / sum(weights)
        assert loss.item() == pytest.approx(expected, rel=1e-5)
        loss.backward()
        assert teacher.grad is None
        slopes = [w / sum(weights) * (r - q) / 10 for w, q, r in zip(weights, taught, learnt, strict=True)]
        assert student.grad[0, 0, :, 0, 0].tolist() == pytest.approx([slopes[0], 0, 0, slopes[1]], rel=1e-4)

    def test_a_teacher_that_is_never_right_teaches_nothing(self):
        student, teacher, label = self.given()
        loss = distillation_loss(student, teacher, 1 - label.clamp(max=0), 10.0)  # class 1 is right only in the second
        assert loss.item() == pytest.approx(-(math.log(0.5)), rel=1e-5)
        loss = distillation_loss(
            student, -100 - teacher.square() * torch.tensor([1.0, 0])[:, None, None, None], label, 1.0
        )
        loss.backward()
        assert loss.item() == 0
        assert not student.grad.any()

    def test_pairs_of_embeddings_by_hand(self):
        ours = torch.tensor([[1.0, 0.0], [0.0, 1.0]], requires_grad=True)
        theirs = torch.tensor([[0.6, 0.8], [0.0, 1.0]], requires_grad=True)
        # own: 0.8 and 0; others: sqrt(2) > 1 adds nothing, sqrt(0.4) adds (1 - sqrt(0.4))^2
        loss = contrastive_loss(ours, theirs, 1.0)
        assert loss.item() == pytest.approx((0.8 + (1 - 0.4**0.5) ** 2) / 4)
        loss.backward()
        assert ours.grad.isfinite().all()
        # subject 0 is drawn to its own alone: 2 (u - v) / 4
        assert ours.grad[0].tolist() == pytest.approx([0.2, -0.4])
        assert theirs.grad.abs().max() > 0

    def test_a_batch_of_one_has_its_own_pair_alone(self):
        assert contrastive_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 1.0).item() == pytest.approx(2)

    def test_the_total_weighs_its_terms(self):
        output, label = student_step()
        loss = PMKLLoss()
        total, terms = loss(output, label), {name: value.item() for name, value in loss.terms.items()}
        assert list(terms) == ["ce", "dice", "kd", "contrastive", "l2"]
        assert total.item() == pytest.approx(
            terms["ce"] + terms["dice"] + 0.5 * terms["kd"] + 0.5 * terms["contrastive"] + 7e-5
        )
        other = PMKLLoss(kd_weight=2.0, contrastive_weight=0.0, l2_weight=1.0)(output, label).item()
        assert other == pytest.approx(terms["ce"] + terms["dice"] + 2 * terms["kd"] + 7, rel=1e-5)

    def test_the_label_is_read_from_the_device_once(self, monkeypatch):
        reads, to_host = [], parts.to_host
        monkeypatch.setattr(parts, "to_host", lambda x: reads.append(x) or to_host(x))
        PMKLLoss()(*student_step())
        assert len(reads) == 1


class TestRobustSeg:
    def test_a_shift_of_zero_is_finite(self):
        shift = torch.zeros(1, 3, requires_grad=True)
        divergence(torch.zeros(1, 3), shift).sum().backward()
        assert shift.grad.isfinite().all()

    def test_terms_are_means_over_those_that_have_a_modality_and_sums_over_modalities(self):
        there = [[True, True, False], [True, False, False]]
        output, label = reconstructed(there, [1.0, 4.0, -3.0], [1.0, 2.0, 3.0], [1.0, 1.0, 1.0])
        loss = RobustSegLoss()
        total, terms = loss(output, label), {name: value.item() for name, value in loss.terms.items()}
        assert terms["l1"] == pytest.approx((1 + 3) / 2 + 4)
        assert terms["kl"] == pytest.approx((1 / 2 + 9 / 2) / 2 + 4 / 2)
        assert terms["l2"] == 11
        expected = terms["ce"] + terms["dice"] + 11e-4 + 0.1 * terms["l1"] + 0.1 * terms["kl"]
        assert total.item() == pytest.approx(expected)
        other = RobustSegLoss(l2_weight=1.0, l1_weight=0.0, kl_weight=2.0)(output, label).item()
        assert other == pytest.approx(terms["ce"] + terms["dice"] + 11 + 2 * terms["kl"])
