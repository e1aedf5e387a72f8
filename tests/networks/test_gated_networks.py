"""PMKL and RobustSeg: the authors' numbers, and the work of their encoders, gates and students."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from monai.networks import eval_mode
from networks.golden import TOLERANCE, arrays, draw, draw_weights, published_shapes, stored_error
from torch import nn

from common.baselines.pmkl import MetricHeads, PMKLLoss, PrivilegedDistillation, teacher_advantage
from common.baselines.robustseg import RobustSegLoss, divergence
from common.losses.gated import SegmentationLoss
from common.modalities import drop
from common.networks.gated import ContentEncoder, Decoder, GatedNetwork, GatedOutput
from common.networks.pmkl import PMKL, MetricHead
from common.networks.robustseg import RobustSeg

CROP = (16, 16, 16)
PRESENT = torch.tensor([[True, False, True, True], [False, True, False, False]])
NAMES = ("flair", "t1c", "t1", "t2")
"""The authors' order, in which everything of the golden files is here: networks do not know which modality is which."""
Layers = Iterator[tuple[nn.Module, str]]


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def image(present=PRESENT, crop=CROP, seed=0):
    return drop(torch.randn(*present.shape, *crop, generator=torch.Generator().manual_seed(seed)), present)


def lively(network):
    """Give a network weights that make a difference; the initial ones are too small."""
    torch.manual_seed(0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=1 / max(1.0, parameter[0].numel()) ** 0.5)
    return network


def with_golden_weights(name: str, layers: Layers) -> None:
    """Give each layer the weights that the rule assigns to the authors' variables of its name; all must be used."""
    shapes = published_shapes(name)
    for layer, key in layers:
        for ours, parameter in layer.named_parameters():
            theirs = f"{key}/{_variable(layer, ours)}"
            shape = shapes.pop(theirs)
            assert tuple(n for n in shape if n > 1) == tuple(n for n in parameter.shape if n > 1), theirs
            parameter.data.copy_(draw_weights({theirs: shape})[theirs].reshape(parameter.shape))
    assert not shapes, list(shapes)


def pmkl_layers(network: PMKL, heads: MetricHeads, subset: tuple[int, ...]) -> Layers:
    """Pair the teacher's layers and those of one student with the authors' names."""
    yield from gated_layers(network.full, "_abs")
    student = network.missing.network_for(subset)
    yield from _encoder(student.encoder, "Model/ce_prs")
    yield from _decoder(student.decoder, "Model/mask_de_prs")
    for head, name in ((heads.student, "prs"), (heads.teacher, "abs")):
        yield head.hidden, f"Model/metric_{name}/linear_0/dense"
        yield head.embedding, f"Model/metric_{name}/linear_1/dense"


def robustseg_layers(network: RobustSeg) -> Layers:
    """Pair the network's layers with the authors' names."""
    yield from gated_layers(network)
    yield network.image_head, "Model/G_logit/conv3d"
    for m, name in enumerate(NAMES):
        scope = f"Model/se_{name:_<5}"
        *convolutions, last = [x for x in network.appearances[m] if isinstance(x, (nn.Conv3d, nn.Linear))]
        yield last, f"{scope}/se_logit/conv3d"
        for number, layer in enumerate(convolutions):
            yield layer, f"{scope}/c_{number}/conv3d"
        decoder, scope = network.image_decoders[m], f"Model/image_de_{name:_<5}"
        yield decoder.hidden[0], f"{scope}/MLP/linear_0/dense"
        yield decoder.hidden[2], f"{scope}/MLP/linear_1/dense"
        yield decoder.scale, f"{scope}/MLP/mu/dense"
        yield decoder.shift, f"{scope}/MLP/sigma/dense"
        for number, block in enumerate(decoder.residuals):
            yield block.conv1, f"{scope}/adaptive_resblock{number}/res1/conv3d/conv3d"
            yield block.conv2, f"{scope}/adaptive_resblock{number}/res2/conv3d/conv3d"
        for number, up in enumerate(decoder.ups):
            yield up[1], f"{scope}/conv_{number}/conv3d"
            yield up[2], f"{scope}/layer_norm_{number}"


