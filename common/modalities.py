"""The vocabulary of the project: modality names, presence, subsets, label sets and regions.

A sample is one tensor ``(M, ...)`` in a cohort's modality order; a missing modality is a channel of NaN. `presence` is
the one test for it; NaN in a file is bad data, and refused where files are read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import combinations

import torch

ALIASES: dict[str, str] = {
    "t1": "t1",
    "t1n": "t1",
    "t1w": "t1",
    "t1c": "t1c",
    "t1ce": "t1c",
    "t1gd": "t1c",
    "t1post": "t1c",
    "t2": "t2",
    "t2w": "t2",
    "flair": "flair",
    "t2f": "flair",
    "fla": "flair",
    "bssfp": "bssfp",
    "c0": "bssfp",
    "lge": "lge",
    "de": "lge",
}
"""Every accepted spelling (lower case) -> canonical modality name."""

ROUNDING = 1e-5
"""Share of a modality's range within which a voxel counts as background: resampling blurs a constant by so little."""


def canonical(name: str) -> str:
    """Return the canonical name of a modality, e.g. ``T1ce`` -> ``t1c``.

    Raises:
        ValueError: the name is not known; the message lists the known ones.
    """
    try:
        return ALIASES[name.lower()]
    except KeyError:
        raise ValueError(f"Unknown modality {name!r}; expected one of {', '.join(sorted(ALIASES))}.") from None


