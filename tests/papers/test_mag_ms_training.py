"""What MAG-MS and the UNETRs for each subset forward in training."""

import math

import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceCELoss
from monai.networks import eval_mode

from common.baselines.dedicated import OneSubset
from common.modalities import drop
from common.networks.mag_ms import MAGMS, MagMSDecoded
from common.networks.unetr import DedicatedUNETR
from common.papers.mag_ms import MagMSLoss, MagMSOutput, MultiModalitySelfDistillation, divergence

CROP = (16, 16, 16)
SIZES = {"crop": CROP, "width": 4, "hidden": 16, "mlp_dim": 16, "heads": 2}
PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])


def made(network, **changes):
    torch.manual_seed(0)
    return network(**SIZES, **changes).train()


def image(present=PRESENT):
    torch.manual_seed(1)
    return drop(torch.randn(len(present), present.shape[1], *CROP), present)


class TestMultiModalitySelfDistillation:
    def test_the_teacher_is_the_network_on_what_a_subject_has(self):
        network, x = made(MAGMS), image()
        output = MultiModalitySelfDistillation(network)(x)
        assert torch.equal(output.present, PRESENT)
        for found, expected in zip(output.teacher, network(x), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)

    def test_a_student_is_the_network_s_inference_from_that_modality_alone(self):
        network, x = made(MAGMS), image()
        students = MultiModalitySelfDistillation(network)(x).students.logits
        pairs = PRESENT.nonzero().tolist()
        assert len(students) == len(pairs) == 8
        for student, (b, m) in zip(students, pairs, strict=True):
            alone = torch.zeros(1, 4, dtype=torch.bool)
            alone[0, m] = True
            with eval_mode(network), torch.no_grad():
                torch.testing.assert_close(student[None], network(drop(x[b : b + 1], alone)), rtol=1e-4, atol=1e-5)

    def test_every_modality_is_encoded_once_and_decoded_with_and_without_the_others(self):
        network, encoded, decoded = made(MAGMS), [], []
        for encoder in network.encoders:
            encoder.register_forward_hook(lambda module, inputs, output: encoded.append(len(inputs[0])))
        network.head.register_forward_hook(lambda module, inputs, output: decoded.append(len(output)))
        MultiModalitySelfDistillation(network)(image())
        assert encoded == [2, 2, 2, 2]  # the samples that have it
        assert sum(decoded) == 3 + 8

    def test_with_a_detached_teacher_distillation_still_trains_what_is_shared(self):
        network = made(MAGMS)
        output = MultiModalitySelfDistillation(network)(image())
        loss = MagMSLoss()
        loss(output, torch.zeros(3, 1, *CROP)).backward()
        assert min(loss.terms.values()) > 0
        named = {name: p for name, p in network.named_parameters() if "norm_cross_attn" not in name}  # MONAI's, unused
        assert [name for name, p in named.items() if p.grad is None or not p.grad.abs().max() > 0] == []


class TestOneSubset:
    def test_each_step_trains_one_network_that_all_samples_can_feed(self):
        network, present = made(DedicatedUNETR, modalities=3), torch.tensor([[1, 1, 0], [1, 1, 1]], dtype=torch.bool)
        method, x, trained = OneSubset(network), image(present), set()
        torch.manual_seed(2)
        for _ in range(20):
            network.zero_grad(set_to_none=True)
            logits = method(x)
            logits.sum().backward()
            (key,) = (k for k, one in network.dedicated.networks.items() if next(one.parameters()).grad is not None)
            channels = [int(m) for m in key.split("_")]
            torch.testing.assert_close(logits, network.dedicated.networks[key](x[:, channels]))
            trained.add(key)
        assert trained == {"0", "1", "0_1"}


def dice_ce(logits, label):
    """Return MONAI's loss of each sample separately."""
    loss = DiceCELoss(softmax=True, to_onehot_y=True)
    return torch.stack([loss(logits[b : b + 1], label[b : b + 1]) for b in range(len(logits))])