def gated_layers(network: GatedNetwork, suffix: str = "") -> Layers:
    """Pair the layers of encoders, fusions and decoder with the authors' names."""
    for encoder, name in zip(network.encoders, NAMES, strict=True):
        yield from _encoder(encoder, f"Model/ce_{name}{suffix}")
    for number, fusion in enumerate(network.fusions, start=1):
        yield from _unit(fusion.gate, f"Model/att_c{number}{suffix}")
        yield from _unit(fusion.mix, f"Model/fusion_c{number}{suffix}")
    yield from _decoder(network.decoder, f"Model/mask_de{suffix}")


def _variable(layer: nn.Module, ours: str) -> str:
    if isinstance(layer, (nn.Conv3d, nn.Linear)):
        return {"weight": "kernel", "bias": "bias"}[ours]
    return {"weight": "gamma", "bias": "beta"}[ours]


def _unit(unit: nn.Sequential, scope: str) -> Layers:
    yield unit[0], f"{scope}/conv3d"
    yield unit[1], f"{scope}/instance_norm/InstanceNorm"


def _encoder(encoder: ContentEncoder, scope: str) -> Layers:
    for level, units in enumerate(encoder.levels, start=1):
        for number, unit in enumerate(units, start=1):
            yield from _unit(unit, f"{scope}/e{level}_c{number}")


def _decoder(decoder: Decoder, scope: str) -> Layers:
    for number, level in enumerate(decoder.levels, start=1):
        yield from _unit(level.up, f"{scope}/d{number}_c1")
        yield from _unit(level.merge, f"{scope}/d{number}_c2")
        yield from _unit(level.out, f"{scope}/d{number}_out")
    yield decoder.head, f"{scope}/seg_logit/conv3d"


@pytest.fixture(scope="module")
def pmkl():
    """The outputs of the golden files' network for a student's step."""
    stored = arrays("pmkl")
    subset, x = (int(stored["mono_channel"]),), draw(int(stored["seed"]), (2, 4, 48, 48, 48))
    network = PMKL(modalities=4, classes=5, width=16, subsets=[subset])
    method = PrivilegedDistillation(network, (48, 48, 48), metric_stride=1)
    with_golden_weights("pmkl", pmkl_layers(network, method.heads.network_for(subset), subset))
    seen = []
    for module in (network.full.decoder, network.missing.network_for(subset).decoder):
        module.register_forward_hook(lambda module, inputs, output: seen.append((inputs[0], output)))
    with torch.no_grad():
        output, features = method.train()(x), network.full.encode(x)
    label = torch.from_numpy(stored["label"]).reshape(2, 1, 48, 48, 48)
    return SimpleNamespace(arrays=stored, output=output, features=features, seen=seen, label=label)


@pytest.fixture(scope="module")
def robustseg():
    stored = arrays("robustseg")
    network, x = RobustSeg(4, 5, 16), draw(int(stored["seed"]), (1, 4, 32, 32, 32))
    with_golden_weights("robustseg", robustseg_layers(network))
    cases = [torch.from_numpy(row)[None].bool() for row in stored["availability"]]
    with torch.no_grad():
        outputs = [network(x, case) for case in cases]
    label = torch.from_numpy(stored["label"]).reshape(1, 1, 32, 32, 32)
    return SimpleNamespace(arrays=stored, network=network, image=x, cases=cases, outputs=outputs, label=label)


