"""Pictures of a segmentation: three planes through the lesion, with the regions outlined."""

import base64
from collections.abc import Mapping, Sequence
from io import BytesIO

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from common.evaluation.report.slices import OUTLINES, outline
from common.evaluation.report.style import styled
from common.modalities import foreground
from mmb.clinic.study.grid import box, connected_pieces
from mmb.clinic.study.lesions import centre

MARGIN = 2  # margin in voxels around the head in pictures
SCALE_BAR = 50  # length of the scale bar in mm
BRAIN_OUTLINE = OUTLINES[3]  # colour of the outline of the extracted brain
EDGE = withStroke(linewidth=2, foreground="black")  # around the letters, which may lie on a bright scalp


def pictures(
    images: Mapping[str, np.ndarray],
    masks: np.ndarray,
    spacing: Sequence[float],
    brain: np.ndarray | None = None,
    origin: Sequence[float] = (0, 0, 0),
) -> dict[str, str]:
    """Return a PNG in base64 of each modality: three planes through the lesion's centre, with the regions outlined.

    The centre is that of the largest piece, or of the image if nothing was segmented. The view is radiological (the
    patient's right on the left, the front on the left in the sagittal plane) and cropped to the head. Black is each
    image's 1st percentile within the crop. White is its 99.9th percentile, taken within the brain mask if there is one,
    since fat can be much brighter.

    ``images`` are the modalities used, ``(X, Y, Z)``, RAS, finite. ``masks`` are the regions on the same grid, bool
    ``(R, X, Y, Z)``; each is outlined over those before it. An extracted ``brain`` is outlined as well. ``origin`` is
    the position of the first voxel along each axis in mm; each plane shows its own.
    """
    head = head_box(images, masks.any(axis=0))
    masks = masks[:, *head]
    middle = _centre(masks.any(axis=0), spacing)
    brain = None if brain is None else brain[head]
    at = [o + (part.start + index) * size for o, part, index, size in zip(origin, head, middle, spacing, strict=True)]
    return {name: _picture(image[head], masks, brain, middle, spacing, at) for name, image in images.items()}


def head_box(images: Mapping[str, np.ndarray], lesion: np.ndarray) -> tuple[slice, ...]:
    """Return the box of the foreground of all images and of the lesion, with a margin of `MARGIN` voxels or one more.

    It looks at every second voxel along each axis, which takes an eighth of the time.
    """
    some = (slice(None, None, 2),) * 3
    inside = lesion[some].copy()
    for image in images.values():
        inside |= foreground(torch.from_numpy(image[some].astype(np.float32))[None, None])[0, 0].numpy()
    return tuple(slice(max(2 * part.start - 1 - MARGIN, 0), 2 * part.stop + MARGIN) for part in box(inside))


def grey_window(image: np.ndarray, brain: np.ndarray | None) -> tuple[float, float]:
    """Return an image's values for black and white: see `pictures`."""
    some = (slice(None, None, 2),) * 3  # an eighth of the voxels is enough for percentiles
    shown = image[some]
    return float(np.quantile(shown, 0.01)), float(np.quantile(shown if brain is None else shown[brain[some]], 0.999))


def _centre(lesion: np.ndarray, spacing: Sequence[float]) -> tuple[int, ...]:
    """Return the voxel of the lesion's largest piece that is nearest to that piece's centre of mass."""
    numbers, sizes = connected_pieces(lesion)
    if len(sizes) == 0:
        return tuple(size // 2 for size in lesion.shape)
    return centre(numbers == 1 + sizes.argmax(), spacing)


@styled
def _picture(
    image: np.ndarray,
    masks: np.ndarray,
    brain: np.ndarray | None,
    centre: Sequence[int],
    spacing: Sequence[float],
    position: Sequence[float],
) -> str:
    """Return a PNG in base64: the axial plane on the left, the coronal above the sagittal one on the right."""
    window = grey_window(image, brain)
    figure = Figure(figsize=(3.9, 2.55), facecolor="black")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.2, 1), left=0, right=1, bottom=0, top=1, wspace=0.02, hspace=0.02)
    for cell, axis, sides in ((grid[:, 0], 2, "RL"), (grid[0, 1], 1, "RL"), (grid[1, 1], 0, "AP")):
        rest = [other for other in range(3) if other != axis]
        _draw_plane(
            figure.add_subplot(cell),
            image.take(centre[axis], axis),
            masks.take(centre[axis], axis + 1),
            None if brain is None else brain.take(centre[axis], axis),
            [spacing[other] for other in rest],
            window,
            sides,
            f"{'RAS'[axis] if position[axis] >= 0 else 'LPI'[axis]} {abs(position[axis]):.0f} mm",
        )
    png = BytesIO()
    figure.savefig(png, dpi=220, metadata={"Software": None})
    return base64.b64encode(png.getvalue()).decode("ascii")


def _draw_plane(
    axes: Axes,
    plane: np.ndarray,
    masks: np.ndarray,
    brain: np.ndarray | None,
    spacing: Sequence[float],
    window: Sequence[float],
    sides: str,
    position: str,
) -> None:
    """Draw a plane (A, B) whose first axis runs to the patient's right or front; this side is drawn on the left.

    ``sides`` are the letters on the left and right.
    """
    extent = (0, plane.shape[0] * spacing[0], 0, plane.shape[1] * spacing[1])
    axes.imshow(plane.T, cmap="gray", vmin=window[0], vmax=window[1], origin="lower", extent=extent)
    if brain is not None:
        axes.contour(brain.T, levels=[0.5], colors=BRAIN_OUTLINE, linewidths=0.6, origin="lower", extent=extent)
    outline(axes, masks, 1.4, extent)
    axes.invert_xaxis()
    axes.set_axis_off()
    words = {"transform": axes.transAxes, "color": "white", "path_effects": [EDGE]}
    axes.text(0.01, 0.5, sides[0], va="center", **words)
    axes.text(0.99, 0.5, sides[1], va="center", ha="right", **words)
    axes.text(0.99, 0.99, position, va="top", ha="right", fontsize=7, **words)
    if extent[1] > SCALE_BAR:
        ends = [extent[1] * 0.99, extent[1] * 0.99 - SCALE_BAR]
        axes.plot(ends, [extent[3] * 0.02] * 2, "w", lw=1.5, scalex=False, scaley=False)
