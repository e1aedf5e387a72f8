"""The vocabulary of the project: modality names, presence, subsets, label sets and regions.

A sample is one tensor ``(M, ...)`` in a cohort's modality order; a missing modality is a channel of NaN. `presence` is
the only test for missing modalities. NaN inside a modality that is present is bad data, refused when the file is read.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import reduce
from itertools import combinations
from typing import Any

import torch

_SPELLINGS = {
    "t1": ("t1n", "t1w", "t1pre"),
    "t1c": ("t1ce", "t1gd", "t1post", "t1wce", "ct1"),
    "t2": ("t2w",),
    "flair": ("t2f", "fla", "t2flair"),
    "bssfp": ("c0",),
    "lge": ("de",),
}
ALIASES = {alias: name for name, others in _SPELLINGS.items() for alias in (name, *others)}
"""Accepted spelling (lower case) -> canonical modality name."""
GLIOMA = ("t1", "t1c", "t2", "flair")
"""Modalities of the glioma cohorts, in order."""
SHOWN_BY_T1C = ("TC", "ET")
"""Regions of gliomas whose border only T1c shows."""
IGNORED = 255
"""Value of a voxel in label maps, class indices and region masks that neither losses nor metrics count."""
ROUNDING = 1e-5
"""Fraction of a modality's intensity range within which a voxel still counts as background (interpolation error)."""


def spellings(modalities: Sequence[str]) -> dict[str, str]:
    """Return every accepted spelling (lower case) of some modalities, their own names included -> the modality."""
    return {alias: name for alias, name in ALIASES.items() if name in modalities} | {name: name for name in modalities}


def canonical(name: str, own: Sequence[str] = ()) -> str:
    """Return the canonical name of a modality, e.g. ``T1ce`` -> ``t1c``; ``own`` are further names of a cohort."""
    known = ALIASES | {each: each for each in own}
    if name.lower() not in known:
        raise ValueError(f"Unknown modality {name!r}; expected one of {', '.join(sorted(known))}.")
    return known[name.lower()]


def resolve_subset(names: Iterable[str] | None, modalities: Sequence[str]) -> tuple[str, ...]:
    """Return the requested modalities, names or aliases in any order, in the cohort's order; None means all of them.

    Examples:
        >>> from common.modalities import resolve_subset
        >>> resolve_subset(["FLAIR", "T1ce"], ["t1", "t1c", "t2", "flair"])
        ('t1c', 'flair')
    """
    if names is None:
        return tuple(modalities)
    if isinstance(names, str):
        names = names.split("+")
    names = list(names) if isinstance(names, Iterable) else [names]
    if unknown := [name for name in names if str(name).lower() not in {*ALIASES, *modalities}]:
        raise ValueError(f"Unknown modality {unknown[0]!r}; expected one of {', '.join(modalities)}.")
    wanted = [canonical(name, modalities) for name in names]
    foreign = [name for name in wanted if name not in modalities]
    if foreign:
        raise ValueError(f"Modality {foreign[0]!r} is not in this cohort; it has {', '.join(modalities)}.")
    if len(set(wanted)) != len(wanted):
        raise ValueError(f"A modality is requested twice: {wanted}. Name each modality once and leave out absent ones.")
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
    """Return the number of modalities in the subset with this name."""
    return name.count("+") + 1


def display_name(modality: str) -> str:
    """Return a modality's name as tables and figures print it, e.g. ``T1c``, ``FLAIR`` and ``bSSFP``."""
    return {"t1c": "T1c", "bssfp": "bSSFP"}.get(modality, modality.upper())


def display_subset(name: str) -> str:
    """Return a subset's name as tables and figures print it: ``T1c + FLAIR`` for ``t1c+flair``."""
    return " + ".join(map(display_name, name.split("+")))


def presence(image: torch.Tensor) -> torch.Tensor:
    """Return which modalities a batch holds: bool ``(B, M)``, False where a channel of ``(B, M, ...)`` holds any NaN.

    A channel counts as missing if any voxel is NaN, not only if all are, because padding in stock tools puts zeros
    beside the NaNs. NaN inside a present modality does not occur here: such a file is refused when it is loaded.

    Examples:
        >>> import torch
        >>> from common.modalities import presence
        >>> image = torch.rand(1, 4, 16, 16, 16)  # T1, T1c, T2 and FLAIR of one subject
        >>> image[:, [0, 2]] = torch.nan  # T1 and T2 are missing
        >>> presence(image)
        tensor([[False,  True, False,  True]])
    """
    return ~torch.isnan(image).flatten(2).any(dim=2)


