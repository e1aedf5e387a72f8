"""PMKL and RobustSeg: what is forwarded and trained, and losses by hand; tests/networks has the authors' numbers."""

import math

import pytest
import torch

from common.baselines.plain import Plain
from common.baselines.pmkl import (
    PMKLLoss,
    PMKLOutput,
    PrivilegedDistillation,
    contrastive_loss,
    distillation_loss,
    load_teacher,
    require_teacher,
)
from common.baselines.robustseg import Disentanglement, RobustSegLoss, divergence, independent_subsets
from common.io.checkpoints import write_checkpoint
from common.io.facts import TrainingFacts
from common.losses import dice_ce
from common.losses.gated import SegmentationLoss
from common.modalities import drop
from common.networks.gated import GatedNetwork, GatedOutput
from common.networks.pmkl import PMKL
from common.networks.robustseg import RobustSeg, RobustSegOutput

CROP = (16, 16, 16)
SUBSETS = [(1,), (0, 3)]


def image(present=((True,) * 4,) * 2):
    present = torch.tensor(present)
    return drop(torch.randn(len(present), 4, *CROP, generator=torch.Generator().manual_seed(1)), present)


def label(samples=2):
    return torch.randint(4, (samples, 1, *CROP), generator=torch.Generator().manual_seed(2))


def method(subsets=SUBSETS, **kwargs):
    torch.manual_seed(0)
    return PrivilegedDistillation(PMKL(width=2, subsets=subsets, **kwargs), CROP)


def draws(method, wanted):
    """Make the method draw the same subset every time."""
    method.network.missing.draw_subset = lambda present: wanted
    return method


class TestPMKL:
    def test_the_student_drawn_and_its_heads_are_trained_and_nothing_else(self):
        step = draws(method(), (0, 3))
        before = {name: value.clone() for name, value in step.named_parameters()}
        optimizer = torch.optim.SGD(step.parameters(), lr=0.1, weight_decay=0.1)
        PMKLLoss()(step.train()(image()), label()).backward()
        trained = ("network.missing.networks.0_3.", "heads.networks.0_3.")
        for name, parameter in step.named_parameters():
            assert (parameter.grad is not None) == name.startswith(trained), name
        optimizer.step()
        changed = {name for name, value in step.named_parameters() if not torch.equal(value, before[name])}
        assert changed
        assert all(name.startswith(trained) for name in changed)
        assert {"student", "teacher"} <= {name.split(".")[3] for name in changed if name.startswith("heads")}

    def test_the_teacher_sees_all_and_the_student_its_subset(self):
        step, x, subset = draws(method(), (0, 3)), image(), torch.tensor([[True, False, False, True]] * 2)
        output = step.train()(x)
        assert not step.network.full.training
        assert step.network.missing.network_for((0, 3)).training
        with torch.no_grad():
            torch.testing.assert_close(output.teacher_logits, step.network.full(x))
            step.network.eval()
            torch.testing.assert_close(output.logits, step.network(drop(x, subset)))
        assert not output.teacher_logits.requires_grad
        assert output.logits.requires_grad
        assert output.teacher_embedding.requires_grad  # by its metric head
        assert output.embedding.shape == output.teacher_embedding.shape == (2, 16)

    def test_kernels_of_the_students_step_decay(self):
        step = draws(method(), (1,))
        step.train()(image()).l2_penalty.backward()
        for name, parameter in step.named_parameters():
            used = name.startswith(("network.missing.networks.1.", "heads.networks.1.")) and parameter.ndim > 1
            assert (parameter.grad is not None) == used, name
            if used:
                torch.testing.assert_close(parameter.grad, parameter)

    def test_students_are_drawn_from_what_all_subjects_have(self):
        step, seen = method().train(), []
        for name, student in step.network.missing.networks.items():
            student.register_forward_hook(lambda *_, name=name: seen.append(name))
        for _ in range(12):
            step(image())
        assert set(seen) == {"1", "0_3"}
        seen.clear()
        for _ in range(6):
            step(image([[True, False, True, True], [True, False, False, True]]))
        assert set(seen) == {"0_3"}
        with pytest.raises(ValueError, match=r"have channels \[2\]"):
            step(image([[False, False, True, True], [True, True, True, False]]))

    def test_a_teacher_trained_in_the_same_process_is_frozen_with_nothing_left_of_its_gradients(self, tmp_path):
        step = draws(method(), (1,))
        teacher = step.network.full
        SegmentationLoss()(Plain(teacher)(image()), label()).backward()  # the method is there before its teacher is
        assert teacher.head.weight.grad.abs().max() > 0
        write_checkpoint(teacher.state_dict(), tmp_path / "teacher.pt")
        load_teacher(step.network, str(tmp_path / "teacher.pt"), "phantom")
        PMKLLoss()(step.train()(image()), label()).backward()
        assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())

    @pytest.mark.parametrize("kind", ["shared", "separate"])
    def test_students_start_from_the_teachers_feature_encoder_and_go_their_own_way(self, kind, tmp_path):
        torch.manual_seed(0)
        write_checkpoint(GatedNetwork(width=2, feature_encoder=kind).state_dict(), tmp_path / "teacher.pt")
        step = draws(method(feature_encoder=kind), (0, 3))
        load_teacher(step.network, str(tmp_path / "teacher.pt"), "phantom")
        x, ours = image(), step.network.full.feature_encoder
        for subset in SUBSETS:
            theirs = step.network.missing.network_for(subset).feature_encoder
            there = torch.ones(2, 4, dtype=torch.bool)
            found = theirs(x[:, list(subset)], there[:, : len(subset)])
            assert torch.equal(found, ours(x, there)[:, list(subset)])
        before = [parameter.clone() for parameter in ours.parameters()]
        PMKLLoss()(step.train()(x), label()).backward()
        student = step.network.missing.network_for((0, 3))
        assert all(p.grad.abs().max() > 0 for p in student.feature_encoder.parameters())
        assert all(p.grad is None and torch.equal(p, b) for p, b in zip(ours.parameters(), before, strict=True))

    def test_a_teacher_that_does_not_fit_is_refused(self, tmp_path):
        network, path = PMKL(width=2, subsets=SUBSETS), tmp_path / "teacher.pt"
        others = [GatedNetwork(width=4), GatedNetwork(modalities=3, width=2), GatedNetwork(classes=3, width=2)]
        for other in (*others, GatedNetwork(width=2, feature_encoder="shared")):
            write_checkpoint(other.state_dict(), path)
            with pytest.raises(ValueError, match=r"teacher.pt: a checkpoint of another architecture than GatedNetwork"):
                load_teacher(network, str(path), "phantom")

    def test_a_teacher_of_another_cohort_is_refused(self, tmp_path):
        path = tmp_path / "teacher.pt"
        require_teacher(None, "brats2018")
        write_checkpoint(GatedNetwork(width=2).state_dict(), path)
        require_teacher(path, "brats2018")
        facts = TrainingFacts(method="PMKL", bundle="medmap", settings={"cohort": "phantom"})
        write_checkpoint(GatedNetwork(width=2).state_dict(), path, facts)
        require_teacher(path, "phantom")
        with pytest.raises(ValueError, match="a teacher trained on phantom; expected one trained on brats"):
            load_teacher(PMKL(width=2), str(path), "brats2018")


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
        assert (loss.terms["ce"].item(), loss.terms["dice"].item()) == pytest.approx((entropy, dice))
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
        wrong = -100 - teacher.square() * torch.tensor([1.0, 0])[:, None, None, None]
        loss = distillation_loss(student, wrong, label, 1.0)
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
        assert contrastive_loss(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), 1.0).item() == pytest.approx(2)

    def test_the_total_weighs_its_terms(self):
        output, label = student_step()
        loss = PMKLLoss()
        total, terms = loss(output, label), {name: value.item() for name, value in loss.terms.items()}
        assert list(terms) == ["ce", "dice", "kd", "contrastive", "l2"]
        taught = 0.5 * terms["kd"] + 0.5 * terms["contrastive"]
        assert total.item() == pytest.approx(terms["ce"] + terms["dice"] + taught + 7e-5)
        other = PMKLLoss(kd_weight=2.0, contrastive_weight=0.0, l2_weight=1.0)(output, label).item()
        assert other == pytest.approx(terms["ce"] + terms["dice"] + 2 * terms["kd"] + 7, rel=1e-5)

    def test_the_label_is_read_from_the_device_once(self, monkeypatch):
        reads, to_host = [], dice_ce.to_host
        monkeypatch.setattr(dice_ce, "to_host", lambda x: reads.append(x) or to_host(x))
        PMKLLoss()(*student_step())
        assert len(reads) == 1


