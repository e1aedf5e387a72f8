"""ACN and SMU-Net: which paths run, the authors' numbers, formulas by hand, and which parts get gradients."""

import math

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from networks.golden import (
    TOLERANCE,
    arrays,
    cotraining_error,
    cotraining_label,
    trained_paths,
    with_golden_discriminator,
)
from samples import classes, noise
from torch import nn

from common.baselines import cotraining
from common.modalities import drop
from common.networks.cotraining import ACN, ACNOutput, SMUNet, SMUNetOutput
from common.papers.medmap import AlignedLoss, FeatureAlignment

SUBSETS = [(0,), (1, 3), (0, 1, 2)]
NETWORKS = {"acn": ACN, "smunet": SMUNet}
IMAGE, LABEL = noise(2, 4, 16, 16, 16, seed=1), classes(4, 2, 1, 16, 16, 16, seed=2)
both = pytest.mark.parametrize("name", NETWORKS)


def network(name, subsets=SUBSETS, **kwargs):
    torch.manual_seed(0)
    net = NETWORKS[name](width=8, subsets=subsets, **kwargs)
    for module in net.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    return net


def forwarded(net):
    """Record which missing path runs, and on what."""
    seen = []
    for subset in net.missing.subsets:
        net.missing.network_for(subset).register_forward_hook(
            lambda m, args, out, subset=subset: seen.append((subset, args[0]))
        )
    return seen


@both
def test_full_path_sees_everything_and_one_missing_path_its_subset(name):
    net, x = network(name), IMAGE
    seen = forwarded(net)
    for _ in range(30):
        output = cotraining.CoTraining(net)(MetaTensor(x))
        torch.testing.assert_close(output.full.logits, net.full(x).logits)
        subset, given = seen[-1]
        assert torch.equal(given, x[:, list(subset)])
        assert type(output.missing.logits) is torch.Tensor
    assert (len(seen), {subset for subset, _ in seen}) == (30, set(SUBSETS))


@both
def test_full_path_and_the_drawn_one_learn_and_the_others_do_not(name):
    net = network(name)
    seen = forwarded(net)
    loss = loss_of(name)
    loss(cotraining.CoTraining(net)(IMAGE), LABEL).backward()
    learns = {"full", "_".join(map(str, seen[0][0]))}
    for key, path in (("full", net.full), *net.missing.networks.items()):
        got = [parameter.grad is not None for parameter in path.parameters()]
        assert all(got) if key in learns else not any(got), key
    assert all(parameter.grad is not None for parameter in loss.discriminators.parameters())


@both
def test_incomplete_subjects_are_refused(name):
    present = torch.tensor([[True] * 4, [True, False, True, False]])
    with pytest.raises(ValueError, match=r"1 of 2 training samples lack a modality \(channels \[1, 3\]\)"):
        cotraining.CoTraining(network(name))(drop(IMAGE, present))


@pytest.mark.parametrize(("at", "kind", "channels"), [("input", "shared", 4), ("bottleneck", None, 64)])
def test_medmap_aligns_acn(at, kind, channels):
    net = network("acn", feature_encoder=kind)
    method = FeatureAlignment(cotraining.CoTraining(net), net, at=at)
    loss = AlignedLoss(cotraining.ACNLoss(width=8), ("t1", "t1c", "t2", "flair"))
    output = method(IMAGE)
    assert output.features.shape[:3] == (2, 4, channels)
    loss(output, LABEL).backward()
    assert loss.terms["align"] > 0
    assert loss.alignment.weights.grad.abs().max() > 0


SIZE = (8, 8, 8)
TARGET = classes(4, 2, 1, *SIZE)


def stored(name, key):
    return pytest.approx(float(arrays(name)[key]), rel=1e-4)