def to_host(x: torch.Tensor) -> torch.Tensor:
    """Return a tensor on the CPU, for a decision that Python makes based on its values.

    Reading from a GPU waits until its queued work is done, so call this only a few times per training step.
    """
    return x.cpu()


def require_modality(present: torch.Tensor) -> None:
    """Refuse ``present``, bool ``(B, M)``, if a sample has no modality."""
    if not bool(present.any(dim=1).all()):
        raise ValueError(
            "A sample has no modality present; expected at least one. Leave the case out, or use one that it has."
        )


def foreground(image: torch.Tensor) -> torch.Tensor:
    """Return where each modality of a batch differs from its first voxel, which lies in a corner: bool ``(B, M, ...)``.

    In a skull-stripped image this is the brain, whatever value normalisation gave the background, even if some brain
    voxels are darker than the background (as in BraTS-Africa). Differences of up to `ROUNDING` of the modality's range
    are ignored. A missing or constant modality has no foreground.
    """
    flat = image.flatten(2)
    extent = flat.amax(dim=2, keepdim=True) - flat.amin(dim=2, keepdim=True)
    return ((flat - flat[..., :1]).abs() > ROUNDING * extent).reshape(image.shape)  # NaN > NaN is False


def drop(image: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    """Return ``(B, M, ...)`` with every channel where ``keep`` (bool ``(B, M)``) is False replaced by NaN.

    Examples:
        >>> import torch
        >>> from common.modalities import drop
        >>> image = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])  # one subject, two modalities of two voxels
        >>> drop(image, keep=torch.tensor([[False, True]]))
        tensor([[[nan, nan],
                 [3., 4.]]])
    """
    mask = keep.reshape(*keep.shape, *([1] * (image.ndim - 2)))
    return torch.where(mask, image, torch.full_like(image, float("nan")))


@dataclass(frozen=True)
class LabelSet:
    """The label values of a cohort's files, the regions on which results are compared, and the targets of a softmax.

    Attributes:
        values: class name -> value in the cohort's files (background is 0).
        regions: region name -> its classes; a region that contains another region comes before it.
        targets: target name -> its classes, in the order of a softmax head's channels after the background. Every class
            belongs to one target, and every region is a union of targets. By default each class is its own target.
        synonyms: value that a file may hold instead of one of ``values`` -> that value, for cohorts that combine files
            of several publishers. Synonyms are replaced on reading, so no tensor and no output contains them.
        background: class name -> value in the files that is read as background.
        ignored: class name -> value in the files that is read as `IGNORED`.

    Examples:
        >>> import torch
        >>> from common.modalities import LabelSet
        >>> labels = LabelSet({"oedema": 1, "core": 4}, regions={"whole": ("oedema", "core"), "core": ("core",)})
        >>> labels.to_regions(torch.tensor([[0, 1, 4]]))
        tensor([[0, 1, 1],
                [0, 0, 1]], dtype=torch.uint8)
        >>> labels.to_classes(torch.tensor([[0, 1, 4]]))
        tensor([[0, 1, 2]])
    """

    values: Mapping[str, int]
    regions: Mapping[str, tuple[str, ...]]
    targets: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    synonyms: Mapping[int, int] = field(default_factory=dict)
    background: Mapping[str, int] = field(default_factory=dict)
    ignored: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.targets:
            object.__setattr__(self, "targets", {name: (name,) for name in self.values})
        if sorted(name for classes in self.targets.values() for name in classes) != sorted(self.values):
            raise ValueError(f"targets {dict(self.targets)}: expected each of {', '.join(self.values)} in one target.")
        for region, classes in self.regions.items():
            if set(classes) != {name for target in self._targets_of(region) for name in self.targets[target]}:
                raise ValueError(f"Region {region} ({', '.join(classes)}) is not a union of {dict(self.targets)}.")
        self._require_representable()
        own = {0, *self.meanings.values()}
        if set(self.synonyms) & own or not set(self.synonyms.values()) <= own:
            raise ValueError(f"synonyms {dict(self.synonyms)}: expected values not in {own}, mapped to values in it.")

    def _require_representable(self) -> None:
        """Refuse regions of which even perfect masks become another label map (`from_regions`)."""
        lie_in = {name: [r for r, classes in self.regions.items() if name in classes] for name in self.values}
        painted = dict(zip(self.regions, self.painted(), strict=True))
        for name, found in lie_in.items():
            if found and lie_in[painted[found[-1]]] != found:
                raise ValueError(
                    f"Regions {', '.join(found)} overlap in {name}, which a label map of the regions cannot show: "
                    "expected a region of what they share, after them, and larger regions first."
                )

    @property
    def dtype(self) -> torch.dtype:
        """Data type of label maps in the cohort's values: uint8 if they fit, else int16."""
        return torch.uint8 if max(self.values.values()) < 256 else torch.int16

    def check(self, found: Iterable[int], source: str) -> None:
        """Refuse values of a file's label map that the cohort does not define; ``source`` is the file's name.

        Raises ValueError if a value is unknown or not a whole number, or occurs together with its synonym, since in one
        file they are two classes.
        """
        found = set(found)
        if parts := sorted(value for value in found if not float(value).is_integer()):
            raise ValueError(
                f"{source}: label values {', '.join(f'{value:g}' for value in parts[:5])} are no whole numbers, as "
                "after an interpolation, or in a map of probabilities. Resample label maps by nearest neighbour."
            )
        for other, own in self.synonyms.items():
            if {other, own} <= found:
                raise ValueError(
                    f"{source}: label values {own} and {other} both stand for one class in this cohort; "
                    "expected only one of them in a file. Choose the cohort that the file belongs to (key `cohort`)."
                )
        if unknown := sorted(found - self.known):
            named = ", ".join(f"{value} ({name})" for name, value in self.meanings.items())
            raise ValueError(
                f"{source}: label values {unknown} are not defined in this cohort. It has 0, {named}. Choose the "
                "cohort that the file belongs to (key `cohort`): `mmb check COHORT FOLDER` names it."
            )

    @property
    def meanings(self) -> dict[str, int]:
        """Every class that a file may hold -> its value, whether it is trained, read as background or ignored."""
        return {**self.values, **self.background, **self.ignored}

    @property
    def known(self) -> set[int]:
        """Every value that a file may hold, 0 and synonyms included."""
        return {0, *self.meanings.values(), *self.synonyms}

    def class_of(self, value: float) -> str | None:
        """Return the class that a value in a file means, or None."""
        value = next((own for other, own in self.synonyms.items() if other == value), value)
        return next((name for name, own in self.meanings.items() if own == value), None)

    def read(self, label: torch.Tensor, source: str) -> torch.Tensor:
        """Return a file's label map with the cohort's own values and of type `dtype`, whatever its shape and type."""
        self.check([int(v) if float(v).is_integer() else v for v in torch.unique(label).tolist()], source)
        own = label.to(self.dtype)
        unused = dict.fromkeys(self.background.values(), 0) | dict.fromkeys(self.ignored.values(), IGNORED)
        for other, value in {**self.synonyms, **unused}.items():
            own[label == other] = value
        return own

    def adopt(self, label: torch.Tensor, other: "LabelSet") -> torch.Tensor:
        """Return a label map that another label set has read, with the values that its classes have here.

        Classes are matched by name. Parts of the tumour core that do not enhance (NET and CC) become NCR if this label
        set lacks them. A class that this label set reads as background is 0, one that it ignores `IGNORED`.
        """
        own = torch.zeros_like(label, dtype=self.dtype)
        for name, value in other.values.items():
            counterpart = self._counterpart(name)
            own[label == value] = IGNORED if counterpart in self.ignored else self.values.get(counterpart, 0)
        own[label == IGNORED] = IGNORED
        return own

    def require_counterparts(self, other: "LabelSet") -> None:
        """Refuse a label set with a class that has no counterpart here; see `adopt`."""
        for name, value in other.values.items():
            if self._counterpart(name) not in self.meanings:
                raise ValueError(
                    f"its class {name} (value {value}) has no counterpart among {', '.join(self.meanings)}."
                )

    def _counterpart(self, name: str) -> str:
        return name if name in self.meanings else _COUNTERPARTS.get(name, name)

    def to_regions(self, label: torch.Tensor) -> torch.Tensor:
        """Turn a label map ``(1, ...)`` in the cohort's values into region masks ``(R, ...)``, uint8.

        A voxel that is `IGNORED` is so in every mask.
        """
        masks = {name: label[0] == value for name, value in self.values.items()}
        parts = [reduce(torch.logical_or, (masks[name] for name in classes)) for classes in self.regions.values()]
        return torch.stack(parts).to(torch.uint8).masked_fill_(label == IGNORED, IGNORED)

    def from_regions(self, regions: torch.Tensor) -> torch.Tensor:
        """Turn region masks ``(R, ...)`` into a label map ``(1, ...)``, of type `dtype`, in the cohort's values.

        Regions are painted one over the other, from the largest to the smallest, each as its first class that no later
        region has. For BraTS, WT is painted as ED, TC over it as NCR, and ET over both as ET. So ET outside WT is kept,
        and counts as part of WT.
        """
        label = torch.zeros_like(regions[:1], dtype=self.dtype)
        for mask, name in zip(regions.bool(), self.painted(), strict=True):
            label[0].masked_fill_(mask, self.values[name])
        return label

    def painted(self) -> list[str]:
        """Return, for each region, the class painted where no later (smaller) region lies, e.g. ED for WT."""
        painted: list[str] = []
        later: set[str] = set()
        for classes in reversed([*self.regions.values()]):
            painted.insert(0, next((name for name in classes if name not in later), classes[0]))
            later.update(classes)
        return painted

    def to_classes(self, label: torch.Tensor) -> torch.Tensor:
        """Turn a label map ``(1, ...)`` in the cohort's values into channel numbers of a softmax head, of type long.

        The background is 0, the first target 1, and so on; `IGNORED` stays.
        """
        label = label.long()
        index = torch.where(label == IGNORED, IGNORED, 0)
        for number, classes in enumerate(self.targets.values(), start=1):
            for name in classes:
                index[label == self.values[name]] = number
        return index

    def from_classes(self, index: torch.Tensor) -> torch.Tensor:
        """Turn channel numbers of a softmax head ``(1, ...)`` into a label map ``(1, ...)`` of type `dtype`.

        A target that comprises several classes gets the value of the first one.
        """
        values = [0, *(self.values[classes[0]] for classes in self.targets.values())]
        return torch.tensor(values, dtype=self.dtype, device=index.device)[index.long()]

    def region_probabilities(self, probabilities: torch.Tensor) -> torch.Tensor:
        """Turn the probabilities of a softmax head ``(K, ...)`` into region probabilities ``(R, ...)`` by summation."""
        channels = {target: number for number, target in enumerate(self.targets, start=1)}
        if len(probabilities) != len(channels) + 1:
            raise ValueError(
                f"The softmax head has {len(probabilities)} classes; expected {len(channels) + 1}, the background and "
                f"{', '.join(channels)}. Change the network's classes, or choose the cohort it was trained on."
            )
        parts = ((probabilities[channels[t]] for t in self._targets_of(name)) for name in self.regions)
        return torch.stack([reduce(torch.add, of) for of in parts])

    def _targets_of(self, region: str) -> list[str]:
        return [target for target, classes in self.targets.items() if set(classes) <= set(self.regions[region])]


_COUNTERPARTS = {"NET": "NCR", "CC": "NCR"}
"""Class -> the class that stands for it where a label set does not distinguish them."""
_CORE = ("NCR", "NET", "CC", "ET")
"""Classes of the tumour core, in the order of a softmax head's channels, except that ED comes after NCR."""


def tumour_labels(**values: int) -> LabelSet:
    """Return the label set of a glioma cohort, from the classes that its files have and their values.

    Classes are NCR (necrosis), NET (tumour that does not enhance), CC (cysts), ET (enhancing tumour), ED (oedema) and
    RC (resection cavity). Regions are WT, TC and ET, and RC if there is one; the cavity belongs to no other region. The
    channels of a softmax head are background, NCR, ED, NET, CC, ET and RC as far as they exist, in the order of
    published code, whatever values files have.
    """
    core = tuple(name for name in _CORE if name in values)
    targets: dict[str, tuple[str, ...]] = {name: (name,) for name in ("NCR", "ED", *_CORE[1:], "RC") if name in values}
    regions = {"WT": ("ED", *core), "TC": core, "ET": ("ET",)}
    return LabelSet(values=values, regions=regions | ({"RC": ("RC",)} if "RC" in values else {}), targets=targets)


def without_cavity(labels: LabelSet, reading: str) -> LabelSet:
    """Return a label set that reads the resection cavity (RC) as ``background``, or as ``ignored`` voxels."""
    others = {name: value for name, value in labels.values.items() if name != "RC"}
    read_so: dict[str, Any] = {reading: {"RC": labels.values["RC"]}}
    return replace(tumour_labels(**others), **read_so)
