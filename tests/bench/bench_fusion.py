"""Compare RFNet, mmFormer and M2FTrans with a straightforward form of each, with the same weights in the same run.

Run: python tests/bench/bench_fusion.py forms [--network RFNet] [--size 80] [--device cuda] [--tuned_allocator], or ...
distillation --size 48, for the cost of PASSION's students. Both forms take turns; ratios are medians over rounds.

The straightforward form does what the published designs do: every subset needs a full forward pass, in which all
encoders run, on zeros for absent modalities; features are stacked, masked by copying the present ones into zeros, and
concatenated; RFNet computes modalities x regions x channels at full resolution; M2FTrans sends the tokens of all
modalities and the fusion tokens through one attention with an additive mask; auxiliary heads that only training needs
are always computed; convolutions, norms and upsampling are PyTorch's own. It reads the weights of our network, so there
is only one set. It was written from the papers and the published sizes.

On a CPU, one thread is used and its CPU seconds are counted, including system time: with glibc's defaults page faults
are a large part of it, with --tuned_allocator a small one, for both forms. Live memory on a CPU is the sum of all
storages that living tensors keep, excluding weights and input: it includes what autograd saved and the gradients of
weights, but not the workspace of kernels. On a GPU it is what torch.cuda.max_memory_allocated reports, minus what was
allocated before.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from unittest.mock import patch

import fire
import numpy as np
import torch
import torch.nn.functional as F
from monai.networks import eval_mode, train_mode
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from common.losses.fusion import FusionLoss
from common.losses.passion import PassionLoss
from common.methods.passion import SelfDistillation
from common.modalities import subsets
from common.networks import M2FTrans, MMFormer, RFNet
from common.networks import blocks as blocks_of_all
from common.networks.blocks import normalised
from common.networks.fusion import Decoded, FusionOutput
from common.networks.kernels import Conv3d

NAMES = ("t1", "t1c", "t2", "flair")
NETWORKS = {network.__name__: network for network in (RFNet, MMFormer, M2FTrans)}
ALLOCATOR = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "100000000000", "MALLOC_TOP_PAD_": "268435456"}
SPACE = (-3, -2, -1)

# The straightforward form ---------------------------------------------------------------------------------------------


def masked(x: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Copy the present modalities of ``(B, M, ...)`` into zeros."""
    y = torch.zeros_like(x)
    y[present] = x[present]
    return y


