"""Formats of image files that need not state how a volume lies in space; of NIfTI, `common.io.nifti` says so."""

import re
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.analyze import AnalyzeHeader
from nibabel.nifti1 import Nifti1Header
from nibabel.orientations import aff2axcodes

STATED = {
    ".nrrd": (rb"NRRD.*?\n\r?\n", rb"^space[ \t]*:"),
    ".mha": (rb".*?^ElementDataFile", rb"^(TransformMatrix|Rotation|Orientation)[ \t]*="),
}
"""Suffix -> pattern of the header, and of the field in it that states the orientation."""


def orientation_doubt(path: Path, affine: np.ndarray) -> str | None:
    """Return that a file does not state its orientation, and which is assumed (``affine``: to mm, RAS); else None."""
    name = path.name.lower()
    suffix = next((suffix for suffix in (".img", ".hdr", *STATED) if name.endswith(suffix)), None)
    if suffix is None:
        return None
    if suffix in STATED:
        header, field = (re.compile(pattern, re.DOTALL | re.MULTILINE) for pattern in STATED[suffix])
        found = header.match(path.read_bytes())
        stated, what = bool(found and field.search(found[0])), f"{suffix[1:].upper()} without a field for it"
    else:
        matrix = any(path.with_suffix(end).is_file() for end in (".mat", ".MAT"))
        kind = type(nib.load(path).header)
        stated = matrix or not issubclass(kind, AnalyzeHeader) or issubclass(kind, Nifti1Header)
        what = "Analyze 7.5"
    if stated:
        return None
    return (
        f"its header does not state the orientation ({what}); taken as {''.join(aff2axcodes(affine))}: left and right, "
        "or front and back, may be exchanged. Convert it again from the scanner's files"
    )
