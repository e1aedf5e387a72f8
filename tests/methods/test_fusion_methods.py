"""Which modalities PASSION and GSS encode, fuse and segment alone."""

import pytest
import torch
from bundles.small_unet import SmallUNet
from monai.networks import eval_mode

from common.modalities import drop
from common.networks import M2FTrans, MMFormer
from common.papers.gss import RandomSubsetFusion
from common.papers.passion import SelfDistillation

CROP = (8, 8, 8)
PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])


def network():
    torch.manual_seed(0)
    return SmallUNet(4, 4, 2, CROP)


def image(present=PRESENT):
    torch.manual_seed(1)
    return drop(torch.randn(len(present), 4, *CROP), present)


def fused_subsets(network):
    """Record the subset of each call of decode."""
    seen, decode = [], network.decode
    network.decode = lambda features, present: seen.append(present.clone()) or decode(features, present)
    return seen


def encoded(network):
    seen, encode = [], network.encode
    network.encode = lambda image, present=None: seen.append(present.clone()) or encode(image, present)
    return seen


class TestSelfDistillation:
    @pytest.mark.parametrize("distil", [True, False])
    def test_teacher_and_students_are_the_network_on_these_modalities(self, distil):
        net, x = network(), image()
        output = SelfDistillation(net, distil=distil)(x)
        assert torch.equal(output.present, PRESENT)
        expected = [net(x[b : b + 1], PRESENT[b : b + 1]).fused.logits for b in range(3)]
        torch.testing.assert_close(output.teacher.logits, torch.cat(expected))
        pairs = PRESENT.nonzero().tolist()
        assert len(output.students.logits) == len(output.separate) == len(pairs) == 8
        for row, (b, m) in enumerate(pairs):
            alone = torch.zeros(1, 4, dtype=torch.bool)
            alone[0, m] = True
            expected = net(x[b : b + 1], alone).fused
            torch.testing.assert_close(output.students.logits[row : row + 1], expected.logits)
            torch.testing.assert_close(output.students.deep[0][row : row + 1], expected.deep[0])
            torch.testing.assert_close(output.students.features[row : row + 1], expected.features)

    def test_students_get_a_gradient_only_where_they_are_taught(self):
        assert SelfDistillation(network())(image()).students.logits.requires_grad
        output = SelfDistillation(network(), distil=False)(image())
        assert not output.students.logits.requires_grad
        assert output.teacher.logits.requires_grad

    def test_dropped_modalities_are_neither_encoded_nor_taught(self):
        net, x = network(), image()
        seen = encoded(net)
        drawn = [SelfDistillation(net, drop_modalities=True)(x).present for _ in range(30)]
        for present, used in zip(drawn, seen, strict=True):
            assert torch.equal(present, used)
            assert not bool((present & ~PRESENT).any())
            assert bool(present.any(dim=1).all())
        assert len({tuple(present[2].tolist()) for present in drawn}) > 5

    def test_perfect_data_is_encoded_whole_and_fused_in_part(self):
        net, full = network(), torch.ones(2, 4, dtype=torch.bool)
        seen, fused = encoded(net), fused_subsets(net)
        for _ in range(10):
            output = SelfDistillation(net, perfect_data=True)(image(full))
            assert torch.equal(output.present, full)
            assert len(output.students.logits) == 8
        assert all(torch.equal(present, full) for present in seen)
        assert not all(torch.equal(present[:2], full) for present in fused)

    def test_nothing_can_be_dropped_from_perfect_data(self):
        with pytest.raises(ValueError, match="moddrop"):
            SelfDistillation(network(), drop_modalities=True, perfect_data=True)

    @pytest.mark.parametrize("backbone", [MMFormer, M2FTrans])
    def test_what_only_the_separate_decoder_reads_is_not_copied(self, backbone):
        net = backbone(4, 4, 2, (32, 32, 32), mlp_dim=8, heads=2, **({"embed_dim": 8} if backbone is MMFormer else {}))
        full = torch.ones(1, 4, dtype=torch.bool)
        features = net.encode(torch.randn(1, 4, 32, 32, 32), full)
        few = net.fused_features(features)
        assert len(few) == len(features) - 5
        with eval_mode(net), torch.no_grad():
            assert torch.equal(net.decode(features, full), net.decode(few, full))


class TestRandomSubsetFusion:
    def test_all_are_encoded_and_decoded_a_subset_is_fused(self):
        net, full = network(), torch.ones(2, 4, dtype=torch.bool)
        seen, fused = encoded(net), fused_subsets(net)
        method, x = RandomSubsetFusion(net), image(full)
        for _ in range(20):
            output = method(x)
            assert torch.equal(output.present, full)
            assert len(output.separate) == 8
        assert all(torch.equal(present, full) for present in seen)
        assert len({tuple(present[0].tolist()) for present in fused}) > 5

    def test_modalities_that_are_missing_are_not_fused(self):
        net = network()
        fused = fused_subsets(net)
        output = RandomSubsetFusion(net)(image())
        assert torch.equal(output.present, PRESENT)
        assert not bool((fused[0] & ~PRESENT).any())
