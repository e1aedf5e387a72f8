"""What MAG-MS and the UNETRs for each subset forward in training."""

import torch
from monai.networks import eval_mode

from common.baselines.dedicated import OneSubset
from common.modalities import drop
from common.networks.mag_ms import MAGMS
from common.networks.unetr import DedicatedUNETR
from common.papers.mag_ms import MagMSLoss, MultiModalitySelfDistillation

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