class TestGolden:
    def test_pmkl_as_published(self, pmkl):
        (_, teacher), (levels, student) = pmkl.seen
        found = {
            "teacher/logits": pmkl.output.teacher_logits,
            "student/logits": pmkl.output.logits,
            "teacher/d1_out": teacher.features,
            "student/d1_out": student.features,
            "teacher/embedding": pmkl.output.teacher_embedding,
            "student/embedding": pmkl.output.embedding,
            "teacher/flair_s4": pmkl.features[3][:, 0],
            "student/s4": levels[3],
        }
        errors = {key: stored_error(value, "pmkl", key) for key, value in found.items()}
        assert max(errors.values()) <= TOLERANCE, errors

    def test_losses_of_pmkl(self, pmkl):
        loss, teacher = PMKLLoss(), SegmentationLoss()
        teacher(GatedOutput(pmkl.output.teacher_logits, None), pmkl.label)
        found = {
            "student_total": loss(pmkl.output, pmkl.label),
            "ce_student": loss.terms["ce"],
            "dice_student": loss.terms["dice"],
            "ce_teacher": teacher.terms["ce"],
            "dice_teacher": teacher.terms["dice"],
            "kd": loss.terms["kd"],
            "kd_mask_sum": teacher_advantage(pmkl.output.logits, pmkl.output.teacher_logits, pmkl.label.long()).sum(),
            "contrastive": loss.terms["contrastive"],
            "l2_student": 1e-5 * loss.terms["l2"],
        }
        assert {f"loss/{key}" for key in found} == {key for key in pmkl.arrays if key.startswith("loss/")}
        for key, value in found.items():
            assert value.item() == pytest.approx(float(pmkl.arrays[f"loss/{key}"]), rel=TOLERANCE), key

    def test_robustseg_as_published(self, robustseg):
        errors = {}
        for number, output in enumerate(robustseg.outputs):
            found = {"logits": output.logits}
            found |= {f"recon_{name}": output.reconstruction[None, m : m + 1] for m, name in enumerate(NAMES)}
            for name, value in found.items():
                errors[f"case{number}/{name}"] = stored_error(value, "robustseg", f"case{number}/{name}")
        assert len(errors) == 15
        assert max(errors.values()) <= TOLERANCE, errors
        network, output = robustseg.network, robustseg.outputs[0]
        with torch.no_grad():
            content = network.encode(robustseg.image, robustseg.cases[0])[3][:, 0]
            styles = [network.appearances[m](robustseg.image[:, m : m + 1]) for m in range(4)]
        found = {"case0/content_flair_s4": content}
        for m, name in enumerate(NAMES):
            found |= {f"case0/mu_{name}": output.scale[m], f"case0/sigma_{name}": output.shift[m]}
            found[f"case0/style_{name}"] = styles[m]
        found = {key: value.reshape(tuple(robustseg.arrays[f"{key}/shape"])) for key, value in found.items()}
        errors = {key: stored_error(value, "robustseg", key) for key, value in found.items()}
        assert max(errors.values()) <= TOLERANCE, errors

    def test_losses_of_robustseg(self, robustseg):
        for number, output in enumerate(robustseg.outputs):
            expected = {k.split("/")[2]: float(v) for k, v in robustseg.arrays.items() if f"case{number}/loss" in k}
            loss, apart = RobustSegLoss(), divergence(output.scale, output.shift)
            loss(output, robustseg.label)
            found = {"ce": loss.terms["ce"], "dice": loss.terms["dice"]}
            for m, name in enumerate(NAMES):
                found[f"kl_{name}"] = apart[m]
                found[f"l1_{name}"] = F.l1_loss(output.reconstruction[m], robustseg.image[0, m])
            assert {name: value.item() for name, value in found.items()} == pytest.approx(expected, rel=TOLERANCE)
            for term in ("l1", "kl"):
                whole = sum(expected[f"{term}_{name}"] for name in NAMES)
                assert loss.terms[term].item() == pytest.approx(whole, rel=TOLERANCE)

    def test_students_and_heads_by_size(self):
        with torch.device("meta"):
            network = PMKL()
            assert len(network.missing.networks) == 14
            pair, single = (network.missing.network_for(subset) for subset in ((0, 1), (1,)))
            assert count(single) - count(pair) == 2 * 27 * 16
            assert count(MetricHead(16, (80, 80, 80), 1)) == 16 * 41**3 * 32 + 32 * 16
            assert count(MetricHead(16, (80, 80, 80), 40)) == 16 * 2**3 * 32 + 32 * 16

    def test_initial_weights_are_small_and_truncated(self):
        weight = GatedNetwork().encoders[0].levels[3][1][0].weight
        assert weight.abs().max() <= 0.02
        assert weight.std().item() == pytest.approx(0.0088, rel=0.02)  # of a normal cut at two deviations
        assert not any(layer.bias.any() for layer in RobustSeg(width=2).modules() if isinstance(layer, nn.Conv3d))


