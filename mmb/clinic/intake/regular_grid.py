"""Whether slices form a regular grid, by their positions; if not, why."""

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from mmb.clinic.intake.headers import MISSING, number, numbers, text

FARTHEST = 10_000.0  # maximum distance in mm of an image from the scanner's centre
SAME_POSITION = 0.01  # distance in mm below which two images lie at one position
ROUNDING = 0.05  # in mm along each axis: some programs write positions with one decimal
EXACT = 1e-3  # largest deviation of directions from right angles and length 1 that counts as none
ROUNDED = 0.02  # the same for directions that were rounded to two decimals
UNEVEN = 0.01  # tolerated deviation from the regular grid in gaps between slices, in addition to `ROUNDING`


def unrounded(orientation: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Return directions ``(2, 3)`` of rows and columns that were rounded, at right angles and of length 1 again.

    Where the slices' ``positions`` ``(N, 3)`` are stated, these tell the normal more exactly. Directions that are
    exact, or further off than by `ROUNDED`, stay as they are.
    """
    off = np.abs(orientation @ orientation.T - np.eye(2)).max()
    if not EXACT < off <= ROUNDED:
        return orientation
    left, _, right = np.linalg.svd(orientation, full_matrices=False)
    rows, columns = left @ right
    along = positions[-1] - positions[0]
    length = np.linalg.norm(along)
    if np.isfinite(length) and length > SAME_POSITION:
        normal = along / length
        if np.linalg.norm(np.cross(normal, np.cross(rows, columns))) <= ROUNDED:
            rows = rows - (rows @ normal) * normal
            rows /= np.linalg.norm(rows)
            columns = np.cross(normal, rows)
    return np.stack([rows, columns])


def why_no_grid(
    header: Dataset, orientation: np.ndarray, positions: np.ndarray, pixel: tuple[float, float]
) -> str | None:
    """Return why slices, sorted along the normal, do not form a regular grid; None if they do.

    ``header`` is that of the first slice. ``orientation`` ``(2, 3)`` are the directions of rows and columns,
    ``positions`` ``(N, 3)`` those of the slices' first pixels in mm, ``pixel`` the distances in mm between columns and
    between rows.
    """
    geometry = {"ImageOrientationPatient": 6, "PixelSpacing": 2, "Rows": 1, "Columns": 1}
    wrong = [name for name, count in geometry.items() if numbers(header, name, count) is None]
    if wrong:
        return (
            "its images do not state their position in space or their size "
            f"({', '.join(wrong)}: missing, or the wrong number of values)"
        )
    if min(pixel) <= 0:
        return "its pixels have no size (PixelSpacing)"
    if not np.isfinite(positions).all():
        return "some of its images do not state their position in space (ImagePositionPatient)"
    if np.abs(positions).max() > FARTHEST:
        return f"some of its images lie over {FARTHEST / 1000:g} m from the scanner's centre (ImagePositionPatient)"
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=EXACT):
        return (
            "the directions of its rows and columns are not at right angles, or not of length 1 "
            "(ImageOrientationPatient)"
        )
    if text(header, "SOPClassUID") == MRImageStorage and (number(header, "NumberOfFrames") or 1) > 1:
        return "a single-frame MR image with several frames, which DICOM does not allow"
    if len(positions) < 2:
        return "it has a single slice"
    normal, sideways = np.cross(*orientation), (positions - positions[0]) @ orientation.T
    along = positions @ normal
    most = tolerance(normal, np.median(np.diff(along)))
    uneven = _repeated(along) or _uneven(header, along, most)
    if uneven and np.allclose(positions, positions.round(), atol=1e-6):  # in mm
        uneven = _uneven_by_rounding(header, along, 0.5 * float(np.abs(normal).sum()), uneven)
    return uneven or _displaced(sideways, pixel)


def tolerance(normal: np.ndarray, gap: float) -> float:
    """Return how far in mm a slice may lie from the regular grid, for a distance of slices in mm along the normal."""
    return ROUNDING * float(np.abs(normal).sum()) + UNEVEN * float(gap)


def _repeated(along: np.ndarray) -> str | None:
    """Return how many slices lie at the position of another one, if any."""
    apart = np.diff(along) >= SAME_POSITION
    different, count = int(apart.sum()) + 1, len(along)
    if different == 1:
        return (
            f"all of its {count} images have the same ImagePositionPatient: a single slice at several times, or their "
            f"positions were lost when they were exported; {MISSING}"
        )
    times = np.diff(np.flatnonzero(np.r_[True, apart, True]))
    if different < count and (times == times[0]).all():
        return (
            f"each of its {different} slices is there {times[0]} times (several time points, or acquisitions in one "
            f"series, with {count - different} images at the position of another one)"
        )
    if different < count:
        return (
            f"{count - different} of its {count} images lie at the position of another one "
            "(several time points, or two acquisitions in one series)"
        )
    return None


def _uneven(header: Dataset, along: np.ndarray, most: float) -> str | None:
    """Return why slices at these positions in mm along their normal are not equally spaced, or None.

    ``most`` is the largest deviation in mm from the nearest regular grid that is tolerated.
    """
    gaps = np.diff(along)
    steps = np.rint(gaps / np.median(gaps))
    places = np.r_[0, steps.cumsum()]
    usual, start = np.polyfit(places, along, 1)
    deviations = along - start - usual * places
    off = float(np.ptp(deviations)) / 2
    if off > most or steps.min() < 1:
        return (
            f"the distance between its slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm, and they lie up to "
            f"{off:.2f} mm from a regular grid; expected at most {most:.2f}"
        )
    if holes := int(places[-1]) + 1 - len(along):
        at = int(np.argmax(steps > 1)) + 1
        return f"{holes} of {len(along) + holes} slices are missing, the first after slice {at}; {MISSING}"
    stated = number(header, "SpacingBetweenSlices") or 0.0
    times = round(usual / stated) if stated > SAME_POSITION else 1
    # Some scanners write the gap between slices here instead of the distance between their centres.
    is_gap = times > 2 and abs(stated + (number(header, "SliceThickness") or 0) - usual) <= most
    if times >= 2 and abs(usual / stated - times) <= UNEVEN * times and not is_gap:
        return (
            f"its slices lie {usual:.2f} mm apart, but SpacingBetweenSlices is {stated:.2f} mm: only one in {times} is "
            f"present; {MISSING}"
        )
    return None


def _uneven_by_rounding(header: Dataset, along: np.ndarray, most: float, uneven: str) -> str | None:
    """Return why slices whose positions are whole mm are not equally spaced, or None if rounding alone explains it.

    It does if they lie within ``most`` mm of a regular grid, with the distance that the header states and none missing.
    """
    stated = [number(header, name) or 0.0 for name in ("SpacingBetweenSlices", "SliceThickness")]
    steps, count = np.arange(len(along)), len(along)
    usual, start = np.polyfit(steps, along, 1)
    if np.abs(along - start - usual * steps).max() > most:
        return uneven
    counts = [
        {round((along[-1] - along[0]) / each) + 1, round(usual * (count - 1) / each) + 1}
        for each in stated
        if each > SAME_POSITION
    ]
    if {count} in counts:
        return None
    return f"its positions seem to be rounded to mm, which leaves open whether slices are missing: {uneven}"


def _displaced(sideways: np.ndarray, pixel: tuple[float, float]) -> str | None:
    """Return why slices do not form a block, given their shifts ``(N, 2)`` in mm along rows and columns; else None."""
    if np.abs(sideways[-1]).max() > 0.5 * min(pixel):
        return "its slices are shifted against each other, as with a tilted gantry"
    displaced = np.abs(sideways - np.linspace(0, 1, len(sideways))[:, None] * sideways[-1]).max(axis=1)
    if displaced.max() > 0.5 * min(pixel):
        count = int((displaced > 0.5 * min(pixel)).sum())
        return f"{count} of its {len(sideways)} slices lie beside the others, by up to {displaced.max():.2f} mm"
    return None
