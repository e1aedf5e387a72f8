"""Pictures of a segmentation for print: three planes through the lesion, with the regions outlined."""

from base64 import b64encode
from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes
from PIL import ImageChops, ImageDraw
from PIL.Image import Image, Resampling, fromarray, new
from scipy.ndimage import minimum_filter

from common.evaluation.report.slices import OUTLINES
from common.modalities import foreground
from mmb.clinic.head.grid import box, connected_pieces
from mmb.clinic.report.lesions import centre

MARGIN = 2  # margin in voxels around the head in pictures
SHOWN = 25  # grey value above which a small picture shows a voxel for sure
SCALE_BAR = 50  # length of the scale bar in mm
BRAIN_OUTLINE = OUTLINES[3]  # colour of the outline of the extracted brain
PLANES = {2: ((0, 0, 460, 560), "RL"), 1: ((468, 0, 390, 276), "RL"), 0: ((468, 284, 390, 276), "AP")}
"""Axis across a plane -> its place in a picture (left, top, width, height), and the letters on its left and right."""
PIXELS = 4  # width of the first region's outline; each further one is thinner, so that all stay visible


def pictures(
    images: Mapping[str, np.ndarray],
    masks: np.ndarray,
    spacing: Sequence[float],
    brain: np.ndarray | None = None,
    origin: Sequence[float] | None = (0, 0, 0),
) -> dict[str, str]:
    """Return a PNG in base64 of each modality: three planes through the lesion's centre, with the regions outlined.

    The centre is that of the largest piece, or of the image if nothing was segmented. The view is radiological (the
    patient's right on the left, the front on the left in the sagittal plane) and cropped to the head.

    ``images`` are the modalities used, ``(X, Y, Z)``, RAS, finite. ``masks`` are the regions on the same grid, bool
    ``(R, X, Y, Z)``; each is outlined over those before it. ``origin`` is the position of the first voxel along each
    axis in mm; each plane shows its own, and the letters of its sides, unless it is None (not known).
    """
    head = head_box(images, np.logical_or.reduce(masks))
    masks, brain = masks[:, *head], None if brain is None else brain[head]
    middle = _centre(np.logical_or.reduce(masks), spacing)
    at = np.add([part.start for part in head], middle) * spacing + (0 if origin is None else origin)
    lines = [] if brain is None else [(BRAIN_OUTLINE, 2, brain)]
    lines += [(OUTLINES[i % len(OUTLINES)], max(PIXELS - i, 2), mask) for i, mask in enumerate(masks)]
    made = {}
    for name, image in images.items():
        picture, shown = new("RGB", (858, 560)), grey(image[head], grey_window(image[head], brain))
        for axis, ((left, top, width, height), sides) in PLANES.items():
            cut = [(colour, thick, mask.take(middle[axis], axis)) for colour, thick, mask in lines]
            steps = [size for other, size in enumerate(spacing) if other != axis]
            plane = _plane(shown.take(middle[axis], axis), cut, steps, (width, height))
            if origin is not None:
                _label(plane, sides, f"{'RAS'[axis] if at[axis] >= 0 else 'LPI'[axis]} {abs(at[axis]):.0f} mm")
            picture.paste(plane, (left + (width - plane.width) // 2, top + (height - plane.height) // 2))
        made[name] = _png(picture)
    return made


def thumbnail(image: nib.Nifti1Image, axis: int, pixels: int = 160) -> str:
    """Return a PNG in base64 of an image's middle slice across an axis of RAS, cropped, in a square of ``pixels``."""
    turned = nib.as_closest_canonical(image)
    middle = np.asarray(turned.dataobj).take([turned.shape[axis] // 2], axis)
    shown = grey(middle, grey_window(middle, None)).take(0, axis)
    shown = shown[box(shown > SHOWN, MARGIN)][::-1, ::-1].T
    extent = shown.shape[::-1] * np.delete(voxel_sizes(turned.affine), axis)
    return _png(fromarray(shown.copy()).resize(np.ceil(pixels * extent / extent.max()).astype(int), Resampling.BOX))


def head_box(images: Mapping[str, np.ndarray], lesion: np.ndarray) -> tuple[slice, ...]:
    """Return the box of the foreground of all images and of the lesion, and `MARGIN` voxels or one more around it."""
    some = (slice(None, None, 2),) * 3
    inside = lesion[some].copy()
    for image in images.values():
        inside |= foreground(torch.from_numpy(image[some].astype(np.float32))[None, None])[0, 0].numpy()
    return tuple(slice(max(2 * part.start - 1 - MARGIN, 0), 2 * part.stop + MARGIN) for part in box(inside))


def grey_window(image: np.ndarray, brain: np.ndarray | None) -> tuple[float, float]:
    """Return an image's values for black and white: its 1st and 99.9th percentile, the latter within a given brain."""
    some = (slice(None, None, 2),) * 3  # an eighth of the voxels is enough for percentiles
    shown = image[some]
    return float(np.quantile(shown, 0.01)), float(np.quantile(shown if brain is None else shown[brain[some]], 0.999))


def grey(image: np.ndarray, window: tuple[float, float]) -> np.ndarray:
    """Return an image as uint8, black and white at these values."""
    return np.clip((image - window[0]) * (255 / max(window[1] - window[0], 1e-6)), 0, 255).astype(np.uint8)


def _png(picture: Image) -> str:
    file = BytesIO()
    picture.save(file, "PNG")
    return b64encode(file.getvalue()).decode("ascii")


def _centre(lesion: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the voxel of the lesion's largest piece that is nearest to that piece's centre of mass."""
    numbers, sizes = connected_pieces(lesion)
    if len(sizes) == 0:
        return tuple(size // 2 for size in lesion.shape)
    return centre(numbers == 1 + sizes.argmax(), spacing)


def _plane(
    shown: np.ndarray, lines: Sequence[tuple[str, int, np.ndarray]], spacing: Sequence[float], most: tuple[int, int]
) -> Image:
    """Draw a plane (A, B), whose first axis runs to the patient's right or front, with this side on the left.

    ``lines`` are the colour, the width in pixels and the mask of each outline; ``most`` is the largest size in pixels.
    """
    extent = [size * step for size, step in zip(shown.shape, spacing, strict=True)]
    scale = min(pixels / mm for pixels, mm in zip(most, extent, strict=True))
    size = tuple(max(round(scale * mm), 1) for mm in extent)
    plane = fromarray(shown[::-1, ::-1].T.copy()).resize(size, Resampling.BOX).convert("RGB")
    for colour, thick, mask in lines:
        large = fromarray(255 * mask[::-1, ::-1].T.astype(np.uint8)).resize(size, Resampling.BILINEAR)
        large = large.point(lambda value: 255 * (value > 127))
        inner = fromarray(minimum_filter(np.asarray(large), 2 * thick + 1))  # much faster than Pillow's
        plane.paste(colour, mask=ImageChops.difference(large, inner))
    if extent[0] > SCALE_BAR:
        bar = (size[0] - 6 - scale * SCALE_BAR, size[1] - 7, size[0] - 6, size[1] - 5)
        ImageDraw.Draw(plane).rectangle(bar, "white")
    return plane


def _label(plane: Image, sides: str, position: str) -> None:
    """Write the letters of the sides into a plane, and its position; their edge is dark, since a scalp is bright."""
    write = ImageDraw.Draw(plane)
    edge: dict[str, Any] = {"stroke_width": 2, "stroke_fill": "black"}
    write.text((5, plane.height / 2), sides[0], "white", anchor="lm", font_size=20, **edge)
    write.text((plane.width - 5, plane.height / 2), sides[1], "white", anchor="rm", font_size=20, **edge)
    write.text((plane.width - 5, 5), position, "white", anchor="rt", font_size=14, **edge)
