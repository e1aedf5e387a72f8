"""Maps of keys between our networks and checkpoints by the authors of RFNet, mmFormer, M2FTrans, PASSION and GSS.

A map goes from our key to theirs, for import and export. If an axis of a weight holds a block of channels per modality,
the blocks are also reordered from their order (FLAIR, T1c, T1, T2) to ours (T1, T1c, T2, FLAIR). Their classes (0
background, 1 NCR, 2 ED, 3 ET) are the same as ours.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

AUTHORS = ("flair", "t1ce", "t1", "t2")
"""Modalities in the authors' order."""
NAMES = ("t1", "t1ce", "t2", "flair")
"""The same modalities in our order."""

Rule = tuple[str, Callable[[re.Match], str]]
"""Pattern of the beginning of our key, and a function that returns its replacement in the authors' key."""


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
            match = re.match(pattern, key)
            if match:
                return replacement(match) + key[match.end() :]
        raise KeyError(key)

    def axis(self, key: str) -> int | None:
        """Return the axis along which the weight of our key has a block per modality, or None."""
        return next((axis for pattern, axis in self.blocks.items() if re.match(pattern, key)), None)


@dataclass(frozen=True)
class Match:
    """Result of comparing a checkpoint's keys with a network's.

    Attributes:
        matched: our keys that were filled.
        missing: the authors' keys that the file lacks.
        unexpected: keys of the file that the network does not have.
        shapes: keys of the file with another shape than in the network, with both shapes.
        unused: keys of the file that no layer uses, not even in the authors' network.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]
    unused: list[str]

    def __str__(self) -> str:
        """Return a one-line summary."""
        return f"{len(self.matched)} tensors matched, {len(self.unused)} unused"


def import_fusion(state: Mapping[str, torch.Tensor], network: nn.Module) -> tuple[dict[str, torch.Tensor], Match]:
    """Turn an authors' checkpoint into a state dict of our network of the same architecture and size.

    Args:
        state: the authors' state dict (`common.io.read_weights` extracts it from a file); keys with or without
            ``module.``.
        network: an RFNet, MMFormer or M2FTrans of four modalities.

    Returns:
        The state dict, and the keys that matched.

    Raises:
        ValueError: if keys or shapes differ; the message names the first few of each side and the likely cause.
    """
    keys, own = _key_map(network), network.state_dict()
    expected = {key: tuple(value.shape) for key, value in export_fusion(network, prefix="").items()}
    state = {key.removeprefix("module."): value for key, value in state.items()}
    wanted = {keys.theirs(key): key for key in own}
    unused = [key for key in state if key not in wanted and re.match(keys.unused, key)]
    shapes = [
        f"{theirs} {tuple(state[theirs].shape)} in the file, {shape} in the network"
        for theirs, shape in expected.items()
        if theirs in state and state[theirs].shape != shape
    ]
    match = Match(
        matched=[ours for theirs, ours in wanted.items() if theirs in state],
        missing=[theirs for theirs in wanted if theirs not in state],
        unexpected=[key for key in state if key not in wanted and key not in unused],
        shapes=shapes,
        unused=unused,
    )
    if match.missing or match.unexpected or match.shapes:
        raise ValueError(_complaint(match, network, list(state), own))
    order = [AUTHORS.index(name) for name in NAMES]
    return {
        ours: _reordered(state[theirs].reshape(own[ours].shape), keys.axis(ours), order)
        for theirs, ours in wanted.items()
    }, match


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
    if name not in KEY_MAPS or len(network.encoders) != len(AUTHORS):
        raise ValueError(
            f"{name} of {len(getattr(network, 'encoders', []))} modalities: expected {', '.join(KEY_MAPS)} of four, "
            "whose published weights can be imported."
        )
    return KEY_MAPS[name]


def _reordered(value: torch.Tensor, axis: int | None, order: Sequence[int]) -> torch.Tensor:
    if axis is None:
        return value
    size = value.shape[axis] // len(order)
    blocks = [*value.split(size, dim=axis)]
    return torch.cat([*(blocks[index] for index in order), *blocks[len(order) :]], dim=axis)


def _complaint(match: Match, network: nn.Module, found: Sequence[str], own: Mapping[str, torch.Tensor]) -> str:
    name = type(network).__name__
    if not match.matched:
        likely = f"another architecture than {name} (key `backbone`), or weights made by this software"
        if set(found) & set(own):
            likely = "these weights were made by this software and need no import"
    elif match.missing or match.unexpected:
        likely = "another release or architecture"
    else:
        likely = "another width, crop, number of classes or size of the transformer"
    return (
        f"Not a checkpoint of this {name}: of {len(found)} tensors {len(match.matched)} match, "
        f"{len(match.missing)} are missing {match.missing[:3]}, {len(match.unexpected)} are unexpected "
        f"{match.unexpected[:3]}, {len(match.shapes)} have another shape {match.shapes[:3]}. Likely cause: {likely}."
    )


def _common(fusing: str) -> list[Rule]:
    """Return the rules for layers that the three networks share; ``fusing`` is the authors' name of that decoder."""
    names = {"up": "c1", "merge": "c2", "out": "out"}
    return [
        (r"encoders\.(\d)\.levels\.(\d)\.(\d)\.", lambda m: f"{NAMES[int(m[1])]}_encoder.e{_up(m[2])}_c{_up(m[3])}."),
        (r"separate\.levels\.(\d)\.(up|merge|out)\.", lambda m: f"decoder_sep.d{_up(m[1])}_{names[m[2]]}."),
        (r"separate\.head\.", lambda m: "decoder_sep.seg_layer."),
        (r"levels\.(\d)\.(up|merge|out)\.", lambda m: f"{fusing}.d{_up(m[1])}_{names[m[2]]}."),
        (r"head\.", lambda m: f"{fusing}.seg_layer."),
    ]