def block(layer: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Apply a `ConvBlock` or a `SplitPointwise`, using its convolution directly."""
    return layer.conv(normalised(x)) if layer.pre else normalised(layer.conv(x))


def blocks(layers: Iterable[nn.Module], x: torch.Tensor) -> torch.Tensor:
    """Apply blocks one after the other."""
    for layer in layers:
        x = block(layer, x)
    return x


def encoded(network: nn.Module, image: torch.Tensor, present: torch.Tensor) -> list[torch.Tensor]:
    """Run all encoders, and return the masked features ``(B, M, C, ...)`` of each level."""
    image = masked(image, present)
    levels = zip(*(encoder(image[:, m : m + 1]) for m, encoder in enumerate(network.encoders)), strict=True)
    return [masked(torch.stack(level, dim=1), present) for level in levels]


def raised(level: nn.Module, below: torch.Tensor) -> torch.Tensor:
    """Upsample the level below to an `UpLevel` of a decoder."""
    return block(level.up, interpolated(below))


def merged(level: nn.Module, one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Merge two tensors in an `UpLevel`."""
    return blocks([level.merge, level.out], torch.cat([one, other], dim=1))


def output(
    network: nn.Module, y: torch.Tensor, deep: list[torch.Tensor], levels: list[torch.Tensor], present: torch.Tensor
) -> torch.Tensor | FusionOutput:
    """Return logits of the decoder's last tensor; in training all outputs, including those of each modality alone."""
    logits = network.head(y)
    if not network.training:
        return logits
    separate = []
    for m in range(present.shape[1]):
        *skips, x = [level[:, m] for level in levels]
        for level, skip in zip(reversed(network.separate.levels), reversed(skips), strict=True):
            x = merged(level, raised(level, x), skip)
        separate.append(network.separate.head(x))
    return FusionOutput(Decoded(logits, deep, y), masked(torch.stack(separate, dim=1), present)[present], present)


def rfnet(network: RFNet, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor | FusionOutput:
    """Forward RFNet."""
    levels = encoded(network, image, present)
    y, deep = None, []
    for level in reversed(range(len(levels))):
        guide = None if y is None else raised(network.levels[level], y)
        head = network.regions[level]
        embedded = blocks([head.entry, *head.embedding], masked(levels[level], present).flatten(1, 2))
        logits = head.head(block(head.hidden, embedded if guide is None else torch.cat([guide, embedded], dim=1)))
        regions = logits.detach().softmax(dim=1)
        fused = region_fusion(network.fusions[level], masked(levels[level], present), regions)
        y = fused if guide is None else merged(network.levels[level], fused, guide)
        deep.insert(0, logits)
    if not network.training:  # never used
        sizes = dict(size=image.shape[2:], mode="trilinear", align_corners=True)
        [F.interpolate(logits.softmax(dim=1), **sizes) for logits in deep[1:]]
    return output(network, y, deep, levels, present)


def region_fusion(fusion: nn.Module, x: torch.Tensor, regions: torch.Tensor) -> torch.Tensor:
    """Fuse masked features by region, computing the features of each modality in each region."""
    maps = regions[:, :, None].repeat(1, 1, x.shape[2], 1, 1, 1)
    in_regions = torch.stack([one[:, None] * maps for one in x.unbind(1)], dim=1)  # (B, M, K, C, ...)
    fused = []
    for k, layer in enumerate(fusion.weights):
        part, share = in_regions[:, :, k], regions[:, k].mean(SPACE)[:, None] + 1e-7
        means = part.mean(SPACE).flatten(1) / share
        weights = layer(torch.cat([means, share], dim=1))
        fused.append((part * weights[:, :, None, None, None, None]).sum(dim=1))
    by_region = blocks(fusion.region_layers, torch.cat(fused, dim=1))
    shortcut = blocks([fusion.shortcut_entry, *list(fusion.shortcut)[1:]], x.flatten(1, 2))
    return torch.cat([by_region, shortcut], dim=1)


def attention(layer: nn.Module, x: torch.Tensor, mask: torch.Tensor | float = 0.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the output of a `TransformerLayer` with an additive mask, and its attention."""
    query, key, value = layer.attention.split(layer.norm1(x))
    scores = query @ key.transpose(2, 3) * query.shape[3] ** -0.5 + mask
    weights = layer.attention.weight_dropout(scores.softmax(dim=3))
    return layer.refined(x + layer.attention.join(weights @ value)), weights


def mmformer(network: MMFormer, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor | FusionOutput:
    """Forward mmFormer."""
    levels = encoded(network, image, present)
    tokens = []
    for m, (embed, positions, layer) in enumerate(
        zip(network.embeddings, network.positions, network.intra, strict=True)
    ):
        tokens.append(attention(layer, embed(levels[-1][:, m]).flatten(2).transpose(1, 2) + positions)[0])
    tokens = masked(torch.stack(tokens, dim=1), present)
    sequence = torch.cat([tokens[:, m] + network.positions[m] for m in network.order], dim=1)
    mixed = attention(network.inter, sequence)[0]
    mixed = network.projection(mixed.reshape(len(mixed), *network.grid, -1).movedim(-1, 1))
    y, deep = blocks([network.entries[-1], *network.refinements[-1]], mixed), []
    for level in reversed(range(len(levels) - 1)):
        deep.insert(0, network.deep_heads[level](y))
        guide = raised(network.levels[level], y)
        fused = blocks([network.entries[level], *network.refinements[level]], levels[level].flatten(1, 2))
        y = merged(network.levels[level], fused, guide)
    return output(network, y, deep, levels, present)


def m2ftrans(network: M2FTrans, image: torch.Tensor, present: torch.Tensor) -> torch.Tensor | FusionOutput:
    """Forward M2FTrans."""
    levels, transformer = encoded(network, image, present), network.transformer
    modalities, count = present.shape[1], transformer.fusion.shape[1]
    maps = [one.flatten(2).transpose(1, 2) for one in levels[-1].unbind(1)]
    x = torch.cat([*maps, transformer.fusion.expand(len(image), -1, -1)], dim=1) + transformer.positions.flatten(0, 1)
    weights = None
    for layer in transformer.layers:
        mask = attention_mask(present, count, layer.attention.heads).to(x)
        x, found = attention(layer, x, mask)
        if weights is None:
            weights = found.detach()[:, :, -count:, :-count].sum(dim=(1, 2))
    weights = weights.reshape(len(image), modalities, 1, *network.grid)
    *tokens, query = (one.transpose(1, 2).unflatten(2, network.grid) for one in x.split(count, dim=1))
    features, deep = torch.stack(tokens, dim=1), []
    for level in reversed(range(len(levels))):
        head = network.deep_heads[level]
        deep.insert(0, head.head(block(head.hidden, query)))
        weighted = features * weights
        if level < len(network.fusions):
            fusion = network.fusions[level]
            fused = blocks([fusion.entry, *fusion.layers], masked(weighted, present).flatten(1, 2))
        else:
            fused = cross(network.crosses[level - len(network.fusions)], weighted, query, present)
        if level == len(levels) - 1:
            y = blocks(network.bottom, torch.cat([fused, query], dim=1))
        else:
            y = merged(network.levels[level], fused, query)
        if level:
            query, features = raised(network.levels[level - 1], y), levels[level - 1]
            weights = torch.stack([F.interpolate(one, scale_factor=2.0) for one in weights.unbind(1)], dim=1)
    return output(network, y, deep, levels, present)


def attention_mask(present: torch.Tensor, count: int, heads: int) -> torch.Tensor:
    """Return 0 where tokens see each other and minus infinity elsewhere, ``(B, heads, (M + 1) N, (M + 1) N)``."""
    masks = []
    for row in present.cpu().numpy():
        sees = np.eye(len(row) + 1)
        sees[-1, :-1] = row
        with np.errstate(divide="ignore"):
            masks.append(np.stack([np.log(np.kron(sees, np.ones((count, count))))] * heads))
    return torch.from_numpy(np.stack(masks))


def cross(block: nn.Module, features: torch.Tensor, query: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
    """Apply a `CrossBlock` to weighted features ``(B, M, C, ...)``."""
    for index, layer in enumerate(block.attention):
        maps = list(features.unbind(1))
        asked = channel_map(layer.query, query).flatten(2)
        key, value = (
            torch.cat([channel_map(one, x).flatten(2) for one, x in zip(side, maps, strict=True)], dim=1)
            for side in (layer.keys, layer.values)
        )
        scores = asked @ key.transpose(1, 2) * asked.shape[2] ** -0.5
        hidden = ~present.repeat_interleave(query.shape[1], dim=1)[:, None]
        found = scores.masked_fill(hidden, -torch.inf).softmax(dim=2) @ value
        query = query + layer.dropout(channel_map(layer.out, found.reshape(query.shape)))
        query = F.gelu(query + channel_map(block.query_refined[index].map, query))
        if index == 0:
            features = torch.stack([F.gelu(x + channel_map(block.features_refined.map, x)) for x in maps], dim=1)
    return query


def channel_map(layers: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Apply a `ChannelMap`, using its convolutions directly."""
    for number in (1, 2, 3):
        x = getattr(layers, f"conv{number}")(x)
        x = getattr(layers, f"norm{number}")(x.movedim(1, -1)).movedim(-1, 1)
        x = F.gelu(x) if number < 3 else x
    return x


STRAIGHTFORWARD = {"RFNet": rfnet, "MMFormer": mmformer, "M2FTrans": m2ftrans}


@contextmanager
def usual_kernels() -> Iterator[None]:
    """Within, use PyTorch's own convolutions, instance norm and upsampling."""
    with (
        patch.object(Conv3d, "_is_slow", lambda *_: False),
        patch.object(blocks_of_all, "instance_norm", F.instance_norm),
        patch.object(blocks_of_all, "upsampled", interpolated),
    ):
        yield


def interpolated(x: torch.Tensor) -> torch.Tensor:
    """Return ``(B, C, X, Y, Z)`` at twice the resolution, linearly, corners aligned."""
    return F.interpolate(x, scale_factor=2, mode="trilinear", align_corners=True)


# What is measured -----------------------------------------------------------------------------------------------------


class LiveMemory(TorchDispatchMode):
    """Count the bytes of the storages that tensors created inside this context keep alive.

    Attributes:
        peak: the largest sum after any operation.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live, self.peak, self.known = 0, 0, weakref.WeakSet()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        given = {leaf.untyped_storage().data_ptr() for leaf in tree_leaves((args, kwargs)) if torch.is_tensor(leaf)}
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if torch.is_tensor(leaf) and leaf.untyped_storage().data_ptr() not in given:
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self.known:
            return
        self.known.add(storage)
        self.live += storage.nbytes()
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._freed, storage.nbytes())

    def _freed(self, size: int) -> None:
        self.live -= size


def peak_memory(what: Callable[[], object], device: str) -> float:
    """Return the peak of the live memory during a call in megabytes (10^6 bytes)."""
    if device == "cpu":
        with LiveMemory() as memory:
            what()
        return memory.peak / 1e6
    torch.cuda.synchronize()
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    what()
    return (torch.cuda.max_memory_allocated() - before) / 1e6


def seconds(what: Callable[[], object], device: str) -> float:
    """Return the CPU seconds of a call; on a GPU the elapsed time."""
    if device == "cpu":
        start = time.process_time()
        what()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    what()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def interleaved(forms: Sequence[Callable[[], object]], rounds: int, device: str) -> list[list[float]]:
    """Return the seconds of each form in each round; the form that runs first alternates between rounds."""
    spent = [[] for _ in forms]
    for number in range(rounds):
        for index in sorted(range(len(forms)), reverse=bool(number % 2)):
            spent[index].append(seconds(forms[index], device))
    return spent


def observed(what: Callable[[], object], network: nn.Module) -> tuple[object, float, int]:
    """Return a call's result, its products and convolutions in 10^9 operations, and how often encoders ran."""
    calls = []
    hooks = [encoder.register_forward_hook(lambda *_: calls.append(1)) for encoder in network.encoders]
    with FlopCounterMode(display=False) as counter:
        result = what()
    for hook in hooks:
        hook.remove()
    return result, counter.get_total_flops() / 1e9, len(calls)


def training_step(network: nn.Module, forward: Callable[[], FusionOutput]) -> None:
    """Run forward and backward of the mean squares of all outputs."""
    network.zero_grad()  # so gradients count as memory of the step
    made = forward()
    outputs = [made.fused.logits, *made.fused.deep, made.separate]
    sum(one.square().mean() for one in outputs).backward()


def gradients(network: nn.Module, forward: Callable[[], FusionOutput]) -> list[torch.Tensor]:
    """Return the gradients of a training step without dropout."""
    rates = {layer: layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)}
    for layer in rates:
        layer.p = 0.0
    training_step(network, forward)
    for layer, rate in rates.items():
        layer.p = rate
    return [parameter.grad for parameter in network.parameters()]


def table(title: str, columns: Iterable[str]) -> None:
    """Print a table's head."""
    print(f"\n### {title}\n\n| | {' | '.join(columns)} | ratio |\n| --- | --- | --- | --- |")


def row(name: str, slow: float | Sequence[float], fast: float | Sequence[float]) -> None:
    """Print a row of the table: the values of both forms and their ratio, or medians over rounds."""
    slow, fast = np.atleast_1d(slow), np.atleast_1d(fast)
    print(f"| {name} | {np.median(slow):.4g} | {np.median(fast):.4g} | {np.median(slow / fast):.2f} |", flush=True)


def compare(network: nn.Module, size: int, rounds: int, device: str) -> None:
    """Print the table of one network, and how much the results of the two forms differ."""
    name = type(network).__name__
    torch.manual_seed(1)
    image = torch.randn(1, len(NAMES), size, size, size, device=device)
    keep = torch.tensor([[modality in subset for modality in NAMES] for subset in subsets(NAMES)], device=device)

    def slow(present: torch.Tensor = keep[-1]) -> torch.Tensor | FusionOutput:
        with usual_kernels():
            return STRAIGHTFORWARD[name](network, image, present[None])

    def fast() -> torch.Tensor | FusionOutput:
        return network(image)

    def slow_sweep() -> torch.Tensor:
        return torch.cat([slow(present).softmax(dim=1) for present in keep])

    def fast_sweep() -> torch.Tensor:
        features = network.encode(image)
        return torch.cat([network.decode(features, present[None]).softmax(dim=1) for present in keep])

    def bfloat16_sweep() -> torch.Tensor:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            return fast_sweep()

    table(f"{name}, {size}^3", ["straightforward", "here"])
    with eval_mode(network), torch.no_grad():
        (one, *slow_costs), (other, *fast_costs) = (observed(sweep, network) for sweep in (slow_sweep, fast_sweep))
        rounded = bfloat16_sweep()
        difference, rounding = (one - other).abs().max(), (one - rounded).abs().max()
        equal, as_equal = (
            (one.argmax(dim=1) == made.argmax(dim=1)).double().mean(dim=(1, 2, 3)) for made in (other, rounded)
        )
        del one, other, rounded
        spent = interleaved([slow_sweep, fast_sweep, bfloat16_sweep], rounds, device)
        row("15 subsets, s", *spent[:2])
        row("15 subsets, here in bfloat16, s", spent[0], spent[2])
        row("15 subsets, GFLOP", slow_costs[0], fast_costs[0])
        row("15 subsets, encodings", slow_costs[1], fast_costs[1])
        row("one forward, s", *interleaved([slow, fast], rounds, device))
        row("one forward, GFLOP", *(observed(form, network)[1] for form in (slow, fast)))
        row("one forward, live MB", *(peak_memory(form, device) for form in (slow, fast)))
    with train_mode(network):
        (one, slow_work, _), (other, fast_work, _) = (
            observed(lambda form=form: gradients(network, form), network) for form in (slow, fast)
        )
        apart = max((a - b).abs().max() for a, b in zip(one, other, strict=True)) / max(a.abs().max() for a in one)
        del one, other
        steps = [lambda form=form: training_step(network, form) for form in (slow, fast)]
        row("training step, s", *interleaved(steps, rounds, device))
        row("training step, GFLOP", slow_work, fast_work)
        row("training step, live MB", *(peak_memory(step, device) for step in steps))
    print(
        f"\nProbabilities differ by {difference:.1e} at most; labels are equal in {equal.mean():.4%} of voxels, "
        f"{equal.min():.4%} in the worst subset. In bfloat16 they differ by {rounding:.1e} at most, labels are equal "
        f"in {as_equal.mean():.4%} of voxels. Gradients differ by {apart:.1e} of the largest one at most."
    )


class Bench:
    """Settings of the measurement.

    Args:
        network: RFNet, MMFormer or M2FTrans.
        size: edge of the window in voxels.
        width: channels at full resolution.
        rounds: how often each form has its turn.
        device: ``cpu`` or ``cuda``.
        threads: on a CPU.
        tuned_allocator: keep freed memory, see above; this program starts anew for it.
    """

    def __init__(
        self,
        network: str = "RFNet",
        size: int = 64,
        width: int = 8,
        rounds: int = 3,
        device: str = "cpu",
        threads: int = 1,
        tuned_allocator: bool = False,
    ) -> None:
        if tuned_allocator and any(os.environ.get(key) != value for key, value in ALLOCATOR.items()):
            os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR)
        torch.set_num_threads(threads)
        kind = torch.cuda.get_device_name() if device != "cpu" else f"CPU, {threads} thread(s)"
        print(f"{kind}; allocator {'tuned' if tuned_allocator else 'as it is'}; torch {torch.__version__}")
        torch.manual_seed(0)
        self._network = NETWORKS[network](width=width, crop=(size,) * 3).to(device)
        self._size, self._rounds, self._device = size, rounds, device

    def forms(self) -> None:
        """Compare both forms of a network: 15 subsets of a window, a forward pass, a training step."""
        compare(self._network, self._size, self._rounds, self._device)

    def distillation(self) -> None:
        """Print the cost of a training step of PASSION and of its backbone, including the losses."""
        size, device, backbone = self._size, self._device, self._network
        image = torch.randn(1, len(NAMES), size, size, size, device=device)
        label = torch.randint(4, (1, 1, size, size, size), device=device)
        methods = {
            "PASSION": (SelfDistillation(backbone), PassionLoss(NAMES, (5, 10, 8, 4), 10).to(device)),
            "backbone": (backbone, FusionLoss()),
        }

        def step(method: nn.Module, loss: nn.Module) -> None:
            backbone.zero_grad()
            loss(method(image), label).backward()

        steps = [lambda pair=pair: step(*pair) for pair in methods.values()]
        table(f"{type(backbone).__name__}, {size}^3", methods)
        work = [observed(one, backbone)[1] for one in steps]  # warms up
        row("training step, s", *interleaved(steps, self._rounds, device))
        row("training step, GFLOP", *work)
        row("training step, live MB", *(peak_memory(one, device) for one in steps))


if __name__ == "__main__":
    fire.Fire(Bench)
