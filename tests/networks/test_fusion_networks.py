"""RFNet, mmFormer and M2FTrans: the authors' numbers, and what all three have in common."""

from dataclasses import dataclass, field

import pytest
import torch
from monai.networks import eval_mode, train_mode
from networks.golden import (
    NAMES,
    TOLERANCE,
    fusion_golden,
    fusion_image,
    fusion_state,
    ours,
    published_shapes,
    relative_error,
    subset,
    with_fusion_weights,
    without,
)
from refusals import refused
from torch import nn

from common.modalities import drop
from common.networks import M2FTrans, MMFormer, RFNet
from mmb.authors.fusion_keys import export_fusion, import_fusion


@dataclass(frozen=True)
class Spec:
    """One of the networks.

    Attributes:
        name: of its golden files.
        network: the class.
        small: sizes in the small golden file, apart from the width of 4 and the crop of 32^3.
        tiny: the smallest sensible sizes, apart from the crop of ``window`` voxels along each axis.
        finest: number of downsamplings of the finest auxiliary head.
        levels: number of auxiliary heads.
        trained: golden file of a training step.
        tensors: number of tensors in a checkpoint.
    """

    name: str
    network: type[nn.Module]
    tensors: int
    levels: int
    finest: int = 0
    small: dict = field(default_factory=dict)
    tiny: dict = field(default_factory=dict)
    trained: str = ""
    window: int = 32

    def made(self, **kwargs) -> nn.Module:
        return self.network(**{"width": 4, "crop": (32, 32, 32), **self.small, **kwargs})

    def made_tiny(self, **kwargs) -> nn.Module:
        return self.made(**{**self.tiny, "crop": (self.window,) * 3, **kwargs})

    def image(self, batch: int) -> torch.Tensor:
        """Return an input for the smallest network."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(batch, 4, *[self.window] * 3, generator=generator)


SPECS = [
    Spec("rfnet", RFNet, 288, levels=4, window=16),
    Spec(
        "mmformer",
        MMFormer,
        279,
        levels=4,
        finest=1,
        small={"embed_dim": 32, "mlp_dim": 64, "heads": 4, "dropout": 0.0},
        tiny={"width": 2, "embed_dim": 8, "mlp_dim": 8, "heads": 2},
        trained="mmformer_small_t2fixed",
    ),
    Spec(
        "m2ftrans",
        M2FTrans,
        801,
        levels=5,
        small={"mlp_dim": 64, "heads": 4, "dropout": 0.0},
        tiny={"width": 2, "mlp_dim": 8, "heads": 2},
    ),
]
KEY = "decoder_fuse.d1_c1.conv.weight"
each = pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.name)


@pytest.fixture(scope="module", params=SPECS, ids=lambda spec: spec.name)
def imported(request):
    """A network with the golden weights, and its golden arrays."""
    spec = request.param
    return spec, with_fusion_weights(spec.name, spec.made()), *fusion_golden(f"{spec.name}_small")


@pytest.fixture(scope="module")
def trained(imported):
    """The outputs of training mode for the golden batch, the features of its encoding, and the golden arrays."""
    spec, network, *_ = imported
    arrays, meta = fusion_golden(spec.trained or f"{spec.name}_small")
    image = without(fusion_image(meta["batch_input_seed"], 2, meta["crop"]), ours(meta["train_mask"]))
    with train_mode(network), torch.no_grad():
        return network(image), network.encode(image), arrays, meta


class TestGolden:
    def test_logits_for_every_stored_subset(self, imported, record_property):
        _, network, arrays, meta = imported
        masks = [key.split("/")[1] for key in arrays if key.startswith("eval/") and key.endswith("/logits")]
        assert len(masks) == 8
        image = fusion_image(meta["input_seed"], 1, meta["crop"])
        errors = {}
        for mask in masks:
            with eval_mode(network), torch.no_grad():
                logits = network(without(image, subset(mask)))
            errors[mask] = relative_error(logits, arrays[f"eval/{mask}/logits"], meta["eval_stride"])
            counts = logits.argmax(dim=1).flatten().bincount(minlength=4)
            assert (counts - torch.as_tensor(arrays[f"eval/{mask}/label_counts"])).abs().sum() <= 1e-3 * counts.sum()
        assert max(errors.values()) <= TOLERANCE, errors

    @pytest.mark.parametrize("mask", ["flair+t1ce+t1+t2", "t2"])
    @each
    def test_as_published(self, spec, mask):
        arrays, meta = fusion_golden(f"{spec.name}_published")
        network = spec.network()
        shapes = {key: tuple(value.shape) for key, value in export_fusion(network, prefix="").items()}
        assert shapes == published_shapes(spec.name)
        with_fusion_weights(spec.name, network)
        with eval_mode(network), torch.no_grad():
            logits = network(without(fusion_image(meta["input_seed"], 1, meta["crop"]), subset(mask)))
        assert relative_error(logits, arrays[f"eval/{mask}/logits"], meta["eval_stride"]) <= TOLERANCE

    def test_fused_head_and_auxiliary_heads(self, imported, trained):
        spec, fused, arrays, meta = imported[0], trained[0].fused, *trained[2:]
        stride = meta["train_stride"]
        errors = {
            "logits": relative_error(fused.logits, arrays["train/logits"], stride),
            "features": relative_error(fused.features, arrays["train/decoder_feature_full_resolution"], stride),
        }
        assert len(fused.deep) == spec.levels
        for level, logits in enumerate(fused.deep):
            key = f"train/prm_logits_level{level + 1}"
            errors[key] = relative_error(logits, arrays[key], max(1, stride // 2 ** (level + spec.finest)))
        assert max(errors.values()) <= TOLERANCE, errors

    def test_separate_decoder(self, trained):
        output, _, arrays, meta = trained
        rows = output.present.nonzero().tolist()
        assert len(rows) == len(output.separate) == 5
        for (sample, m), logits in zip(rows, output.separate, strict=True):
            expected = arrays[f"train/sample{sample}/sep_{NAMES[m]}"]
            assert relative_error(logits.softmax(dim=0), expected, meta["train_stride"]) <= TOLERANCE

    def test_each_modality_alone(self, imported, trained):
        network, (output, features, arrays, meta) = imported[1], trained
        for m, name in enumerate(NAMES):
            alone = torch.zeros(2, 4, dtype=torch.bool)
            alone[:, m] = True
            with train_mode(network), torch.no_grad():
                logits = network.decode(features, alone).logits
            for sample in output.present[:, m].nonzero()[:, 0].tolist():
                expected = arrays[f"train/sample{sample}/uni_logits_{name}"]
                assert relative_error(logits[sample], expected, meta["train_stride"]) <= TOLERANCE, name


class TestCheckpoints:
    @each
    def test_goes_in_and_out_unchanged(self, spec):
        theirs = {f"module.{key}": value for key, value in fusion_state(spec.name, spec.made()).items()}
        network = spec.made()
        state = import_fusion(theirs, network)
        network.load_state_dict(state)
        assert len(state) == spec.tensors
        back = export_fusion(network)
        assert set(back) == set(theirs)
        assert all(torch.equal(back[key], theirs[key]) for key in theirs)

    def test_keys_that_only_the_original_mmformer_has(self):
        spec = SPECS[1]
        theirs = fusion_state(spec.name, spec.made())
        unused = {f"{m}_decode_conv.{end}": torch.zeros(1) for m in NAMES for end in ("weight", "bias")}
        assert import_fusion(theirs | unused, spec.made()).keys() == spec.made().state_dict().keys()

    @each
    def test_another_width_is_named(self, spec):
        with pytest.raises(ValueError, match=r"another shape \['.* in the network'.*another width, crop"):
            import_fusion(fusion_state(spec.name, spec.made()), spec.made(width=8))

    @pytest.mark.parametrize(("spec", "key"), [(SPECS[1], "t1_pos"), (SPECS[2], "pos (1, 40, 64)")], ids=["mm", "m2"])
    def test_another_crop_is_named(self, spec, key):
        with refused(ValueError, key, "crop"):
            import_fusion(fusion_state(spec.name, spec.made()), spec.made(crop=(32, 32, 48)))

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
            import_fusion(state(fusion_state("rfnet", rfnet), rfnet.state_dict()), network())


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

    def test_rfnet_takes_windows_of_any_size(self):
        with eval_mode(network := RFNet(width=4, crop=(16, 16, 16))), torch.no_grad():
            assert network(torch.zeros(1, 4, 24, 16, 40)).shape == (1, 4, 24, 16, 40)

    def test_rfnet_sums_over_a_volume_in_half_precision(self):
        """Sums over a whole window would overflow float16."""
        fusion = RFNet(width=4, crop=(16, 16, 16)).fusions[0]
        x, regions, present = (
            torch.ones(1, 4, 4, 64, 64, 64),
            torch.full((1, 4, 64, 64, 64), 0.25),
            torch.ones(1, 4) > 0,
        )
        expected = fusion.modality_weights(x, regions, present)
        with torch.autocast("cpu", torch.float16):
            found = fusion.modality_weights(x, regions, present)
        assert torch.allclose(found.float(), expected, atol=1e-2)