class TestRobustSeg:
    def test_modalities_stay_independently_and_one_always_does(self):
        present = torch.ones(64_000, 4, dtype=torch.bool)
        torch.manual_seed(0)
        codes = (independent_subsets(present, 0.5) * torch.tensor([1, 2, 4, 8])).sum(dim=1)
        found = codes.bincount(minlength=16) / len(codes)
        expected = torch.tensor([1 / 16 + (bin(code).count("1") == 1) / 64 if code else 0.0 for code in range(16)])
        assert found[0] == 0
        statistic = (len(codes) * (found - expected).square()[1:] / expected[1:]).sum()
        assert statistic < 36.1  # chi-square with 14 degrees of freedom, p = 0.001

    def test_only_modalities_that_are_there_are_kept(self):
        present = torch.tensor([[False, True, False, True], [False, False, True, False]]).repeat(200, 1)
        kept = independent_subsets(present, 0.5)
        assert kept.any(dim=1).all()
        assert not (kept & ~present).any()
        assert len(kept[::2].unique(dim=0)) == 3
        assert torch.equal(independent_subsets(present, 1.0), present)

    def test_dropped_modalities_are_reconstructed_but_not_encoded(self):
        torch.manual_seed(0)
        step, seen = Disentanglement(RobustSeg(width=2), keep=0.0), []
        for m, encoder in enumerate(step.network.encoders):
            encoder.register_forward_hook(lambda *_, m=m: seen.append(m))
        output = step(image([[True, True, False, True]]))
        assert (len(seen), output.reconstruction.shape) == (1, (3, *CROP))
        assert output.there.tolist() == [[True, True, False, True]]

    def test_a_step_trains_every_part(self):
        torch.manual_seed(0)
        step = Disentanglement(RobustSeg(width=2), keep=1.0)
        RobustSegLoss()(step(image()), label()).backward()
        for name, parameter in step.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name

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
        assert (terms["kl"], terms["l2"]) == (pytest.approx((1 / 2 + 9 / 2) / 2 + 4 / 2), 11)
        expected = terms["ce"] + terms["dice"] + 11e-4 + 0.1 * terms["l1"] + 0.1 * terms["kl"]
        assert total.item() == pytest.approx(expected)
        other = RobustSegLoss(l2_weight=1.0, l1_weight=0.0, kl_weight=2.0)(output, label).item()
        assert other == pytest.approx(terms["ce"] + terms["dice"] + 11 + 2 * terms["kl"])