def _up(number: str) -> int:
    """Return the authors' number of a level or layer, which they count from 1."""
    return int(number) + 1


def _transformer(part: str, layer: str = "0") -> str:
    """Return the authors' name of a `TransformerLayer`'s part: ``norm1``, ``attention``, ``norm2`` or ``mlp``."""
    return {
        "norm1": f"cross_attention_list.{layer}.fn.norm",
        "attention": f"cross_attention_list.{layer}.fn.fn",
        "norm2": f"cross_ffn_list.{layer}.fn.norm",
        "mlp": f"cross_ffn_list.{layer}.fn.fn.net",
    }[part]


def _cross_layer(block: str, layer: str) -> str:
    """Return the authors' name of a layer of a cross block; their blocks are those of levels 4 and 5."""
    return f"decoder_fusion.CT{int(block) + 4}.layers.{layer}"


RFNET = KeyMap(
    rules=[
        *_common("decoder_fuse"),
        (r"regions\.(\d)\.entry\.", lambda m: f"decoder_fuse.prm_generator{_up(m[1])}.embedding_layer.0."),
        (
            r"regions\.(\d)\.embedding\.(\d)\.",
            lambda m: f"decoder_fuse.prm_generator{_up(m[1])}.embedding_layer.{_up(m[2])}.",
        ),
        (r"regions\.(\d)\.hidden\.", lambda m: f"decoder_fuse.prm_generator{_up(m[1])}.prm_layer.0."),
        (r"regions\.(\d)\.head\.", lambda m: f"decoder_fuse.prm_generator{_up(m[1])}.prm_layer.1."),
        (
            r"fusions\.(\d)\.weights\.(\d)\.(\d)\.",
            lambda m: f"decoder_fuse.RFM{_up(m[1])}.modal_fusion.{m[2]}.weight_layer.{m[3]}.",
        ),
        (
            r"fusions\.(\d)\.region_layers\.(\d)\.",
            lambda m: f"decoder_fuse.RFM{_up(m[1])}.region_fusion.fusion_layer.{m[2]}.",
        ),
        (r"fusions\.(\d)\.shortcut_entry\.", lambda m: f"decoder_fuse.RFM{_up(m[1])}.short_cut.0."),
        (r"fusions\.(\d)\.shortcut\.(\d)\.", lambda m: f"decoder_fuse.RFM{_up(m[1])}.short_cut.{m[2]}."),
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
        (r"embeddings\.(\d)\.", lambda m: f"{NAMES[int(m[1])]}_encode_conv."),
        (r"positions\.(\d)", lambda m: f"{NAMES[int(m[1])]}_pos"),
        (
            r"intra\.(\d)\.(norm1|attention|norm2|mlp)",
            lambda m: f"{NAMES[int(m[1])]}_transformer.{_transformer(m[2])}",
        ),
        (r"inter\.(norm1|attention|norm2|mlp)", lambda m: f"multimodal_transformer.{_transformer(m[1])}"),
        (r"projection\.", lambda m: "multimodal_decode_conv."),
        (r"entries\.(\d)\.", lambda m: f"decoder_fuse.RFM{_up(m[1])}.fusion_layer.0."),
        (
            r"refinements\.(\d)\.(\d)\.",
            lambda m: f"decoder_fuse.RFM{_up(m[1])}.fusion_layer.{_up(m[2])}.",
        ),
        (r"deep_heads\.(\d)\.", lambda m: f"decoder_fuse.seg_d{_up(m[1])}."),
    ],
    # The channels of the projection, and so of the coarsest entry, belong to successive tokens, not to modalities.
    blocks={r"entries\.[0-3]\.conv\.weight": 1},
    unused=r"(flair|t1ce|t1|t2)_decode_conv\.(weight|bias)$",
)