class TestStudents:
    @pytest.mark.parametrize(
        ("kind", "channels"), [(None, [4, 2, 3]), ("shared", [4, 8, 12]), ("separate", [4, 2, 3])], ids=str
    )
    def test_a_students_input_are_its_modalities_alone(self, kind, channels):
        network = lively(PMKL(width=2, feature_encoder=kind, subsets=[(3,), (0, 2), (0, 1, 3)])).eval()
        students = [network.missing.network_for(subset) for subset in network.missing.subsets]
        assert [student.encoder.levels[0][0][0].in_channels for student in students] == channels
        for subset in network.missing.subsets:
            there = torch.zeros(2, 4, dtype=torch.bool)
            there[:, list(subset)] = True
            one, other = image(there), image(torch.ones(2, 4, dtype=torch.bool))
            with torch.no_grad():
                assert torch.equal(network(one), network(torch.where(there[:, :, None, None, None], one, other), there))
                student = network.missing.network_for(subset)(one[:, list(subset)])
                torch.testing.assert_close(network(one), student)

    @pytest.mark.parametrize(("crop", "stride", "edges"), [((48, 40, 44), 2, (40, 40, 40)), (CROP, 40, CROP)])
    def test_metric_heads_pool_boxes_and_give_unit_vectors(self, crop, stride, edges):
        head, features = lively(MetricHead(2, crop, stride)), torch.randn(2, 2, *crop)
        pooled = F.avg_pool3d(features, edges, stride).permute(0, 2, 3, 4, 1).flatten(1)
        expected = head.hidden(pooled).clamp_min(0) @ head.embedding.weight.T
        found = head(features)
        torch.testing.assert_close(found, expected / expected.norm(dim=1, keepdim=True), rtol=1e-4, atol=1e-5)
        assert found.norm(dim=1).tolist() == pytest.approx([1, 1])


class TestReconstruction:
    def test_every_modality_of_a_subject_is_reconstructed_used_or_not(self):
        network, there = lively(RobustSeg(width=2)), torch.tensor([[True, True, False, True], [True] * 4])
        x = image(there)
        output = network(x, torch.tensor([[True, False, True, False]] * 2))
        assert torch.equal(output.there, there)
        assert torch.equal(output.image, x[there])
        assert output.reconstruction.shape == output.image.shape == (7, *CROP)
        assert output.scale.shape == output.shift.shape == (7, 16)
        for number, (b, m) in enumerate(there.nonzero().tolist()):
            appearance = network.appearances[m](x[b : b + 1, m : m + 1])
            expected = network.image_decoders[m].scale(network.image_decoders[m].hidden(appearance))[0]
            assert torch.allclose(output.scale[number], expected, atol=1e-5)

    def test_a_segmentation_does_not_know_the_appearances(self):
        network, x = lively(RobustSeg(width=2)), image(torch.ones(1, 4, dtype=torch.bool))
        output = network(x, PRESENT[:1])
        output.logits.square().mean().backward(retain_graph=True)
        assert all(p.grad is None for p in (*network.appearances.parameters(), *network.image_decoders.parameters()))
        network.zero_grad()
        output.reconstruction.square().mean().backward()
        taught = (network.encoders[0], network.fusions[-1], network.image_decoders)
        assert all(p.grad is not None for part in taught for p in part.parameters())
        assert network.encoders[1].levels[0][0][0].weight.grad is None  # dropped, so its content contributes to neither
        assert network.appearances[1][0].weight.grad.abs().max() > 0

    def test_inference_runs_neither_appearances_nor_image_decoders(self):
        network = RobustSeg(width=2)
        for part in (*network.appearances, *network.image_decoders):
            part.register_forward_hook(lambda *_: pytest.fail("a training-only part ran"))
        with eval_mode(network), torch.no_grad():
            assert network(image()).shape == (2, 4, *CROP)

    def test_fusions_and_the_shared_last_layer_do_not_decay(self):
        network = RobustSeg(width=2)
        network.l2_penalty().backward()
        named = {name for name, p in network.named_parameters() if p.grad is not None}
        assert not any(name.startswith(("fusions", "image_head")) or name.endswith("bias") for name in named)
        weight = network.appearances[2][0].weight
        torch.testing.assert_close(weight.grad, weight)
