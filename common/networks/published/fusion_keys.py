"""Checkpoints that the authors of RFNet, mmFormer, M2FTrans, PASSION and GSS published: pure maps of keys, both ways.

A map goes from our key to theirs. Where the channels of all modalities follow each other along an axis of a weight, its
blocks are brought from their order (FLAIR, T1c, T1, T2) into ours (T1, T1c, T2, FLAIR) as well. Their classes (0
background, 1 NCR, 2 ED, 3 ET) are ours.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

AUTHORS = ("flair", "t1ce", "t1", "t2")
"""Their modalities, in their order."""
NAMES = ("t1", "t1ce", "t2", "flair")
"""The same in our order."""

Rule = tuple[str, Callable[[re.Match], str]]
"""A pattern of the beginning of our key, and what their key has in its place."""


@dataclass(frozen=True)
class KeyMap:
    """How a network's keys correspond to its authors'.

    Attributes:
        rules: the first one whose pattern matches the beginning of our key says what it is replaced by.
        blocks: pattern of our key -> axis along which the modalities' channels follow each other; what is left over at
            the end of the axis stays there.
        unused: pattern of keys that only some of their releases have, and no layer uses.
    """

    rules: Sequence[Rule]
    blocks: Mapping[str, int]
    unused: str = "(?!)"

    def theirs(self, key: str) -> str:
        """Return their key of ours."""
        for pattern, replacement in self.rules:
            match = re.match(pattern, key)
            if match:
                return replacement(match) + key[match.end() :]
        raise KeyError(key)

    def axis(self, key: str) -> int | None:
        """Return the axis of our key's weight that holds blocks of modalities, if any."""
        return next((axis for pattern, axis in self.blocks.items() if re.match(pattern, key)), None)


@dataclass(frozen=True)
class Match:
    """What an import found.

    Attributes:
        matched: our keys that were filled.
        missing: their keys that the file lacks.
        unexpected: keys of the file that the network has no place for.
        shapes: keys of the file that are of another shape, with both.
        unused: keys of the file that no layer uses, in their networks either.
    """

    matched: list[str]
    missing: list[str]
    unexpected: list[str]
    shapes: list[str]
    unused: list[str]

    def __str__(self) -> str:
        """Return one line on it."""
        return f"{len(self.matched)} tensors matched, {len(self.unused)} unused"


def import_fusion(state: Mapping[str, torch.Tensor], network: nn.Module) -> tuple[dict[str, torch.Tensor], Match]:
    """Turn a checkpoint of the authors into a state dict of our network of the same architecture and size.

    Args:
        state: their state dict (`common.io.read_weights` takes it out of what they saved around it); keys with or
            without ``module.``.
        network: an RFNet, MMFormer or M2FTrans of four modalities.

    Returns:
        The state dict, and what matched.

    Raises:
        ValueError: keys or shapes differ; the first few of each side are named, and the likely cause.
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
    """Return the weights of our network as a state dict of its authors' code; the inverse of `import_fusion`."""
    keys, order = _key_map(network), [NAMES.index(name) for name in AUTHORS]
    state, own = {}, network.state_dict()
    dims = next(value.ndim for key, value in own.items() if "encoders" in key) - 2
    for key, value in own.items():
        theirs = keys.theirs(key)
        value = _reordered(value, keys.axis(key), order)
        if re.search(r"weight_layer\.\d\.weight$", theirs):  # 1x1x1 convolutions there, linear layers here
            value = value.reshape(*value.shape, *[1] * dims)
        if theirs == "pos":  # one sequence there, one row for each modality here
            value = value.reshape(1, -1, value.shape[-1])
        state[prefix + theirs] = value
    return state


def _key_map(network: nn.Module) -> KeyMap:
    name = type(network).__name__
    if name not in KEY_MAPS or len(network.encoders) != len(AUTHORS):
        raise ValueError(
            f"{name} of {len(getattr(network, 'encoders', []))} modalities: expected {', '.join(KEY_MAPS)} of four, "
            "of which weights were published."
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
        likely = f"another architecture than {name} (key `backbone`), or weights that this software made"
        if set(found) & set(own):
            likely = "these weights were made by this software and need no import"
    elif match.missing or match.unexpected:
        likely = "another release or architecture"
    else:
        likely = "another width, crop, number of classes or size of the transformer"
    return (
        f"Not a checkpoint of this {name}: of {len(found)} tensors {len(match.matched)} have a place, "
        f"{len(match.missing)} are missing {match.missing[:3]}, {len(match.unexpected)} have no place "
        f"{match.unexpected[:3]}, {len(match.shapes)} are of another size {match.shapes[:3]}. Likely cause: {likely}."
    )


def _common(fusing: str) -> list[Rule]:
    """Return the rules for what the three networks share; ``fusing`` is their name of the fusing decoder."""
    names = {"up": "c1", "merge": "c2", "out": "out"}
    return [
        (r"encoders\.(\d)\.levels\.(\d)\.(\d)\.", lambda m: f"{NAMES[int(m[1])]}_encoder.e{_up(m[2])}_c{_up(m[3])}."),
        (r"separate\.levels\.(\d)\.(up|merge|out)\.", lambda m: f"decoder_sep.d{_up(m[1])}_{names[m[2]]}."),
        (r"separate\.head\.", lambda m: "decoder_sep.seg_layer."),
        (r"levels\.(\d)\.(up|merge|out)\.", lambda m: f"{fusing}.d{_up(m[1])}_{names[m[2]]}."),
        (r"head\.", lambda m: f"{fusing}.seg_layer."),
    ]


def _up(number: str) -> int:
    """Their levels and layers are counted from 1."""
    return int(number) + 1


def _transformer(part: str, layer: str = "0") -> str:
    """Return their name of a part of a `TransformerLayer`: ``norm1``, ``attention``, ``norm2`` or ``mlp``."""
    return {
        "norm1": f"cross_attention_list.{layer}.fn.norm",
        "attention": f"cross_attention_list.{layer}.fn.fn",
        "norm2": f"cross_ffn_list.{layer}.fn.norm",
        "mlp": f"cross_ffn_list.{layer}.fn.fn.net",
    }[part]


def _cross_layer(block: str, layer: str) -> str:
    """Their cross blocks are those of levels 4 and 5."""
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
    # Channels of the projection, and so of the coarsest entry, are those of successive tokens, not of modalities.
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
"""Class of our network -> its map."""