def output(name, count=4, width=8, samples=2):
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(samples, *shape, generator=generator).requires_grad_()

    def path(missing):
        logits, features = draw(count, *SIZE), draw(8 * width, 4, 4, 4)
        if name == "smunet":
            return SMUNetOutput(logits, features, draw(8 * width, 4, 4, 4))
        variance = torch.rand(8 * width, generator=generator).add(0.5).requires_grad_()
        predicted = (draw(8 * width, 4, 4, 4), variance) if missing else (None, None)
        return ACNOutput(logits, features, *predicted)

    return cotraining.CoTrainingOutput(path(False), path(True))


def loss_of(name, width=8, **kwargs):
    torch.manual_seed(0)
    return (cotraining.ACNLoss if name == "acn" else cotraining.SMUNetLoss)(width=width, **kwargs)


def leaves(path):
    return {key: value for key, value in path._asdict().items() if value is not None}


def grads(out):
    return {f"{side}.{key}": value.grad for side, path in out._asdict().items() for key, value in leaves(path).items()}


@pytest.fixture(scope="module")
def acn():
    loss = cotraining.ACNLoss()
    for ours, theirs in (("entropy", "d_main."), ("knowledge", "d_feature.")):
        with_golden_discriminator("acn", theirs, loss.discriminators[ours])
    return loss


class TestGolden:
    def test_discriminators_of_acn(self, acn):
        out = trained_paths("acn")
        errors = {}
        with torch.no_grad():
            for theirs, path in (("full", out.full), ("mono", out.missing)):
                maps = cotraining.entropy_maps(path.logits.sigmoid())
                logits = acn.discriminators["entropy"](maps)
                errors[f"d_main/{theirs}"] = cotraining_error(logits, "acn", f"d_main/{theirs}")
                logits = acn.discriminators["knowledge"](path.bottleneck)
                errors[f"d_feature/{theirs}"] = cotraining_error(logits, "acn", f"d_feature/{theirs}")
        maps = cotraining.entropy_maps(out.full.logits.sigmoid())
        errors["entropy"] = cotraining_error(maps, "acn", "entropy/full_softmax_of_sigmoid", classes=True)
        assert max(errors.values()) <= TOLERANCE, errors

    def test_terms_of_acn(self, acn):
        acn(trained_paths("acn"), cotraining_label("acn"))
        golden = arrays("acn")
        expected = {
            "full": sum(float(golden[f"loss/{c}_dc_loss"]) for c in ("ed", "net", "et")),
            "missing": sum(float(golden[f"loss/{c}_mono_dc_loss"]) for c in ("ed", "net", "et")),
            "consistency": float(golden["loss/consistency_loss"]),
            "information": float(golden["loss/mi_target_full"]),
            "entropy": float(golden["loss/adv_ena_generator"]),
            "knowledge": float(golden["loss/adv_kna_generator"]),
            "discriminators": float(golden["loss/adv_ena_disc"]) + float(golden["loss/adv_kna_disc"]),
        }
        assert {name: value.item() for name, value in acn.terms.items()} == pytest.approx(expected, rel=1e-4)
        both = trained_paths("acn")
        own = both._replace(full=both.missing)  # what the code takes for the full path's bottleneck
        assert cotraining.mutual_information(own).item() == stored("acn", "loss/mi_as_coded")

    def test_terms_of_smunet(self):
        loss = cotraining.SMUNetLoss()
        loss(trained_paths("smunet"), cotraining_label("smunet"))
        golden = arrays("smunet")
        keys = {
            "full": "loss_dc",
            "missing": "loss_miss_dc",
            "consistency": "consistency_loss",
            "content": "content_loss",
        }
        expected = {name: float(golden[f"loss/{key}"]) for name, key in keys.items()}
        expected["style"] = float(golden["loss/style"]) / 1e-4
        assert {name: loss.terms[name].item() for name in expected} == pytest.approx(expected, rel=1e-4)

    @both
    @pytest.mark.parametrize("epoch", [0, 7, 30])
    def test_co_training_over_the_epochs(self, name, epoch):
        off = ("information", "entropy", "knowledge") if name == "acn" else ("adversary",)
        loss = loss_of(name, 16, **{f"{term}_weight": 0.0 for term in off})
        loss.epoch = epoch
        total = loss(trained_paths(name), cotraining_label(name)) - loss.terms["discriminators"]
        assert total.item() == stored(name, f"loss/co/epoch{epoch}")
        if name == "acn":
            assert 10 * cotraining.ramp_up(epoch, 20) == stored(name, f"loss/consistency_weight/epoch{epoch}")

    def test_released_discriminator_of_styles(self):
        discriminator = with_golden_discriminator("smunet", "d_style.", cotraining.StyleDiscriminator(16, "released"))
        seed = int(arrays("smunet")["seed"]) + 2
        style = np.random.default_rng(seed).standard_normal((1, 128, 20, 24, 16)).astype(np.float32)
        style = torch.from_numpy(style)
        with torch.no_grad():
            assert cotraining_error(discriminator(style), "smunet", "d_style/out") <= TOLERANCE
            full = cotraining.generator_loss(discriminator, style)
            missing = 2 * cotraining.discriminator_loss(discriminator, style, style)
        as_source = float(arrays("smunet")["loss/adv_style_as_source"])
        assert full.item() == pytest.approx(as_source, rel=1e-4)
        as_target = float(arrays("smunet")["loss/adv_style_as_target"])
        assert missing.item() == pytest.approx(as_source + as_target, rel=1e-4)


