"""Maps of keys between our networks and checkpoints by the authors of RFNet, mmFormer, M2FTrans, PASSION and GSS.

A map goes from our key to theirs, for import and export. If an axis of a weight holds a block of channels per modality,
the blocks are also reordered from their order (FLAIR, T1c, T1, T2) to ours (T1, T1c, T2, FLAIR). Their classes (0
background, 1 NCR, 2 ED, 3 ET) are the same as ours.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from mmb.authors.matching import fits, require_match

AUTHORS = ("flair", "t1ce", "t1", "t2")  # modalities in the authors' order
NAMES = ("t1", "t1ce", "t2", "flair")  # the same modalities in our order
Rule = tuple[str, str]
"""Pattern of the beginning of our key, and its replacement in the authors' key, with each `_Group` by its number."""


@dataclass(frozen=True)
class KeyMap:
    """Correspondence of a network's keys to its authors' keys.

    Attributes:
        rules: the first rule whose pattern matches the beginning of our key gives its replacement.
        blocks: pattern of our key -> axis of the weight that has one block per modality; further entries at the end of
            the axis stay there.
        unused: pattern of keys that occur only in some releases and are used by no layer.
    """

    rules: Sequence[Rule]
    blocks: Mapping[str, int]
    unused: str = "(?!)"

    def theirs(self, key: str) -> str:
        """Return the authors' key for ours."""
        for pattern, replacement in self.rules:
            if match := re.match(pattern, key):
                return replacement.format(key, *map(_Group, match.groups())) + key[match.end() :]
        raise KeyError(key)

    def axis(self, key: str) -> int | None:
        """Return the axis along which the weight of our key has a block per modality, or None."""
        return next((axis for pattern, axis in self.blocks.items() if re.match(pattern, key)), None)


