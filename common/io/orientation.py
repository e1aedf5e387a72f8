"""Formats of image files that need not state how a volume lies in space."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from nibabel.nifti1 import Nifti1Header
from nibabel.orientations import aff2axcodes

STATED = {
    ".nrrd": (rb"NRRD.*?\n\r?\n", rb"^space[ \t]*:"),
    ".mha": (rb".*?^ElementDataFile", rb"^(TransformMatrix|Rotation|Orientation)[ \t]*="),
}
"""Suffix -> pattern of the header, and of the field in it that states the orientation."""
NOT_STATED = "orientation_not_stated"
"""Code of the doubt that left and right are not known."""


def orientation_doubt(path: Path, image: Any, affine: np.ndarray) -> dict[str, str]:
    """Return that a file does not state its orientation, and which is assumed, under `NOT_STATED`; else nothing.

    ``image`` is what nibabel read of a NIfTI or Analyze file, None of the formats in `STATED`; ``affine`` leads to mm,
    RAS.
    """
    if image is None:
        header, field = (re.compile(part, re.DOTALL | re.MULTILINE) for part in STATED[path.suffix.lower()])
        found = header.match(path.read_bytes())
        stated, what = bool(found and field.search(found[0])), f"{path.suffix[1:].upper()} without a field for it"
    elif isinstance(image.header, Nifti1Header):
        stated = any(form(coded=True)[1] for form in (image.get_sform, image.get_qform))
        what = "qform and sform code 0"
    else:
        stated, what = any(path.with_suffix(end).is_file() for end in (".mat", ".MAT")), "Analyze 7.5"
    if stated:
        return {}
    axes = "".join(aff2axcodes(affine))
    text = (
        f"its header does not state the orientation ({what}); taken as {axes}: left and right, or front and back, may "
        "be exchanged. Convert it again from the scanner's files, or write its affine into it"
    )
    return {NOT_STATED: text}