class TestFormulas:
    @both
    def test_dice_and_consistency_by_hand(self, name):
        """The batch has two voxels: class 1 at the first, class 2 at the second, class 3 nowhere."""
        full = torch.tensor([[[0.7, 0.6], [0.8, 0.1], [0.4, 0.5], [0.2, 0.0]]])
        missing = torch.tensor([[[0.1, 0.2], [0.8, 0.3], [0.4, 0.5], [0.2, 0.4]]])
        empty = torch.zeros(1, 64, 1, 1, 1)
        rest = (empty, empty, torch.ones(64)) if name == "acn" else (empty, empty)
        paths = [p.logit().reshape(1, 4, 2, 1, 1).clamp(-50, 50) for p in (full, missing)]
        out = cotraining.CoTrainingOutput(*((ACNOutput if name == "acn" else SMUNetOutput)(p, *rest) for p in paths))
        loss = loss_of(name)
        loss(out, torch.tensor([1, 2]).reshape(1, 1, 2, 1, 1))
        expected = (1 - 1.6 / (0.65 + 1)) + (1 - 1.0 / (0.41 + 1)) + 1
        assert loss.terms["full"].item() == pytest.approx(expected, rel=1e-5)
        assert loss.terms["consistency"].item() == pytest.approx((0.04 + 0.16) / 2, rel=1e-5)

    @both
    def test_total_is_the_weighted_sum(self, name):
        weights = {"acn": (0.2, 0.8, 0.5, 0.001, 0.0002), "smunet": (0.4, 0.6, 0.2, 1e-4, 0.0002)}[name]
        names = {"acn": ("information", "entropy", "knowledge"), "smunet": ("content", "style", "adversary")}[name]
        loss = loss_of(name)
        loss.epoch = 10
        total = loss(output(name), TARGET)
        scale = dict(zip(("full", "missing", *names), weights, strict=True))
        scale |= {"consistency": 10 * math.exp(-1.25), "discriminators": 1}
        assert set(loss.terms) == set(scale)
        assert total.item() == pytest.approx(sum(scale[k] * v.item() for k, v in loss.terms.items()), rel=1e-5)


