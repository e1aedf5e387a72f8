"""U-HVED and U-HeMIS: the authors' fusion, the layout of their checkpoints, and properties that hold for any subset."""

import math

import pytest
import torch
from monai.data import MetaTensor
from monai.networks import eval_mode, train_mode
from networks.golden import TOLERANCE, arrays, published_shapes, relative_error, without

from common.networks.hved import UHVED, UHeMIS, mean_and_variance, product_of_gaussians

GOLDEN = arrays("uhved_fusion")
NAMES = ("T1", "T1c", "T2", "Flair")
CROP = (16, 16, 16)
CASES = range(len(GOLDEN["availability"]))
MIXED = torch.tensor([[True, False, True, True], [False, True, False, False], [True, True, True, True]])


def made():
    torch.manual_seed(0)
    return UHVED(4, 3, 2)


def image(batch=1):
    return torch.randn(batch, 4, *CROP, generator=torch.Generator().manual_seed(1))


def golden_features(*names):
    """Return golden arrays of all modalities, ``(1, 4, C, ...)`` each, concatenated along the channels."""
    return torch.cat([torch.from_numpy(GOLDEN[name]).transpose(0, 1) for name in names], dim=2)


def available(case):
    return torch.from_numpy(GOLDEN["availability"][case] > 0)[None]


def published(name):
    """Return key -> shape of a released checkpoint, with convolutions in PyTorch's layout."""
    shapes = published_shapes(name)
    return {key: (*shape[:2:-1], *shape[:3]) if len(shape) == 5 else shape for key, shape in shapes.items()}


def authors_key(key):
    """Return the released name of one of our parameters."""
    part, *rest = key.split(".")
    number = rest.pop(0) if part != "segmentation" else None
    name = "seg" if number is None else NAMES[int(number)]
    if rest[0] == "entry":
        return f"VAE/ConvEncoder/conv_0_{name}_leakyrelu/conv_/w"
    if rest[0] == "head":
        return f"VAE/ConvDecoderImg/final_conv_seg/{number}"
    level, layer = int(rest[1]), int(rest[2])
    folder = f"ConvEncoder/block_{level + 1}" if part == "encoders" else f"ConvDecoderImg/block_{3 - level}"
    kinds = {"weight": "gamma", "bias": "beta"}
    end = f"conv_{layer // 3}/w" if layer % 3 == 2 else f"in_{layer // 3}/InstanceNorm/{kinds[rest[3]]}"
    return f"VAE/{folder}_{name}/{end}"


class TestPublished:
    @pytest.mark.parametrize("case", CASES)
    def test_product_of_gaussians_is_the_authors(self, case):
        mean, log_variance = product_of_gaussians(golden_features("mu", "logvar"), available(case)[:, None])
        assert relative_error(mean[:, 0], GOLDEN[f"case{case}/posterior_mean"]) <= TOLERANCE
        assert relative_error(log_variance[:, 0], GOLDEN[f"case{case}/posterior_logvar"]) <= TOLERANCE

    @pytest.mark.parametrize("case", CASES)
    def test_mean_and_variance_are_the_authors(self, case):
        found = mean_and_variance(golden_features("mu"), available(case))
        assert relative_error(found, GOLDEN[f"case{case}/hemis"]) <= TOLERANCE

    @pytest.mark.parametrize(("network", "name"), [(UHVED, "uhved"), (UHeMIS, "uhemis")])
    def test_every_parameter_has_its_counterpart_in_the_checkpoint(self, network, name):
        ours = {authors_key(key): tuple(p.shape) for key, p in network().named_parameters()}
        theirs = published(name)
        # heads are numbered in the order of the decoders, the segmentation's last
        images = {f"VAE/ConvDecoderImg/final_conv_seg/{n}": f"_{n}" if n else "" for n in range(4)}
        last = "_4" if network is UHVED else ""
        heads = {**images, "VAE/ConvDecoderImg/final_conv_seg/None": last}
        ours = {
            f"VAE/ConvDecoderImg/final_conv_seg{heads[key]}/conv_/w" if key in heads else key: shape
            for key, shape in ours.items()
        }
        assert ours == theirs


class TestFusion:
    def test_log_variances_are_clipped(self):
        features = torch.tensor([[3.0, 1000.0], [3.0, -1000.0]]).reshape(2, 1, 2, 1).requires_grad_()
        mean, log_variance = product_of_gaussians(features, torch.ones(2, 1, 1, dtype=torch.bool))
        assert mean.flatten().tolist() == pytest.approx([0.0, 3.0])
        assert log_variance.flatten().tolist() == pytest.approx([0.0, math.log(2e-7)], abs=1e-3)
        (mean + log_variance).sum().backward()
        assert features.grad.isfinite().all()

    def test_variance_of_a_single_modality_is_exactly_zero(self):
        features = torch.randn(2, 4, 3, 5)
        found = mean_and_variance(features, torch.eye(4, dtype=torch.bool)[:2])
        assert torch.equal(found[:, :3], torch.stack([features[0, 0], features[1, 1]]))
        assert not found[:, 3:].any()

    def test_both_are_float32_under_autocast(self):
        features = golden_features("mu", "logvar")
        chosen = available(0)
        expected = [*product_of_gaussians(features - 9, chosen[:, None]), mean_and_variance(features, chosen)]
        with torch.autocast("cpu", torch.float16):
            found = [*product_of_gaussians(features - 9, chosen[:, None]), mean_and_variance(features, chosen)]
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


class TestSampling:
    def test_evaluation_decodes_the_mean_and_training_one_sample_for_all_decoders(self):
        network, x = made(), image()
        with eval_mode(network), torch.no_grad():
            features = network.encode(x)
            full = torch.ones(1, 1, 4, dtype=torch.bool)
            means = [product_of_gaussians(level, full)[0][:, 0] for level in features]
            assert torch.equal(network(x), network.segmentation(means))
        full = torch.ones(1, 4, dtype=torch.bool)
        with train_mode(network), torch.no_grad():
            features = network.encode(x, full)
            torch.manual_seed(5)
            found = network.decode(features, full)
            torch.manual_seed(5)
            latents = []
            for level in features:
                mean, log_variance = (part[:, 0] for part in product_of_gaussians(level, full[:, None]))
                latents.append(mean + log_variance.exp().sqrt() * torch.randn(mean.shape))
            torch.testing.assert_close(found.logits, network.segmentation(latents))
            expected = torch.cat([decoder(latents) for decoder in network.completion], dim=1)
            torch.testing.assert_close(found.reconstructions, expected)

    def test_training_output(self):
        network, x = made(), without(image(3), MIXED)
        output = network(MetaTensor(x))
        assert output.completed.logits.shape == (3, 3, *CROP)
        assert output.completed.reconstructions.shape == (3, 4, *CROP)
        assert [tuple(p.shape) for p in output.posteriors] == [(3, 4, 2 * 2**n, *[16 // 2**n] * 3) for n in range(4)]
        assert torch.equal(output.present, MIXED)
        assert torch.equal(output.chosen, MIXED)
        assert torch.equal(output.image.isnan().flatten(2).all(dim=2), ~MIXED)
        assert type(output.image) is torch.Tensor
