"""All axial slices of all images, as pictures that the page's viewer cuts into slices of any plane."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from typing import Any

import numpy as np
from PIL import Image

from mmb.clinic.head.grid import box
from mmb.clinic.report.pictures import grey, grey_window, head_box

MARGIN = 10.0  # margin in mm around an extracted brain; more would show the face
BLOCK = 8  # slices begin at multiples of this many pixels, so that no block of a JPEG belongs to two of them
QUALITY = 75  # of the JPEGs: 0.45 MB for 140 x 165 x 141 voxels
MOST_VOXELS = 2**25  # in all images together, and twice the most in one of them: browsers of tablets show 2**24 pixels


@dataclass(frozen=True)
class Sheets:
    """Images and masks as sheets, whose slices lie in rows of ``columns``, the lowest slice first.

    A slice is ``shape[0]`` pixels wide and ``shape[1]`` high, in steps of ``tile`` pixels. It is in radiological view:
    the patient's right on the left, the front above.

    Attributes:
        images: modality -> JPEG in base64.
        masks: PNG in base64; a pixel's value, divided by ``unit``, has a bit for each name, the lowest for the first.
        names: the regions, and ``brain`` for the outline of an extracted one.
        drawn: number of pixels of ``masks`` that are not 0, by which a reader can check that it decoded them right.
        shape: number of voxels from the patient's right to the left, from front to back, and from bottom to top.
        first: position of the first voxel in mm, RAS, along these axes; empty if it is not known, as the sides are.
        starts: voxels that the viewer may start from: the centres of the lesions, or else of the image.
        step: 2 if only every second voxel is shown along each axis, since there are too many, and so on.
    """

    images: Mapping[str, str]
    masks: str
    names: Sequence[str]
    unit: int
    drawn: int
    columns: int
    tile: tuple[int, int]
    shape: tuple[int, int, int]
    spacing: tuple[float, ...]
    first: tuple[float, ...]
    starts: Sequence[tuple[int, int, int]]
    step: int


def sheets(
    images: Mapping[str, np.ndarray],
    masks: Mapping[str, np.ndarray],
    spacing: Sequence[float],
    origin: Sequence[float] | None,
    centres: Sequence[Sequence[int]],
    brain: np.ndarray | None = None,
) -> Sheets:
    """Return the sheets of ``images`` ``(X, Y, Z)``, RAS, and of the regions ``masks`` on the same grid.

    They show the brain if it was extracted, with a margin of `MARGIN` mm; else the whole head. ``origin`` is the
    position of the first voxel along each axis in mm (None: not known), ``centres`` are voxels of the lesions.
    """
    lesion = np.any([*masks.values()], axis=0)
    shown = head_box(images, lesion) if brain is None else box(brain | lesion, round(MARGIN / min(spacing)))
    voxels = lesion[shown].size * max(len(images), 2)
    step = next(n for n in range(1, voxels) if voxels <= MOST_VOXELS * n**3)
    every = tuple(slice(part.start, part.stop, step) for part in shown)
    low = np.array([part.start for part in shown])
    shape = lesion[every].shape
    masks = {**masks} if brain is None else {**masks, "brain": brain}
    bits: Any = sum(mask[every].astype(np.uint8) << i for i, mask in enumerate(masks.values()))
    unit = 256 >> len(masks)
    last = np.array(shape) - 1
    inside = [np.clip((np.array(voxel) - low) // step, 0, last) for voxel in centres] or [last // 2]
    inner, (columns, tile) = None if brain is None else brain[every], _layout(shape)
    greys = {name: grey(image[every], grey_window(image[every], inner)) for name, image in images.items()}
    return Sheets(
        images={name: _encoded(values, "JPEG", quality=QUALITY) for name, values in greys.items()},
        masks=_encoded(bits * unit, "PNG"),
        names=list(masks),
        unit=unit,
        drawn=int(np.count_nonzero(bits)),
        columns=columns,
        tile=tile,
        shape=shape,
        spacing=tuple(float(step * size) for size in spacing),
        first=() if origin is None else tuple((origin + (low + step * _turned(0 * last, last)) * spacing).tolist()),
        starts=[tuple(_turned(voxel, last).tolist()) for voxel in inside],
        step=step,
    )


def _turned(voxel: np.ndarray, last: np.ndarray) -> np.ndarray:
    """Return a voxel in radiological order: counted from the right, from the front, and from the bottom."""
    return np.where([True, True, False], last - voxel, voxel)


def _encoded(volume: np.ndarray, kind: str, **options: int) -> str:
    """Return a volume ``(X, Y, Z)``, RAS, uint8, as a sheet in base64."""
    columns, (width, height), slices = *_layout(volume.shape), volume.shape[2]
    rows = -(-slices // columns)
    sheet = np.zeros((rows * columns, height, width), np.uint8)
    sheet[:slices, : volume.shape[1], : volume.shape[0]] = volume[::-1, ::-1].transpose(2, 1, 0)
    sheet = sheet.reshape(rows, columns, height, width).transpose(0, 2, 1, 3).reshape(rows * height, columns * width)
    file = BytesIO()
    Image.fromarray(sheet).save(file, kind, **options)
    return b64encode(file.getvalue()).decode("ascii")


def _layout(shape: Sequence[int]) -> tuple[int, tuple[int, int]]:
    """Return how many slices a row of a sheet has, and the width and height in pixels that a slice takes."""
    return int(np.ceil(np.sqrt(shape[2]))), (-(-shape[0] // BLOCK) * BLOCK, -(-shape[1] // BLOCK) * BLOCK)