class TestGradients:
    def test_fooling_teaches_the_map_and_telling_the_discriminator(self):
        discriminator = cotraining.Discriminator((3, 4, 1), 3, (1, 2))
        full, missing = (torch.randn(1, 3, 4, 4, 4, requires_grad=True) for _ in range(2))
        cotraining.generator_loss(discriminator, missing).backward()
        assert missing.grad.abs().max() > 0
        assert all(parameter.grad is None for parameter in discriminator.parameters())
        missing.grad = None
        cotraining.discriminator_loss(discriminator, full, missing).backward()
        assert full.grad is missing.grad is None
        assert all(parameter.grad.abs().max() > 0 for parameter in discriminator.parameters())

    @both
    def test_one_backward_gives_what_two_optimisers_would(self, name):
        loss, out = loss_of(name), output(name)
        loss(out, TARGET).backward()
        if name == "acn":
            maps = {
                "entropy": [cotraining.entropy_maps(path.logits.detach().sigmoid()) for path in out],
                "knowledge": [path.bottleneck.detach() for path in out],
            }
            share = 0.5
        else:
            maps, share = {"style": [path.style.detach() for path in out]}, 1.0
        bce = torch.nn.functional.binary_cross_entropy_with_logits
        for key, (full, missing) in maps.items():
            discriminator = loss.discriminators[key]
            own = list(discriminator.parameters())
            real, fake = discriminator(full), discriminator(missing)
            alone = share * (bce(real, torch.zeros_like(real)) + bce(fake, torch.ones_like(fake)))
            for parameter, expected in zip(own, torch.autograd.grad(alone, own), strict=True):
                torch.testing.assert_close(parameter.grad, expected)

    @pytest.mark.parametrize(
        ("name", "terms", "moved"),
        [
            ("acn", ("entropy", "knowledge"), {"missing.logits", "missing.bottleneck"}),
            ("smunet", ("adversary",), {"missing.style"}),
            *((name, ("consistency",), {"full.logits", "missing.logits"}) for name in NETWORKS),
        ],
    )
    def test_what_a_term_pulls(self, name, terms, moved):
        found = []
        for weight in (0.0, 1.0):
            out = output(name)
            loss_of(name, **{f"{term}_weight": weight for term in terms})(out, TARGET).backward()
            found.append(grads(out))
        assert {key for key in found[0] if not _same(found[0][key], found[1][key])} == moved
        if terms == ("consistency",):  # the background is not supervised
            assert found[1]["full.logits"][:, 0].abs().max() == 0

    def test_information_teaches_the_missing_paths_prediction(self):
        out = output("acn")
        cotraining.mutual_information(out).backward()
        assert {key for key, grad in grads(out).items() if grad is not None} == {"missing.mean", "missing.variance"}

    def test_content_and_style_pull_both_paths(self):
        out = output("smunet")
        cotraining.SMUNetLoss(width=8, adversary_weight=0, style_weight=1)(out, TARGET).backward()
        assert all(grad.abs().max() > 0 for grad in grads(out).values())


class TestSizes:
    @both
    @pytest.mark.parametrize("count", [2, 5])
    def test_other_numbers_of_classes(self, name, count):
        loss = loss_of(name, **({"classes": count} if name == "acn" else {}))
        assert loss(output(name, count), classes(count, 2, 1, *SIZE)).isfinite()

    @pytest.mark.parametrize("size", [(2, 2, 2), (4, 4, 4), (8, 12, 10)])
    def test_styles_of_any_size_get_one_answer(self, size):
        assert cotraining.StyleDiscriminator(8, "pooled")(torch.randn(2, 64, *size)).shape == (2, 1, 1, 1, 1)

    def test_small_maps_are_padded_by_zeros_at_their_end(self):
        discriminator, maps = cotraining.Discriminator((2, 2, 1), 4, (2, 2), least=4), torch.randn(1, 2, 4, 2, 3)
        padded = torch.zeros(1, 2, 4, 4, 4)
        padded[:, :, :, :2, :3] = maps
        assert torch.equal(discriminator(maps), discriminator(padded))

    def test_released_discriminator_takes_the_published_crop_alone(self):
        with pytest.raises(ValueError, match=r"style of \[4, 4, 4\] voxels, but the released .* `style_discriminator`"):
            loss_of("smunet", style_discriminator="released")(output("smunet"), TARGET)


def _same(one, other):
    if one is None or other is None:
        return one is other
    return torch.allclose(one, other, rtol=1e-4, atol=1e-9)
