"""The mean brain of training cases, to which `clinic.study.alignment.turn_upright` aligns a tilted study."""

from collections.abc import Collection, Mapping, Sequence

import nibabel as nib
import numpy as np
from nibabel.affines import from_matvec, voxel_sizes

from clinic.study.grid import Grid, Image, resample
from common.modalities import GLIOMA

SPACING = 2.0  # voxel size of the mean brain in mm


def mean_brain(cases: Collection[Mapping[str, Image]]) -> Image:
    """Return the mean of cases that were registered to one atlas, in the form of `clinic.study.alignment.MEAN_BRAIN`.

    Each volume is scaled so that the 99th percentile of its brain is 1. Returns ``(X, Y, Z, 4)`` uint8, 200 for the
    99th percentile, on a grid of 2 mm, RAS, with its origin in the middle. The volumes of each case by modality are
    skull-stripped and all of the same shape after reorientation to RAS; the origins in their headers are ignored.
    """
    means = [np.mean([_scaled(case[name]) for case in cases], axis=0) for name in GLIOMA]
    mean = Image((np.stack(means, axis=-1) * 200).clip(0, 255).round().astype(np.uint8), _centred(means[0].shape))
    mean.header.set_xyzt_units("mm")
    return mean


def _scaled(image: Image) -> np.ndarray:
    straight = nib.as_closest_canonical(image)
    spacing = voxel_sizes(straight.affine)
    shape = tuple(np.ceil(np.array(straight.shape) * spacing / SPACING).astype(int).tolist())
    centred = Image(straight.dataobj, _centred(straight.shape, spacing))
    shown = resample(centred, Grid(shape, _centred(shape))).clip(0)
    return shown / np.percentile(shown[shown > 0], 99)


def _centred(shape: Sequence[int], spacing: Sequence[float] = (SPACING,) * 3) -> np.ndarray:
    """Return the affine of an axis-aligned grid with the origin in its middle."""
    return from_matvec(np.diag(spacing), -(np.array(shape) - 1) / 2 * spacing)