_CROSS = r"crosses\.(\d)\."
_GROUPED = {"conv1": "pwconv1", "conv2": "dwconv", "conv3": "pwconv2"}

M2FTRANS = KeyMap(
    rules=[
        *_common("decoder_fusion"),
        (r"transformer\.positions", lambda m: "pos"),
        (r"transformer\.fusion", lambda m: "fusion"),
        (
            r"transformer\.layers\.(\d)\.(norm1|attention|norm2|mlp)",
            lambda m: f"Bottleneck.trans_bottle.{_transformer(m[2], m[1])}",
        ),
        (r"fusions\.(\d)\.entry\.", lambda m: f"decoder_fusion.RFM{_up(m[1])}.fusion_layer.0."),
        (r"fusions\.(\d)\.layers\.(\d)\.", lambda m: f"decoder_fusion.RFM{_up(m[1])}.fusion_layer.{_up(m[2])}."),
        (
            _CROSS + r"attention\.(\d)\.(key|value)s\.(\d)\.",
            lambda m: f"{_cross_layer(m[1], m[2])}.cross_attn.{m[3]}_map_{NAMES[int(m[4])]}.",
        ),
        (_CROSS + r"attention\.(\d)\.query\.", lambda m: f"{_cross_layer(m[1], m[2])}.cross_attn.query_map."),
        (_CROSS + r"attention\.(\d)\.out\.", lambda m: f"{_cross_layer(m[1], m[2])}.cross_attn.out_project."),
        (
            _CROSS + r"query_refined\.(\d)\.map\.(\w+)\.",
            lambda m: f"{_cross_layer(m[1], m[2])}.ffn1.{_GROUPED.get(m[3], m[3])}.",
        ),
        (
            _CROSS + r"features_refined\.map\.(\w+)\.",
            lambda m: f"{_cross_layer(m[1], '0')}.ffn2.{_GROUPED.get(m[2], m[2])}.",
        ),
        (r"bottom\.(\d)\.", lambda m: f"decoder_fusion.d5_{('c2', 'out')[int(m[1])]}."),
        (r"deep_heads\.(\d)\.hidden\.", lambda m: f"decoder_fusion.prm_fusion{_up(m[1])}.prm_layer.0."),
        (r"deep_heads\.(\d)\.head\.", lambda m: f"decoder_fusion.prm_fusion{_up(m[1])}.prm_layer.1."),
    ],
    blocks={r"fusions\.\d\.entry\.conv\.weight": 1, r"transformer\.positions": 0},
)

KEY_MAPS = {"RFNet": RFNET, "MMFormer": MMFORMER, "M2FTrans": M2FTRANS}
"""Class of our network -> its key map."""
