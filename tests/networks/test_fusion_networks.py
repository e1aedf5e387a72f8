"""RFNet, mmFormer and M2FTrans: the authors' numbers, what they have in common, and M2FTrans's parts by hand."""

from dataclasses import dataclass, field

import pytest
import torch
from monai.networks import eval_mode, train_mode
from networks import golden
from refusals import refused
from torch import nn

from common.modalities import drop
from common.networks import M2FTrans, MMFormer, RFNet
from common.networks.m2ftrans import ChannelAttention, MaskedTransformer, WeightedFusion
from mmb.authors.fusion_keys import export_fusion, import_fusion


@dataclass(frozen=True)
class Spec:
    """One of the networks."""

    name: str  # of its golden files
    network: type[nn.Module]
    tensors: int  # in a checkpoint
    levels: int  # number of auxiliary heads
    finest: int = 0  # number of downsamplings of the finest auxiliary head
    small: dict = field(default_factory=dict)  # sizes in the small golden file, beside a width of 4 and a crop of 32^3
    tiny: dict = field(default_factory=dict)  # the smallest sensible sizes
    trained: str = ""  # golden file of a training step
    window: int = 32  # voxels along each axis for the smallest sizes

    def made(self, **kwargs) -> nn.Module:
        return self.network(**{"width": 4, "crop": (32, 32, 32), **self.small, **kwargs})

    def made_tiny(self, **kwargs) -> nn.Module:
        return self.made(**{**self.tiny, "crop": (self.window,) * 3, **kwargs})

    def image(self, batch: int) -> torch.Tensor:
        """Return an input for the smallest network."""
        return torch.randn(batch, 4, *[self.window] * 3, generator=torch.Generator().manual_seed(0))


SMALL = {"mlp_dim": 64, "heads": 4, "dropout": 0.0}
TINY = {"width": 2, "mlp_dim": 8, "heads": 2}
MM = {"small": {"embed_dim": 32, **SMALL}, "tiny": {"embed_dim": 8, **TINY}, "trained": "mmformer_small_t2fixed"}
SPECS = [
    Spec("rfnet", RFNet, 288, levels=4, window=16),
    Spec("mmformer", MMFormer, 279, levels=4, finest=1, **MM),
    Spec("m2ftrans", M2FTrans, 801, levels=5, small=SMALL, tiny=TINY),
]
KEY = "decoder_fuse.d1_c1.conv.weight"
each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.name)
def imported(request):
    """A network with the golden weights, and its golden arrays."""
    spec = request.param
    return spec, golden.with_fusion_weights(spec.name, spec.made()), *golden.fusion_golden(f"{spec.name}_small")


@pytest.fixture(scope="module")
def trained(imported):
    """The outputs of training mode for the golden batch, the features of its encoding, and the golden arrays."""
    spec, network, *_ = imported
    arrays, meta = golden.fusion_golden(spec.trained or f"{spec.name}_small")
    image = golden.fusion_image(meta["batch_input_seed"], 2, meta["crop"])
    image = golden.without(image, golden.ours(meta["train_mask"]))
    with train_mode(network), torch.no_grad():
        return network(image), network.encode(image), arrays, meta