def output(present=((1, 1), (0, 1)), size=(2, 2, 2), classes=3, seed=0):
    generator = torch.Generator().manual_seed(seed)

    def decoded(n):
        draw = (torch.randn(n, c, *s, generator=generator) for c, s in ((classes, size), (5, (1, 1, 1))))
        return MagMSDecoded(*(x.requires_grad_() for x in draw))

    present = torch.tensor(present, dtype=torch.bool)
    return MagMSOutput(decoded(len(present)), decoded(int(present.sum())), present)


def label(samples=2, size=(2, 2, 2), classes=3):
    return torch.randint(classes, (samples, 1, *size), generator=torch.Generator().manual_seed(1))


UNLABELLED = torch.zeros(1, 1, 2, 1, 1)


def test_divergence_by_hand():
    # two voxels of two classes: the teacher says 0.8 and 0.5, the student 0.5 and 0.5
    teacher, student = (torch.tensor([[p, 0.5], [1 - p, 0.5]]).log()[None, :, :, None, None] for p in (0.8, 0.5))
    first = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert divergence(student, teacher, UNLABELLED).item() == pytest.approx(first / 2)
    back = 0.5 * math.log(0.5 / 0.8) + 0.5 * math.log(0.5 / 0.2)  # the other way round is another number
    assert divergence(teacher, student, UNLABELLED).item() == pytest.approx(back / 2)
    # at T = 2 odds of 16 : 1 become 4 : 1
    teacher = torch.tensor([16.0, 1.0]).log().reshape(1, 2, 1, 1, 1)
    student = torch.zeros(1, 2, 1, 1, 1)
    expected = 0.8 * math.log(0.8 / 0.5) + 0.2 * math.log(0.2 / 0.5)
    assert divergence(student, teacher, UNLABELLED[:, :, :1], 2.0).item() == pytest.approx(4 * expected)


def test_distance_is_a_mean_over_the_bottleneck_s_elements():
    logits = torch.zeros(1, 2, 1, 1, 1)
    teacher = MagMSDecoded(logits, torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1, 1))
    bottlenecks = torch.tensor([[1.0, 2, 6], [2, 3, 4]])[..., None, None, None]
    students = MagMSDecoded(logits.expand(2, -1, -1, -1, -1), bottlenecks)
    loss = MagMSLoss()
    loss(MagMSOutput(teacher, students, torch.ones(1, 2, dtype=torch.bool)), torch.zeros(1, 1, 1, 1, 1))
    assert loss.terms["l2"].item() == pytest.approx(9 / 3 + 3 / 3)  # of the two modalities, summed


def test_total_is_a_sum_over_modalities_of_means_over_the_samples_that_have_it():
    out, target = output(), label()
    each = dice_ce(out.students.logits, target[[0, 0, 1]])  # sample 0: both modalities; sample 1: the second
    kl = [divergence(out.students.logits[[i]], out.teacher.logits[[b]], target[[b]]) for i, b in enumerate((0, 0, 1))]
    l2 = [F.mse_loss(out.students.bottleneck[i], out.teacher.bottleneck[b]) for i, b in enumerate((0, 0, 1))]
    expected = {
        "fuse": dice_ce(out.teacher.logits, target).mean(),
        "single": each[0] + each[1:].mean(),
        "kl": kl[0] + (kl[1] + kl[2]) / 2,
        "l2": l2[0] + (l2[1] + l2[2]) / 2,
    }
    loss = MagMSLoss(lambda_kl=0.5, gamma=3.0)
    total = loss(out, target)
    torch.testing.assert_close(loss.terms, {name: value.detach() for name, value in expected.items()})
    weights = {"fuse": 1, "single": 1, "kl": 0.5, "l2": 3}
    torch.testing.assert_close(total, sum(weights[name] * value for name, value in expected.items()))


@pytest.mark.parametrize("detached", [True, False])
def test_a_detached_teacher_learns_from_the_labels_alone(detached):
    target, alone, distilled = label(), output(), output()
    MagMSLoss(lambda_kl=0, gamma=0)(alone, target).backward()
    MagMSLoss(detach_teacher=detached)(distilled, target).backward()
    assert torch.equal(alone.teacher.logits.grad, distilled.teacher.logits.grad) == detached
    assert (distilled.teacher.bottleneck.grad is None) == detached
    assert not torch.equal(alone.students.logits.grad, distilled.students.logits.grad)
    assert distilled.students.bottleneck.grad.abs().min() > 0
