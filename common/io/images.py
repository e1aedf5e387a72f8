"""Reading and writing images."""

from __future__ import annotations

import logging
import os
from typing import Any

import numpy as np
from monai.data import MetaTensor, NibabelWriter
from monai.transforms import LoadImage

from common.io.files import replacing

logger = logging.getLogger(__name__)


def read_volume(path: str | os.PathLike, dtype: Any = np.float32) -> MetaTensor:
    """Read an image file (NIfTI, MHA, ...) as ``(X, Y, Z)`` or ``(X, Y, Z, C)`` with its affine in mm, RAS.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it cannot be decoded.
    """
    if not os.path.isfile(path):
        raise FileNotFoundError(
            f"{path}: no such file. A listed file must exist; leave a modality that is absent out of the list."
        )
    try:
        return LoadImage(image_only=True, dtype=dtype)(str(path))
    except Exception as error:  # every reader raises its own kinds
        cause = error.__cause__ or error
        raise ValueError(
            f"{path}: cannot be read as an image ({type(cause).__name__}: {str(cause).splitlines()[0]}); "
            "expected a whole NIfTI or MHA file. It is corrupt or truncated: copy or download it again."
        ) from error


class AtomicNibabelWriter(NibabelWriter):
    """MONAI's NIfTI writer; the file appears whole or not at all."""

    def write(self, filename: str | os.PathLike, verbose: bool = False, **obj_kwargs: Any) -> None:
        """Write to a temporary file beside ``filename``, then move it there."""
        with replacing(filename) as temporary:
            super().write(temporary, verbose=False, **obj_kwargs)
        if verbose:
            logger.info(f"written: {filename}")
