"""MAG-MS's network, and the UNETRs that it is compared with."""

import pytest
import torch
from monai.networks import train_mode
from monai.networks.nets import UNETR

from common.modalities import drop
from common.networks.dedicated import channels_of
from common.networks.mag_ms import MAGMS
from common.networks.unetr import DedicatedUNETR, FilledUNETR

CROP = (32, 32, 32)
SIZES = {"width": 4, "hidden": 16, "mlp_dim": 16, "heads": 2}
TINY = {**SIZES, "crop": (16, 16, 16)}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
"""Tolerance: sums of floats depend on the size of the batch in which they are computed."""
MODALITIES = ("t1", "t1c", "t2", "flair")


def made(network=MAGMS, seed=0, **changes):
    torch.manual_seed(seed)
    return network(**{**TINY, **changes}).eval()


def image(present=(1, 1, 1, 1), size=TINY["crop"], samples=2):
    drawn = torch.randn(samples, len(present), *size, generator=torch.Generator().manual_seed(1))
    return drop(drawn, torch.tensor([present] * samples, dtype=torch.bool))


def only(m, modalities=4, samples=2):
    keep = torch.zeros(samples, modalities, dtype=torch.bool)
    keep[:, m] = True
    return keep


def as_unetr(network, unetr, modality):
    """Give a UNETR of one channel the weights of a modality's path, with identity as point-wise convolutions."""
    encoder = network.encoders[modality]
    parts = {
        "vit": encoder.vit,
        "encoder1": encoder.finest,
        **{f"encoder{number}": block for number, block in enumerate(encoder.others, start=2)},
        **{f"decoder{number}": block for number, block in enumerate(network.levels, start=2)},
    }
    for name, part in parts.items():
        getattr(unetr, name).load_state_dict(part.state_dict())
    unetr.out.conv.conv.load_state_dict(network.head.state_dict())
    for layer in network.projections[modality]:
        torch.nn.init.dirac_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    return unetr.eval()


class TestMAGMS:
    @pytest.mark.parametrize("size", [CROP, (32, 16, 48), (32, 16)])
    def test_each_modality_s_path_is_monai_s_unetr(self, size):
        network = made(crop=size, modalities=2)
        for m in range(2):
            unetr = UNETR(1, 4, size, 4, 16, 16, 2, spatial_dims=len(size))
            as_unetr(network, unetr, m)
            x = image((1, 1), size)
            with torch.no_grad():
                torch.testing.assert_close(network(x, only(m, 2)), unetr(x[:, [m]]), **CLOSE)

    def test_what_is_decoded_is_the_mean_over_those_present_at_each_level(self):
        network, x = made(), image()
        present = torch.tensor([[1, 0, 1, 1], [0, 0, 1, 0]], dtype=torch.bool)
        with torch.no_grad():
            features = network.encode(x)
            means = [torch.stack([level[0, [0, 2, 3]].mean(dim=0), level[1, 2]]).unsqueeze(1) for level in features]
            expected = network.decode(means, torch.ones(2, 1, dtype=torch.bool))
            torch.testing.assert_close(network.decode(features, present), expected, **CLOSE)

    def test_point_wise_convolutions_are_of_one_modality_and_level(self):
        network, x = made(), image()
        before = network.encode(x)
        with torch.no_grad():
            network.projections[1][3].bias += 1
        changed = [(after - level).abs().amax(dim=(0, 2, 3, 4, 5)) for after, level in zip(network.encode(x), before)]  # noqa: B905
        expected = torch.zeros(5, 4)
        expected[3, 1] = 1
        torch.testing.assert_close(torch.stack(changed), expected)

    def test_training_gives_the_fused_bottleneck_too(self):
        network, x = made(), image()
        with train_mode(network), torch.no_grad():
            output = network(x)
            features = network.encode(x)
        torch.testing.assert_close(output.bottleneck, features[-1].mean(dim=1))
        with torch.no_grad():
            torch.testing.assert_close(network(x), output.logits)  # no dropout, no batch statistics
        with pytest.raises(ValueError, match="no modality present"):
            network.decode(network.encode(x), torch.zeros(2, 4, dtype=torch.bool))


class TestFilledUNETR:
    def test_zero_and_mean_by_hand(self):
        x = torch.tensor([1.0, 5.0, 3.0]).reshape(1, 3, 1, 1, 1).expand(1, 3, 2, 2, 2).clone()
        x[:, 2, 0] = 11  # another value in half of the voxels
        x = drop(x, torch.tensor([[True, False, True]]))
        present = torch.tensor([[True, False, True]])
        assert made(FilledUNETR, modalities=3).filled(x, present)[0, 1].unique().tolist() == [0]
        mean = made(FilledUNETR, modalities=3, fill="mean").filled(x, present)
        assert (mean[0, 1, 0].unique().tolist(), mean[0, 1, 1].unique().tolist()) == ([6], [2])
        assert torch.equal(mean[0, [0, 2]], x[0, [0, 2]])

    @pytest.mark.parametrize("fill", ["zero", "mean"])
    def test_with_all_modalities_it_is_monai_s_unetr(self, fill):
        network, x = made(FilledUNETR, fill=fill), image()
        with torch.no_grad():
            assert torch.equal(network(x), network.unetr(x))


class TestDedicatedUNETR:
    def test_subsets_are_chosen_by_names(self):
        chosen = channels_of([["flair"], ["t1ce", "T1"]], MODALITIES)
        assert chosen == [(3,), (0, 1)]
        assert channels_of(None, MODALITIES) is None
        assert set(made(DedicatedUNETR, subsets=chosen).dedicated.networks) == {"3", "0_1"}
        with pytest.raises(ValueError, match="not in this cohort"):
            channels_of([["lge"]], MODALITIES)
