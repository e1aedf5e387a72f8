"""What weights are made for, by their own record, compared with what they are to be used for."""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from monai.transforms import CropForegroundd, MapTransform, SpatialPadd

from common.cohorts import get_cohort
from common.cohorts.cohort import Cohort
from common.io.digest import own_code
from common.io.facts import read_facts
from common.io.weights import metadata_of
from common.text import shortened
from common.transforms import LoadSubjectd

logger = logging.getLogger(__name__)
ELSEWHERE = (LoadSubjectd, CropForegroundd, SpatialPadd)
"""Steps that leave voxels as they are: reading, which has its own checks, and what windows do at inference."""
UNSAID = "{path}: does not say which sequences and classes it was trained with; {assumed} are assumed, in this order."


class Layout(NamedTuple):
    """The sequences of a network's input channels, and the regions (or classes) of its output channels, in order.

    ``regions`` says of which classes each region is made, if that is known.
    """

    sequences: tuple[str, ...]
    classes: tuple[str, ...]
    regions: Mapping[str, Sequence[str]] = {}


def require_fitting(
    path: str | os.PathLike, cohort: str, bundle_root: str | os.PathLike, transforms: Sequence[Any] = ()
) -> None:
    """Refuse weights whose sequences or classes are others than those of the cohort, or in another order.

    Also those whose training prepared images by other steps than ``transforms``. Weights that say nothing of sequences
    and classes cause a warning. Raises ValueError.
    """
    if not os.path.isfile(path):  # refused when it is read
        return
    asked, own = _layout(get_cohort(cohort), bundle_root), layout_of_weights(path, bundle_root)
    if own is None:
        logger.warning(UNSAID.format(path=path, assumed=_said(asked)))
    elif sorted(own.sequences) != sorted(asked.sequences) or own.classes != asked.classes:
        raise ValueError(
            f"{path}: its network was trained with {_said(own)}; cohort {_name(cohort)} has {_said(asked)}. Choose a "
            "cohort that has what the weights have (key `cohort`), or fine-tune them (docs/fine_tune.md)."
        )
    elif own.sequences != asked.sequences:
        raise ValueError(f"{path}: {_reorder(own, asked, cohort)}")
    else:
        _require_same_regions(path, own, asked)
    if differ := _other_steps(path, transforms):
        raise ValueError(f"{differ} Give the steps of the training as image_transforms.")


def new_sequences(
    path: str | os.PathLike | None,
    cohort: str,
    bundle_root: str | os.PathLike,
    new_head: bool = False,
    transforms: Sequence[Any] = (),
) -> int:
    """Return how many sequences of a cohort the weights have not seen from which its training is to start.

    They come after those of the weights. Without weights it is 0. Raises ValueError if the weights' sequences are not
    the cohort's first ones, or if the classes differ, unless ``new_head``. Images that are prepared in another way than
    the weights have seen them, by ``transforms``, cause a warning.
    """
    if path is None:
        return 0
    if differ := _other_steps(path, transforms):
        logger.warning(differ)
    asked, own = _layout(get_cohort(cohort), bundle_root), layout_of_weights(path, bundle_root)
    if own is None:
        logger.warning(UNSAID.format(path=path, assumed=_said(asked)))
        return 0
    if lacking := [name for name in own.sequences if name not in asked.sequences]:
        raise ValueError(
            f"{path}: its network was trained with {', '.join(own.sequences)}, but cohort {_name(cohort)} lacks "
            f"{', '.join(lacking)}. List them in its `sequences`: no case needs files of them."
        )
    if asked.sequences[: len(own.sequences)] != own.sequences:
        raise ValueError(f"{path}: {_reorder(own, asked, cohort)}")
    if own.classes != asked.classes and not new_head:
        raise ValueError(
            f"{path}: its network was trained for {', '.join(own.classes)}; cohort {_name(cohort)} has "
            f"{', '.join(asked.classes)}. With --new_head true the last layer starts anew, at random."
        )
    if not new_head:
        _require_same_regions(path, own, asked)
    new = asked.sequences[len(own.sequences) :]
    if new:
        logger.warning(f"{path}: its network has not seen {', '.join(new)}; their first weights are zero.")
    return len(new)


def _require_same_regions(path: str | os.PathLike, own: Layout, asked: Layout) -> None:
    """Refuse weights if one of their regions is made of other ones of the same classes."""
    parts = [{part for classes in each.regions.values() for part in classes} for each in (own, asked)]
    differ = [name for name in own.regions if {*own.regions[name]} != {*asked.regions.get(name, ())}]
    if parts[0] == parts[1] and differ:
        then, now = (" + ".join(each.regions[differ[0]]) for each in (own, asked))
        raise ValueError(
            f"{path}: its network was trained with a region {differ[0]} of {then}; here it is {now}. Call the "
            "region by another name, or fine-tune the weights with --new_head true."
        )


def image_steps(transforms: Iterable[Any], key: str = "image") -> list[str]:
    """Return the names of the steps that change an image's voxels or grid, as a training's record tells them.

    Their settings are recorded besides (spacing, sampling, percentiles). Of a class of the user's own the content of
    its files counts, too.

    Example:
        >>> from monai.transforms import ScaleIntensityd
        >>> from common.run.fitting import image_steps
        >>> image_steps([ScaleIntensityd(["image", "label"], minv=0, maxv=2)])
        ['ScaleIntensityd']
    """
    changing = [
        type(step)
        for step in transforms
        if not isinstance(step, ELSEWHERE) and not (isinstance(step, MapTransform) and key not in step.keys)
    ]
    return [f"{step.__name__} {own_code(step)}".strip() for step in changing]


def _other_steps(path: str | os.PathLike, transforms: Sequence[Any]) -> str:
    """Return how steps differ from those of weights, as text; empty if they do not, or if nothing says so."""
    facts = read_facts(path)
    trained, asked = (facts.preprocessing if facts else []), image_steps(transforms)
    if not (trained and asked) or trained == asked:
        return ""
    then, now = ", ".join(trained), ", ".join(asked)
    return f"{path}: was trained on images that went through {then}; here they go through {now}."


def layout_of_weights(path: str | os.PathLike, bundle_root: str | os.PathLike) -> Layout | None:
    """Return what weights are made for, by their record; None if they have none."""
    facts = read_facts(path)
    return _layout(get_cohort(facts.settings["cohort"]), bundle_root) if facts and "cohort" in facts.settings else None


def _layout(cohort: Cohort, bundle_root: str | os.PathLike) -> Layout:
    softmax = _outputs(bundle_root)[0].startswith("background")
    if softmax:
        return Layout(cohort.modalities, tuple(cohort.labels.targets))
    return Layout(cohort.modalities, tuple(cohort.labels.regions), cohort.labels.regions)


def _outputs(bundle_root: str | os.PathLike) -> list[str]:
    return list(metadata_of(bundle_root)["network_data_format"]["outputs"]["pred"]["channel_def"].values())


def _reorder(own: Layout, asked: Layout, cohort: str) -> str:
    new = [name for name in asked.sequences if name not in own.sequences]
    return (
        f"was trained with {', '.join(own.sequences)}, in this order; cohort {_name(cohort)} has "
        f"{', '.join(asked.sequences)}. List its `sequences` as {', '.join([*own.sequences, *new])}."
    )


def _said(layout: Layout) -> str:
    return f"{', '.join(layout.sequences)} and {', '.join(layout.classes)}"


def _name(cohort: str) -> str:
    return shortened([get_cohort(cohort).name])
