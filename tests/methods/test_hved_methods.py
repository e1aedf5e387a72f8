"""What U-HVED and U-HeMIS encode and fuse in training."""

from collections import Counter

import pytest
import torch

from common.baselines.hved import HVEDLoss, JointCompletion, SoftmaxLoss
from common.baselines.plain import RandomSubset
from common.modalities import drop
from common.networks.hved import UHVED, Completed, UHeMIS

CROP = (16, 16, 16)
PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])


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


def test_u_hved_encodes_what_the_subject_has_and_fuses_a_part_of_it():
    recorder = Recorder()
    for _ in range(20):
        output = JointCompletion(recorder)(image())
        assert torch.equal(output.present, PRESENT)
        assert output.chosen is recorder.fused[-1]
        assert not bool((output.chosen & ~PRESENT).any())
        assert bool(output.chosen.any(dim=1).all())
    assert all(torch.equal(present, PRESENT) for present in recorder.encoded)


def test_u_hemis_encodes_only_what_it_fuses():
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
    present = torch.tensor([[True, False, True, False]])
    logits = RandomSubset(network)(image(present))
    SoftmaxLoss()(logits, torch.randint(3, (1, 1, *CROP))).backward()
    for m, encoder in enumerate(network.encoders):
        learnt = [p.grad is not None for p in encoder.parameters()]
        assert not any(learnt) or (m in (0, 2) and all(learnt))
    assert all(p.grad.isfinite().all() for p in network.segmentation.parameters())


@pytest.mark.parametrize("method", [JointCompletion, RandomSubset])
def test_a_subject_without_any_modality_is_refused(method):
    with pytest.raises(ValueError, match="no modality present"):
        method(Recorder())(torch.full((1, 4, 1, 1, 1), torch.nan))
