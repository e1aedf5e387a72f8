"""What a preprocessing does to an image, as text, so that a training's travels with its weights and is compared."""

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from types import FunctionType
from typing import Any

import numpy as np
import torch
from monai.transforms import CropForegroundd, MapTransform, SpatialPadd, Transform

from common.io.fingerprint import UnknownError, enclosed, fingerprint, own_code
from common.transforms import LoadSubjectd

ELSEWHERE = (LoadSubjectd, CropForegroundd, SpatialPadd)
"""Steps that leave voxels as they are: reading, which has its own checks, and what windows do at inference."""
UNTOLD = ("keys", "allow_missing_keys", "lazy", "label_key")


def image_steps(transforms: Iterable[Any], key: str = "image") -> list[str]:
    """Return the steps that change an image's voxels or grid, with their settings: ``Spacingd(pixdim=2 2 2, ...)``.

    Of settings for several keys only that for ``key`` is told. Steps for other keys only are left out. Code of the
    user's own is told by its fingerprint, as are long arrays.

    Example:
        >>> from monai.transforms import ScaleIntensityd
        >>> from common.engines.preprocessing import image_steps
        >>> image_steps([ScaleIntensityd(["image", "label"], minv=0, maxv=2)])
        ['ScaleIntensityd(channel_wise=False, dtype=float32, factor=None, maxv=2, minv=0)']
    """
    steps = []
    for step in transforms:
        keys = tuple(step.keys) if isinstance(step, MapTransform) else ()
        if not isinstance(step, ELSEWHERE) and (not keys or key in keys):
            index = keys.index(key) if len(keys) > 1 else None
            settings = _settings(step, len(keys), index)
            if code := own_code(type(step)):
                settings["code"] = code
            told = sorted(f"{name}={value}" for name, value in settings.items())
            steps.append(f"{type(step).__name__}({', '.join(told)})")
    return steps


def only(steps: Sequence[str], others: Sequence[str]) -> list[str]:
    """Return the steps that the others have not, or all if only their order differs.

    A step that the others have with other settings is told with its own.
    """
    if {*steps} == {*others}:
        return [*steps]
    names = [name(step) for step in others]
    lacking = [step if name(step) in names else name(step) for step in steps if step not in others]
    return lacking or ["no other step"]


def name(step: str) -> str:
    """Return a step's name without its settings."""
    return step.split("(")[0]


def _settings(step: Any, keys: int, index: int | None) -> dict[str, str]:
    told: dict[str, str] = {}
    for name, value in vars(step).items():
        if name.strip("_") in UNTOLD:
            continue
        if index is not None and isinstance(value, tuple | list) and len(value) == keys:
            value = value[index]
        elif index is None and keys and isinstance(value, tuple | list) and len(value) == 1:
            value = value[0]
        if isinstance(value, Transform):
            told = _settings(value, 0, None) | told
        elif (text := _text(value)) is not None:
            told[name] = text
    return told


def _text(value: Any) -> str | None:
    """Return a value as text; None if an object of an installed package has none. Of a function also its variables."""
    if isinstance(value, bool | str | None):
        return str(value)
    if isinstance(value, int | float | np.number):
        return f"{value:g}"
    if isinstance(value, np.ndarray | torch.Tensor):
        return _text(value.tolist()) if np.size(value) < 20 else fingerprint(value)
    if isinstance(value, Sequence):
        return " ".join(str(_text(part)) for part in value)
    if isinstance(value, Mapping):
        return " ".join(f"{name}:{_text(part)}" for name, part in value.items())
    if isinstance(value, partial):
        return f"{_text(value.func)} {_text(value.args)} {_text(value.keywords)}".strip()
    if isinstance(value, FunctionType):
        plain = {name: part for name, part in enclosed(value).items() if isinstance(part, str | int | float | Sequence)}
        return " ".join(filter(None, (value.__name__, _text(plain), own_code(value))))
    if own_code(type(value)):
        try:
            return f"{type(value).__name__} {fingerprint(value)}"
        except UnknownError:
            return type(value).__name__
    return getattr(value, "__name__", None)