class TestGolden:
    def test_logits_for_every_stored_subset(self, imported, record_property):
        _, network, arrays, meta = imported
        masks = [key.split("/")[1] for key in arrays if key.startswith("eval/") and key.endswith("/logits")]
        assert len(masks) == 8
        image = golden.fusion_image(meta["input_seed"], 1, meta["crop"])
        errors = {}
        for mask in masks:
            with eval_mode(network), torch.no_grad():
                logits = network(golden.without(image, golden.subset(mask)))
            errors[mask] = golden.relative_error(logits, arrays[f"eval/{mask}/logits"], meta["eval_stride"])
            counts = logits.argmax(dim=1).flatten().bincount(minlength=4)
            assert (counts - torch.as_tensor(arrays[f"eval/{mask}/label_counts"])).abs().sum() <= 1e-3 * counts.sum()
        assert max(errors.values()) <= golden.TOLERANCE, errors

    @pytest.mark.parametrize("mask", ["flair+t1ce+t1+t2", "t2"])
    @each
    def test_as_published(self, spec, mask):
        arrays, meta = golden.fusion_golden(f"{spec.name}_published")
        network = spec.network()
        shapes = {key: tuple(value.shape) for key, value in export_fusion(network, prefix="").items()}
        assert shapes == golden.published_shapes(spec.name)
        golden.with_fusion_weights(spec.name, network)
        with eval_mode(network), torch.no_grad():
            image = golden.fusion_image(meta["input_seed"], 1, meta["crop"])
            logits = network(golden.without(image, golden.subset(mask)))
        assert golden.relative_error(logits, arrays[f"eval/{mask}/logits"], meta["eval_stride"]) <= golden.TOLERANCE

    def test_fused_head_and_auxiliary_heads(self, imported, trained):
        spec, fused, arrays, meta = imported[0], trained[0].fused, *trained[2:]
        stride = meta["train_stride"]
        errors = {
            "logits": golden.relative_error(fused.logits, arrays["train/logits"], stride),
            "features": golden.relative_error(fused.features, arrays["train/decoder_feature_full_resolution"], stride),
        }
        assert len(fused.deep) == spec.levels
        for level, logits in enumerate(fused.deep):
            key = f"train/prm_logits_level{level + 1}"
            errors[key] = golden.relative_error(logits, arrays[key], max(1, stride // 2 ** (level + spec.finest)))
        assert max(errors.values()) <= golden.TOLERANCE, errors

    def test_separate_decoder(self, trained):
        output, _, arrays, meta = trained
        rows = output.present.nonzero().tolist()
        assert len(rows) == len(output.separate) == 5
        for (sample, m), logits in zip(rows, output.separate, strict=True):
            expected = arrays[f"train/sample{sample}/sep_{golden.NAMES[m]}"]
            assert golden.relative_error(logits.softmax(dim=0), expected, meta["train_stride"]) <= golden.TOLERANCE

    def test_each_modality_alone(self, imported, trained):
        network, (output, features, arrays, meta) = imported[1], trained
        for m, name in enumerate(golden.NAMES):
            alone = torch.zeros(2, 4, dtype=torch.bool)
            alone[:, m] = True
            with train_mode(network), torch.no_grad():
                logits = network.decode(features, alone).logits
            for sample in output.present[:, m].nonzero()[:, 0].tolist():
                expected = arrays[f"train/sample{sample}/uni_logits_{name}"]
                assert golden.relative_error(logits[sample], expected, meta["train_stride"]) <= golden.TOLERANCE, name


class TestCheckpoints:
    @each
    def test_goes_in_and_out_unchanged(self, spec):
        theirs = {f"module.{key}": value for key, value in golden.fusion_state(spec.name, spec.made()).items()}
        network = spec.made()
        state = import_fusion(theirs, network)
        network.load_state_dict(state)
        assert len(state) == spec.tensors
        back = export_fusion(network)
        assert set(back) == set(theirs)
        assert all(torch.equal(back[key], theirs[key]) for key in theirs)

    def test_keys_that_only_the_original_mmformer_has(self):
        spec = SPECS[1]
        theirs = golden.fusion_state(spec.name, spec.made())
        unused = {f"{m}_decode_conv.{end}": torch.zeros(1) for m in golden.NAMES for end in ("weight", "bias")}
        assert import_fusion(theirs | unused, spec.made()).keys() == spec.made().state_dict().keys()

    @each
    def test_another_width_is_named(self, spec):
        with pytest.raises(ValueError, match=r"another shape \['.* in the network'.*another width, crop"):
            import_fusion(golden.fusion_state(spec.name, spec.made()), spec.made(width=8))

    @pytest.mark.parametrize(("spec", "key"), [(SPECS[1], "t1_pos"), (SPECS[2], "pos (1, 40, 64)")], ids=["mm", "m2"])
    def test_another_crop_is_named(self, spec, key):
        with refused(ValueError, key, "crop"):
            import_fusion(golden.fusion_state(spec.name, spec.made()), spec.made(crop=(32, 32, 48)))

    @pytest.mark.parametrize(
        ("state", "network", "message"),
        [
            (lambda theirs, _: theirs, SPECS[1].made, r"missing \['.*are unexpected \["),
            (
                lambda theirs, _: theirs | {KEY: theirs[KEY].transpose(0, 1)},
                SPECS[0].made,
                rf"1 have another shape \['{KEY} \(8, 4, 3, 3, 3\)",
            ),
            (lambda _, own: own, SPECS[0].made, "made by this software, which need no import"),
            (lambda *_: {}, lambda: RFNet(modalities=3), "RFNet of 3 modalities"),
        ],
        ids=["another-network", "transposed", "own", "modalities"],
    )
    def test_other_checkpoints_are_refused(self, state, network, message):
        rfnet = SPECS[0].made()
        with pytest.raises(ValueError, match=message):
            import_fusion(state(golden.fusion_state("rfnet", rfnet), rfnet.state_dict()), network())


class TestSizes:
    @each
    @pytest.mark.parametrize(
        ("modalities", "crop", "classes"), [(4, (32, 48), 3), (3, (32, 32, 48), 4), (3, (48, 32), 2)]
    )
    def test_other_modalities_classes_and_dimensions(self, spec, modalities, crop, classes):
        network = spec.made_tiny(modalities=modalities, crop=crop, classes=classes)
        present = torch.ones(2, modalities, dtype=torch.bool)
        present[1, 0] = False
        image = drop(torch.randn(2, modalities, *crop), present)
        output = network(image)
        width = output.fused.features.shape[1]
        assert output.fused.logits.shape == (2, classes, *crop)
        assert [tuple(logits.shape[2:]) for logits in output.fused.deep] == [
            tuple(extent // 2 ** (level + spec.finest) for extent in crop) for level in range(spec.levels)
        ]
        assert output.fused.features.shape == (2, width, *crop)
        assert output.separate.shape == (2 * modalities - 1, classes, *crop)
        heads = [output.fused.logits, *output.fused.deep, output.separate]
        sum(logits.square().mean() for logits in heads).backward()
        assert all(parameter.grad is not None for parameter in network.parameters())
        with eval_mode(network), torch.no_grad():
            assert network(image).shape == (2, classes, *crop)

    @pytest.mark.parametrize("spec", SPECS[1:], ids=lambda spec: spec.name)
    def test_positions_start_at_zero_and_are_learnt(self, spec):
        learnt = {key: p for key, p in spec.made().named_parameters() if "positions" in key}
        shapes = {"mmformer": [(1, 8, 32)] * 4, "m2ftrans": [(5, 8, 64)]}
        assert [tuple(p.shape) for p in learnt.values()] == shapes[spec.name]
        assert not any(p.any() for p in learnt.values())

    def test_mmformer_keeps_for_decoding_only_what_it_needs(self):
        network = SPECS[1].made().eval()
        with torch.no_grad():
            features = network.encode(torch.randn(1, 4, 32, 32, 32))
        assert [tuple(tensor.shape[1:3]) for tensor in features] == [(4, 4), (4, 8), (4, 16), (4, 32), (4, 8)]

    def test_rfnet_region_heads_guide_the_fusion_and_learn_nothing_from_it(self):
        network = RFNet(width=4, crop=(16, 16))
        decoded = network(torch.randn(1, 4, 16, 16)).fused
        heads = [*network.regions.parameters()]
        by_fusion = torch.autograd.grad(decoded.logits.square().sum(), heads, retain_graph=True, allow_unused=True)
        assert all(gradient is None for gradient in by_fusion)
        last = [region.head.weight for region in network.regions]
        by_deep = torch.autograd.grad(sum(logits.square().sum() for logits in decoded.deep), last)
        assert all(gradient.abs().max() > 0 for gradient in by_deep)

    def test_rfnet_takes_windows_of_any_size(self):
        with eval_mode(network := RFNet(width=4, crop=(16, 16, 16))), torch.no_grad():
            assert network(torch.zeros(1, 4, 24, 16, 40)).shape == (1, 4, 24, 16, 40)

    def test_rfnet_sums_over_a_volume_in_half_precision(self):
        """Sums over a whole window would overflow float16."""
        fusion = RFNet(width=4, crop=(16, 16, 16)).fusions[0]
        x, regions = torch.ones(1, 4, 4, 64, 64, 64), torch.full((1, 4, 64, 64, 64), 0.25)
        present = torch.ones(1, 4) > 0
        expected = fusion.modality_weights(x, regions, present)
        with torch.autocast("cpu", torch.float16):
            found = fusion.modality_weights(x, regions, present)
        assert torch.allclose(found.float(), expected, atol=1e-2)


def small(**kwargs):
    return M2FTrans(**{"width": 4, "crop": (32, 32, 32), "mlp_dim": 64, "heads": 4, "dropout": 0.0, **kwargs})


def test_m2ftrans_positions_of_a_modality_go_with_it():
    network = small()
    theirs = golden.fusion_state("m2ftrans", network)
    of_modality = torch.arange(5.0)  # flair, t1ce, t1, t2, fusion
    theirs["pos"] = of_modality.repeat_interleave(8)[None, :, None].expand(-1, -1, 64)
    assert import_fusion(theirs, network)["transformer.positions"][:, 0, 0].tolist() == [2, 1, 3, 0, 4]


def test_m2ftrans_fusion_tokens_start_as_normal_noise():
    torch.manual_seed(0)
    tokens = MaskedTransformer(modalities=3, tokens=512, dim=8, heads=2, mlp_dim=8, dropout=0.0).fusion
    assert (tokens.mean().item(), tokens.std().item()) == pytest.approx((0, 1), abs=0.05)


def test_m2ftrans_fusion_tokens_give_each_modality_present_its_share_of_attention():
    transformer = MaskedTransformer(modalities=3, tokens=4, dim=8, heads=2, mlp_dim=8, dropout=0.0)
    torch.nn.init.zeros_(transformer.layers[0].attention.qkv.weight)  # equal scores: attention is spread evenly
    memory = torch.zeros(2, 3, 3, 2, 2, 4, 4)
    tokens, weights = transformer.fuse(memory, torch.tensor([[True, False, True], [False, True, False]]))
    assert tokens.shape == (2, 4, 8)
    assert not weights.requires_grad
    # 2 heads and 4 fusion tokens each spread a sum of 1 over the tokens that they see, 3 * 4 or 2 * 4 of them.
    assert torch.allclose(weights, torch.tensor([[8 / 12, 0, 8 / 12], [0, 1, 0]])[:, :, None].expand(-1, -1, 4))


def test_m2ftrans_voxels_are_weighted_before_they_are_fused():
    fusion = WeightedFusion(dims=2, modalities=2, width=3)
    x, weights = torch.randn(2, 2, 3, 4, 4), torch.rand(2, 2, 4, 4)
    parts = fusion.entry.parts(x.unbind(1), torch.ones(2, 2, dtype=torch.bool))
    convolved = fusion.entry.conv((x * weights[:, :, None]).flatten(1, 2))
    expected = torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(convolved), 0.2)
    assert torch.allclose(fusion(parts, weights), fusion.layers(expected), atol=1e-5)


def test_m2ftrans_channels_of_an_absent_modality_are_not_attended_to():
    attention = ChannelAttention(dims=2, modalities=2, width=4, dropout=0.0)
    query, features = torch.randn(1, 4, 3, 3), torch.randn(1, 2, 4, 3, 3)
    other = features.clone()
    other[:, 1] = 100 * torch.randn(1, 4, 3, 3)
    first, both = torch.tensor([[True, False]]), torch.tensor([[True, True]])
    assert torch.equal(attention(query, features, first), attention(query, other, first))
    assert not torch.allclose(attention(query, features, both), attention(query, other, both))