def import_fusion(state: Mapping[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Turn an authors' checkpoint into a state dict of our network of the same architecture and size.

    The keys of ``state`` (`common.io.checkpoints.read_weights` extracts it from a file) may begin with ``module.``; the
    network is an RFNet, MMFormer or M2FTrans of four modalities.
    """
    keys, own, order = _key_map(network), network.state_dict(), [AUTHORS.index(name) for name in NAMES]
    state = {key.removeprefix("module."): value for key, value in state.items()}
    shapes = {key: value.shape for key, value in export_fusion(network, prefix="").items()}
    require_match(state, shapes, f"this {type(network).__name__}", keys.unused)
    return {
        key: _reordered(state[keys.theirs(key)].reshape(value.shape), keys.axis(key), order)
        for key, value in own.items()
    }


def fits_fusion(state: Iterable[str], network: nn.Module) -> bool:
    """Return whether these are keys of the authors' network of this architecture, without ``module.``."""
    return fits(state, export_fusion(network, prefix=""), _key_map(network).unused)


def export_fusion(network: nn.Module, prefix: str = "module.") -> dict[str, torch.Tensor]:
    """Return the weights of our network as a state dict for the authors' code; the inverse of `import_fusion`."""
    keys, order = _key_map(network), [NAMES.index(name) for name in AUTHORS]
    state, own = {}, network.state_dict()
    dims = next(value.ndim for key, value in own.items() if "encoders" in key) - 2
    for key, value in own.items():
        theirs = keys.theirs(key)
        value = _reordered(value, keys.axis(key), order)
        if re.search(r"weight_layer\.\d\.weight$", theirs):  # the authors use 1x1x1 convolutions for our linear layers
            value = value.reshape(*value.shape, *[1] * dims)
        if theirs == "pos":  # the authors keep one sequence, we one row for each modality
            value = value.reshape(1, -1, value.shape[-1])
        state[prefix + theirs] = value
    return state


def _key_map(network: nn.Module) -> KeyMap:
    name = type(network).__name__
    encoders = getattr(network, "encoders", [])
    if name not in KEY_MAPS or len(encoders) != len(AUTHORS):
        raise ValueError(
            f"{name} of {len(encoders)} modalities: expected {', '.join(KEY_MAPS)} of four, "
            "whose published weights can be imported."
        )
    return KEY_MAPS[name]


def _reordered(value: torch.Tensor, axis: int | None, order: Sequence[int]) -> torch.Tensor:
    if axis is None:
        return value
    size = value.shape[axis] // len(order)
    blocks = [*value.split(size, dim=axis)]
    return torch.cat([*(blocks[index] for index in order), *blocks[len(order) :]], dim=axis)


class _Group(str):
    """What a group of a rule's pattern matched in our key, in the authors' terms."""

    up = property(lambda self: int(self) + 1, doc="A number of a level or layer, which the authors count from 1.")
    cross = property(lambda self: int(self) + 4, doc="The level of a cross block: 4 or 5.")
    name = property(lambda self: NAMES[int(self)], doc="A modality.")
    layer = property(lambda self: _LAYERS[self], doc="A layer of a decoder's level or of a `TransformerLayer`.")
    conv = property(lambda self: _CONVOLUTIONS.get(self, self), doc="A layer of a `ChannelMap`.")
    kind = property(lambda self: f"cross_{'attention' if self in ('norm1', 'attention') else 'ffn'}_list")


_LAYERS: dict[str, str] = {
    **{"up": "c1", "merge": "c2", "out": "out", "0": "c2", "1": "out"},
    **{"norm1": "norm", "attention": "fn", "norm2": "norm", "mlp": "fn.net"},
}
_CONVOLUTIONS: dict[str, str] = {"conv1": "pwconv1", "conv2": "dwconv", "conv3": "pwconv2"}
_PART = r"(norm1|attention|norm2|mlp)"
_CROSS = r"crosses\.(\d)\."


def _common(fusing: str) -> list[Rule]:
    """Return the rules for layers that the three networks share; ``fusing`` is the authors' name of that decoder."""
    return [
        (r"encoders\.(\d)\.levels\.(\d)\.(\d)\.", "{1.name}_encoder.e{2.up}_c{3.up}."),
        (r"separate\.levels\.(\d)\.(up|merge|out)\.", "decoder_sep.d{1.up}_{2.layer}."),
        (r"separate\.head\.", "decoder_sep.seg_layer."),
        (r"levels\.(\d)\.(up|merge|out)\.", fusing + ".d{1.up}_{2.layer}."),
        (r"head\.", fusing + ".seg_layer."),
    ]


RFNET = KeyMap(
    rules=[
        *_common("decoder_fuse"),
        (r"regions\.(\d)\.entry\.", "decoder_fuse.prm_generator{1.up}.embedding_layer.0."),
        (r"regions\.(\d)\.embedding\.(\d)\.", "decoder_fuse.prm_generator{1.up}.embedding_layer.{2.up}."),
        (r"regions\.(\d)\.hidden\.", "decoder_fuse.prm_generator{1.up}.prm_layer.0."),
        (r"regions\.(\d)\.head\.", "decoder_fuse.prm_generator{1.up}.prm_layer.1."),
        (r"fusions\.(\d)\.weights\.(\d)\.(\d)\.", "decoder_fuse.RFM{1.up}.modal_fusion.{2}.weight_layer.{3}."),
        (r"fusions\.(\d)\.region_layers\.(\d)\.", "decoder_fuse.RFM{1.up}.region_fusion.fusion_layer.{2}."),
        (r"fusions\.(\d)\.shortcut_entry\.", "decoder_fuse.RFM{1.up}.short_cut.0."),
        (r"fusions\.(\d)\.shortcut\.(\d)\.", "decoder_fuse.RFM{1.up}.short_cut.{2}."),
    ],
    blocks={
        r".*entry\.conv\.weight": 1,
        r"fusions\.\d\.weights\.\d\.0\.weight": 1,
        r"fusions\.\d\.weights\.\d\.2\.": 0,
    },
)

MMFORMER = KeyMap(
    rules=[
        *_common("decoder_fuse"),
        (r"embeddings\.(\d)\.", "{1.name}_encode_conv."),
        (r"positions\.(\d)", "{1.name}_pos"),
        (rf"intra\.(\d)\.{_PART}", "{1.name}_transformer.{2.kind}.0.fn.{2.layer}"),
        (rf"inter\.{_PART}", "multimodal_transformer.{1.kind}.0.fn.{1.layer}"),
        (r"projection\.", "multimodal_decode_conv."),
        (r"entries\.(\d)\.", "decoder_fuse.RFM{1.up}.fusion_layer.0."),
        (r"refinements\.(\d)\.(\d)\.", "decoder_fuse.RFM{1.up}.fusion_layer.{2.up}."),
        (r"deep_heads\.(\d)\.", "decoder_fuse.seg_d{1.up}."),
    ],
    # The channels of the projection, and so of the coarsest entry, belong to successive tokens, not to modalities.
    blocks={r"entries\.[0-3]\.conv\.weight": 1},
    unused=r"(flair|t1ce|t1|t2)_decode_conv\.(weight|bias)$",
)

M2FTRANS = KeyMap(
    rules=[
        *_common("decoder_fusion"),
        (r"transformer\.positions", "pos"),
        (r"transformer\.fusion", "fusion"),
        (rf"transformer\.layers\.(\d)\.{_PART}", "Bottleneck.trans_bottle.{2.kind}.{1}.fn.{2.layer}"),
        (r"fusions\.(\d)\.entry\.", "decoder_fusion.RFM{1.up}.fusion_layer.0."),
        (r"fusions\.(\d)\.layers\.(\d)\.", "decoder_fusion.RFM{1.up}.fusion_layer.{2.up}."),
        (
            _CROSS + r"attention\.(\d)\.(key|value)s\.(\d)\.",
            "decoder_fusion.CT{1.cross}.layers.{2}.cross_attn.{3}_map_{4.name}.",
        ),
        (_CROSS + r"attention\.(\d)\.query\.", "decoder_fusion.CT{1.cross}.layers.{2}.cross_attn.query_map."),
        (_CROSS + r"attention\.(\d)\.out\.", "decoder_fusion.CT{1.cross}.layers.{2}.cross_attn.out_project."),
        (_CROSS + r"query_refined\.(\d)\.map\.(\w+)\.", "decoder_fusion.CT{1.cross}.layers.{2}.ffn1.{3.conv}."),
        (_CROSS + r"features_refined\.map\.(\w+)\.", "decoder_fusion.CT{1.cross}.layers.0.ffn2.{2.conv}."),
        (r"bottom\.(\d)\.", "decoder_fusion.d5_{1.layer}."),
        (r"deep_heads\.(\d)\.hidden\.", "decoder_fusion.prm_fusion{1.up}.prm_layer.0."),
        (r"deep_heads\.(\d)\.head\.", "decoder_fusion.prm_fusion{1.up}.prm_layer.1."),
    ],
    blocks={r"fusions\.\d\.entry\.conv\.weight": 1, r"transformer\.positions": 0},
)

KEY_MAPS = {"RFNet": RFNET, "MMFormer": MMFORMER, "M2FTrans": M2FTRANS}
"""Class of our network -> its key map."""