def resolve_subset(names: Iterable[str] | None, modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the requested modalities in the cohort's order; ``None`` means all of them.

    Args:
        names: modality names or aliases, any order.
        modalities: the cohort's modalities in order.

    Raises:
        ValueError: nothing was requested, a name is not known, is not one of the cohort's, or is given twice.
    """
    if names is None:
        return tuple(modalities)
    if isinstance(names, str):
        names = names.split("+")
    wanted = [canonical(name) for name in names]
    foreign = [name for name in wanted if name not in modalities]
    if foreign:
        raise ValueError(f"Modality {foreign[0]!r} is not in this cohort; it has {', '.join(modalities)}.")
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"A modality is requested twice: {wanted}. Name each one once, absent ones not at all.")
    if not wanted:
        raise ValueError(f"No modality was requested; name at least one of {', '.join(modalities)}.")
    return tuple(name for name in modalities if name in wanted)


def subsets(modalities: Sequence[str]) -> list[tuple[str, ...]]:
    """Return all ``2^M - 1`` non-empty subsets, fewest modalities first, each in the cohort's order."""
    return [subset for size in range(1, len(modalities) + 1) for subset in combinations(modalities, size)]


def subset_name(subset: Sequence[str]) -> str:
    """Return the name of a subset in tables and files, e.g. ``t1c+flair``."""
    return "+".join(subset)


def subset_names(modalities: Sequence[str]) -> list[str]:
    """Return the names of all `subsets`, in their order."""
    return list(map(subset_name, subsets(modalities)))


def subset_size(name: str) -> int:
    """Return how many modalities the subset of this name has."""
    return name.count("+") + 1


def display_name(modality: str) -> str:
    """Return a modality's name as tables and figures print it, e.g. ``T1c``, ``FLAIR`` and ``bSSFP``."""
    return {"t1c": "T1c", "bssfp": "bSSFP"}.get(modality, modality.upper())


def display_subset(name: str) -> str:
    """Return a subset's name as tables and figures print it: ``T1c + FLAIR`` for ``t1c+flair``."""
    return " + ".join(map(display_name, name.split("+")))


def presence(image: torch.Tensor) -> torch.Tensor:
    """Return which modalities a batch holds: bool ``(B, M)``, False where a channel of ``(B, M, ...)`` holds any NaN.

    "Any" and not "all", since stock tools pad a missing channel with zeros beside its NaNs. NaN *inside* a modality
    that is there never gets this far: it is refused when the file is loaded.
    """
    return ~torch.isnan(image).flatten(2).any(dim=2)


def to_host(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU, whose values a decision in Python needs.

    Reading from a GPU waits until all of its work is done, so a training step should do this a few times at most.
    """
    return x.cpu()


def foreground(image: torch.Tensor) -> torch.Tensor:
    """Return where each modality of a batch differs from its own first voxel, a corner: bool ``(B, M, ...)``.

    In a skull-stripped image this is the brain, whatever value normalisation gave the background, and though some
    voxels of the brain are below it (BraTS-Africa). Differences up to `ROUNDING` of its range do not count. A missing
    or constant modality has no foreground.
    """
    flat = image.flatten(2)
    extent = flat.amax(dim=2, keepdim=True) - flat.amin(dim=2, keepdim=True)
    return ((flat - flat[..., :1]).abs() > ROUNDING * extent).reshape(image.shape)  # NaN > NaN is False


def drop(image: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Return ``(B, M, ...)`` with every channel where ``keep`` (bool ``(B, M)``) is False replaced by NaN."""
    mask = keep.reshape(*keep.shape, *([1] * (image.ndim - 2)))
    return torch.where(mask, image, torch.full_like(image, float("nan")))


@dataclass(frozen=True)
class LabelSet:
    """The label values of a cohort's files, the regions on which results are compared, and the targets of a softmax.

    Attributes:
        values: class name -> value in the cohort's files (background is 0).
        regions: region name -> its classes; of two that share classes, the one that contains the other comes first.
        targets: target name -> its classes, in the order of a softmax head's channels after the background; every class
            is in one, and every region is a union of them. By default each class is a target by itself.
        synonyms: value that a file may hold in place of one of ``values`` -> that one, for cohorts put together from
            several publishers' files. Reading replaces it, so that it occurs in no tensor and is never written.

    Raises:
        ValueError: the targets, or the synonyms, are not such.
    """

    values: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    synonyms: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.targets:
            object.__setattr__(self, "targets", {name: (name,) for name in self.values})
        if sorted(name for classes in self.targets.values() for name in classes) != sorted(self.values):
            raise ValueError(f"targets {dict(self.targets)}: expected each of {', '.join(self.values)} in one of them.")
        for region, classes in self.regions.items():
            if set(classes) != {name for target in self._targets_of(region) for name in self.targets[target]}:
                raise ValueError(f"Region {region} ({', '.join(classes)}) is no union of targets {dict(self.targets)}.")
        own = {0, *self.values.values()}
        if set(self.synonyms) & own or not set(self.synonyms.values()) <= own:
            raise ValueError(f"synonyms {dict(self.synonyms)}: expected other values than {own} for some of these.")

    @property
    def dtype(self) -> torch.dtype:
        """The type of label maps in the cohort's values: uint8 where they fit, else int16."""
        return torch.uint8 if max(self.values.values()) < 256 else torch.int16

    def check(self, found: Iterable[int], source: str) -> None:
        """Refuse label values that the cohort does not define.

        Args:
            found: the values that occur in a label map.
            source: the file that they come from, for the message.

        Raises:
            ValueError: an unknown value; 3 and 4 get the hint on which BraTS release uses which for ET. Or a value
                beside its synonym: in one file they are two classes.
        """
        found = set(found)
        for other, own in self.synonyms.items():
            if {other, own} <= found:
                raise ValueError(
                    f"{source}: label values {own} and {other}, which both mean one class in this cohort; expected one "
                    "of them in a file. Choose the cohort that the file belongs to (key `cohort`)."
                )
        unknown = sorted(found - {0, *self.values.values(), *self.synonyms})
        if not unknown:
            return
        hint = ""
        if "ET" in self.values and {3, 4} & set(unknown):
            hint = " Enhancing tumour is 4 in BraTS up to 2021 and 3 in BraTS 2023 and later and in MSD Task01;"
        named = ", ".join(f"{value} ({name})" for name, value in self.values.items())
        raise ValueError(
            f"{source}: label values {unknown} are not of this cohort, which has 0, {named}.{hint} "
            "choose the cohort that the file belongs to (key `cohort`)."
        )

    def read(self, label: torch.Tensor, source: str) -> torch.Tensor:
        """Return a file's label map, of any shape and type, in the cohort's own values, of type `dtype`.

        Args:
            label: what the file holds.
            source: the file, for the message.

        Raises:
            ValueError: see `check`.
        """
        self.check([int(v) if float(v).is_integer() else v for v in torch.unique(label).tolist()], source)
        own = label.to(self.dtype)
        for other, value in self.synonyms.items():
            own[label == other] = value
        return own

    def to_regions(self, label: torch.Tensor) -> torch.Tensor:
        """Turn a label map ``(1, ...)`` in the cohort's values into region masks ``(R, ...)``, uint8."""
        masks = {name: label[0] == value for name, value in self.values.items()}
        parts = [reduce(torch.logical_or, (masks[name] for name in classes)) for classes in self.regions.values()]
        return torch.stack(parts).to(torch.uint8)

    def from_regions(self, regions: torch.Tensor) -> torch.Tensor:
        """Turn region masks ``(R, ...)`` into a label map ``(1, ...)``, of type `dtype`, in the cohort's values.

        Regions are painted in their order, from larger to smaller ones, each over those before it, with the first class
        that a region has and no later one has. So a region's own mask is kept, and the larger ones become unions.
        """
        label = torch.zeros_like(regions[:1], dtype=self.dtype)
        for mask, name in zip(regions > 0, self.painted(), strict=True):
            label[0, mask] = self.values[name]
        return label

    def painted(self) -> list[str]:
        """Return for each region the class that its voxels get when no later region holds them, e.g. WT -> ED."""
        painted: list[str] = []
        later: set[str] = set()
        for classes in reversed(self.regions.values()):
            painted.insert(0, next(name for name in classes if name not in later))
            later.update(classes)
        return painted

    def to_classes(self, label: torch.Tensor) -> torch.Tensor:
        """Turn a label map ``(1, ...)`` in the cohort's values into the channels of a softmax head, long ``(1, ...)``.

        Background is 0, the first target 1, and so on.
        """
        label = label.long()
        index = torch.zeros_like(label)
        for number, classes in enumerate(self.targets.values(), start=1):
            for name in classes:
                index[label == self.values[name]] = number
        return index

    def from_classes(self, index: torch.Tensor) -> torch.Tensor:
        """Turn channels of a softmax head ``(1, ...)`` into a label map ``(1, ...)``, of type `dtype`.

        A target of several classes gets the first one's value.
        """
        values = [0, *(self.values[classes[0]] for classes in self.targets.values())]
        return torch.tensor(values, dtype=self.dtype, device=index.device)[index.long()]

    def region_probabilities(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Turn the probabilities of a softmax head ``(K, ...)`` into those of the regions ``(R, ...)``, sums over it.

        Raises:
            ValueError: K is not 1 + the number of targets.
        """
        channels = {target: number for number, target in enumerate(self.targets, start=1)}
        if len(probabilities) != len(channels) + 1:
            raise ValueError(
                f"A softmax over {len(probabilities)} classes; expected {len(channels) + 1}, the background and "
                f"{', '.join(channels)}. Give the network so many classes, or choose the cohort it was trained on."
            )
        return torch.stack([sum(probabilities[channels[t]] for t in self._targets_of(name)) for name in self.regions])

    def _targets_of(self, region: str) -> list[str]:
        return [target for target, classes in self.targets.items() if set(classes) <= set(self.regions[region])]


def tumour_labels(**values: int) -> LabelSet:
    """Return the label set of a glioma cohort (ED, NCR, ET and, in BraTS 2015, NET) with regions WT, TC and ET.

    A softmax head's channels are background, NCR, ED, (NET,) ET as in the published code, whatever the files' values.
    """
    core = tuple(name for name in ("NCR", "NET", "ET") if name in values)
    targets = {name: (name,) for name in ("NCR", "ED", "NET", "ET") if name in values}
    return LabelSet(values=values, regions={"WT": ("ED", *core), "TC": core, "ET": ("ET",)}, targets=targets)
