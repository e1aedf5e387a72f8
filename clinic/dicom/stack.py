"""Whether the slices of a series form a regular grid, by their headers."""

from __future__ import annotations

import numpy as np
from pydicom.dataset import Dataset
from pydicom.uid import MRImageStorage

from clinic.dicom.headers import number, numbers, text
from clinic.dicom.pixels import MISSING

FARTHEST = 10_000.0
"""Maximum distance in mm of an image from the scanner's centre."""


def why_no_grid(
    header: Dataset, orientation: np.ndarray, positions: np.ndarray, pixel: tuple[float, float]
) -> str | None:
    """Return why slices, sorted along the normal, do not form a regular grid; None if they do.

    ``header`` is that of the first slice, ``orientation`` ``(2, 3)`` the directions of rows and columns, ``positions``
    ``(N, 3)`` those of the slices' first pixels in mm, ``pixel`` the distances in mm between columns and between rows.
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
    if not np.allclose(orientation @ orientation.T, np.eye(2), atol=1e-3):
        return (
            "the directions of its rows and columns are not at right angles, or not of length 1 "
            "(ImageOrientationPatient)"
        )
    if text(header, "SOPClassUID") == MRImageStorage and (number(header, "NumberOfFrames") or 1) > 1:
        return "a single-frame MR image with several frames, which DICOM does not allow"
    if len(positions) < 2:
        return "it has a single slice"
    sideways = (positions - positions[0]) @ orientation.T
    return _uneven(header, positions @ np.cross(*orientation)) or _displaced(sideways, pixel)


def _uneven(header: Dataset, along: np.ndarray) -> str | None:
    """Return why slices at these positions in mm along their normal are not equally spaced, or None."""
    gaps = np.diff(along)
    usual = float(np.median(gaps))
    tolerance = 0.01 + 0.01 * usual  # in mm, since positions are written with two or more decimals
    if gaps.min() < 0.01:
        count = int((gaps < 0.01).sum())
        return (
            f"{count} of its {len(along)} images lie at the position of another one "
            "(several time points, or two acquisitions in one series)"
        )
    holes = [round(gap / usual) - 1 for gap in gaps if gap > usual + tolerance]
    whole = all(abs(gap / usual - round(gap / usual)) * usual <= round(gap / usual) * tolerance for gap in gaps)
    if holes and whole:
        at = int(np.argmax(gaps > usual + tolerance)) + 1
        return f"{sum(holes)} of {len(along) + sum(holes)} slices are missing, the first after slice {at}; {MISSING}"
    if np.abs(gaps - usual).max() > tolerance:
        return f"the distance between its slices varies from {gaps.min():.2f} to {gaps.max():.2f} mm"
    stated = number(header, "SpacingBetweenSlices")
    times = round(usual / stated) if stated and stated > 0.01 else 1
    # Some scanners write the gap between slices here instead of the distance between their centres.
    is_gap = times > 2 and abs(stated + (number(header, "SliceThickness") or 0) - usual) <= tolerance
    if times >= 2 and abs(usual / stated - times) <= 0.01 * times and not is_gap:
        return (
            f"its slices lie {usual:.2f} mm apart, but SpacingBetweenSlices is {stated:.2f} mm: only one in {times} is "
            f"present; {MISSING}"
        )
    return None


def _displaced(sideways: np.ndarray, pixel: tuple[float, float]) -> str | None:
    """Return why slices, displaced by so many mm along rows and columns ``(N, 2)``, do not form a block, or None."""
    if np.abs(sideways[-1]).max() > 0.5 * min(pixel):
        return "its slices are shifted against each other, as with a tilted gantry"
    displaced = np.abs(sideways - np.linspace(0, 1, len(sideways))[:, None] * sideways[-1]).max(axis=1)
    if displaced.max() > 0.5 * min(pixel):
        count = int((displaced > 0.5 * min(pixel)).sum())
        return f"{count} of its {len(sideways)} slices lie beside the others, by up to {displaced.max():.2f} mm"
    return None
