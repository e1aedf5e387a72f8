"""Reading and writing images."""

import logging
import os
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from monai.data import MetaTensor, NibabelWriter

from common.io.files import replacing
from common.io.geometry import require_plausible
from common.io.itk_formats import read_with_itk
from common.io.nifti import PAIR, read_nifti
from common.io.orientation import NOT_STATED, orientation_doubt

logger = logging.getLogger(__name__)

NEARLY = 1e-3  # distance from a whole number below which a label's value is rounded: a header's scaling is not exact
ITK_SUFFIXES = (".mha", ".nrrd")


def read_volume(path: str | os.PathLike) -> MetaTensor:
    """Read an image file as ``(X, Y, Z)`` or ``(X, Y, Z, C)`` with its affine in mm, RAS.

    NIfTI, Analyze, MetaImage (``.mha``) and NRRD files are read completely; none may refer to another file. A fourth
    dimension of one channel, as in iSEG's images, is dropped. Doubts about a file, such as a missing orientation, are
    logged once as a warning and kept in ``meta["doubts"]`` by their codes. Raises FileNotFoundError if the file does
    not exist; PermissionError if this user may not read it; ValueError if it is incomplete, its voxels are not real
    numbers, or its affine is not plausible.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such file. A listed file must exist; leave an absent modality out of the list."
        )
    if not os.access(path, os.R_OK):
        raise PermissionError(f"{path}: permission denied; give this user the right to read it.")
    try:
        if str(path).lower().endswith(ITK_SUFFIXES):
            voxels, affine = read_with_itk(Path(path))
            doubts = orientation_doubt(Path(path), None, affine)
        else:
            voxels, affine, doubts = read_nifti(Path(path))
        if not (np.issubdtype(voxels.dtype, np.floating) or np.issubdtype(voxels.dtype, np.integer)):
            raise ValueError(f"voxels of type {voxels.dtype}; expected real numbers")
        require_plausible(affine, voxels.shape)
    except Exception as error:  # every library raises its own types
        kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
        raise ValueError(
            f"{path}: cannot be read as an image ({kind}{' '.join(str(error).split())}); expected a complete NIfTI, "
            "MHA, NRRD or Analyze file of a scan. If it is corrupt or truncated, copy or download it again."
        ) from error
    for code, doubt in doubts.items():
        if code != NOT_STATED or not str(path).lower().endswith(PAIR):  # an Analyze header has no field for it
            _warn_once(f"{path}: {doubt}.")
    meta = {"doubts": doubts}
    voxels = voxels[..., 0] if voxels.ndim == 4 and voxels.shape[3] == 1 else voxels
    return MetaTensor(torch.as_tensor(voxels.astype(np.float32)), affine=torch.as_tensor(affine), meta=meta)


def label_map(label: MetaTensor, path: str | os.PathLike) -> MetaTensor:
    """Return a file's volume with nearly whole values (`NEARLY`) as whole ones; ValueError if not ``(X, Y, Z)``."""
    if label.ndim != 3:
        raise ValueError(
            f"{path}: shape {tuple(label.shape)}; expected a label map (X, Y, Z), not channels of classes."
        )
    return cast(MetaTensor, torch.where((label - label.round()).abs() < NEARLY, label.round(), label))


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer, made atomic: the file appears complete or not at all."""

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write to a temporary file beside ``filename``, then move it there."""
        with replacing(filename) as temporary:
            super().write(temporary, verbose=False, **obj_kwargs)
        if verbose:
            logger.info(f"written: {filename}")
