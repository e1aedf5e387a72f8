"""Reading and writing images."""

from __future__ import annotations

import logging
import os
import warnings
from functools import cache
from typing import Any

import numpy as np
from monai.data import MetaTensor, NibabelReader, NibabelWriter
from monai.transforms import LoadImage
from nibabel.orientations import aff2axcodes

from common.io.files import replacing

logger = logging.getLogger(__name__)

# Every LoadImage makes every reader; where pydicom is installed, one of them complains that it lacks a GPU's decoder.
logging.getLogger("monai.data.nvimgcodec_pydicom_plugin").setLevel(logging.ERROR)
warnings.filterwarnings("ignore", message="NvImgCodecPydicomReader")

ANALYZE = (".hdr", ".img")
"""Suffixes of Analyze images, either of which names both files; MONAI has no reader by default for them."""


def read_volume(path: str | os.PathLike, dtype: Any = np.float32) -> MetaTensor:
    """Read an image file (NIfTI, MHA, Analyze) as ``(X, Y, Z)`` or ``(X, Y, Z, C)`` with its affine in mm, RAS.

    A fourth dimension of one channel, as iSEG's images have, is dropped. A file that does not say how it lies is warned
    about once.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be decoded.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such file. A listed file must exist; leave a modality that is absent out of the list."
        )
    try:
        reader = NibabelReader() if str(path).lower().endswith(ANALYZE) else None
        volume = LoadImage(image_only=True, dtype=dtype)(str(path), reader)
    except Exception as error:  # every reader raises its own kinds
        cause = error.__cause__ or error
        raise ValueError(
            f"{path}: cannot be read as an image ({type(cause).__name__}: {str(cause).splitlines()[0]}); "
            "expected a whole NIfTI, MHA or Analyze file. It is corrupt or truncated: copy or download it again."
        ) from error
    if said := unplaced(volume):
        _warn_once(f"{path}: {said}.")
    return volume[..., 0] if volume.ndim == 4 and volume.shape[3] == 1 else volume


def unplaced(volume: MetaTensor) -> str | None:
    """Say of a volume as read from NIfTI that its file does not tell how it lies; None if it does."""
    if any(int(volume.meta.get(code, 1)) for code in ("qform_code", "sform_code")):
        return None
    axes = "".join(aff2axcodes(volume.affine.numpy()))
    return (
        f"the file does not say how it lies (qform and sform code 0); taken as {axes}, with the middle at the origin: "
        "left and right may be exchanged. Convert it again from the scanner's files, or write its affine into it"
    )


@cache
def _warn_once(message: str) -> None:
    logger.warning(message)


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer; the file appears whole or not at all."""

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write to a temporary file beside ``filename``, then move it there."""
        with replacing(filename) as temporary:
            super().write(temporary, verbose=False, **obj_kwargs)
        if verbose:
            logger.info(f"written: {filename}")
