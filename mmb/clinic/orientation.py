"""Formats of image files that need not state how a volume lies in space; of others, `common.io.nifti` says so."""

import re
from pathlib import Path

import numpy as np
from nibabel.orientations import aff2axcodes

STATED = {
    ".nrrd": (rb"NRRD.*?\n\r?\n", rb"^space[ \t]*:"),
    ".mha": (rb".*?^ElementDataFile", rb"^(TransformMatrix|Rotation|Orientation)[ \t]*="),
}
"""Suffix -> pattern of the header, and of the field in it that states the orientation."""


def orientation_doubt(path: Path, affine: np.ndarray) -> str | None:
    """Return that a file does not state its orientation, and which is assumed (``affine``: to mm, RAS); else None."""
    suffix = next((suffix for suffix in STATED if path.name.lower().endswith(suffix)), None)
    if suffix is None:
        return None
    header, field = (re.compile(pattern, re.DOTALL | re.MULTILINE) for pattern in STATED[suffix])
    found = header.match(path.read_bytes())
    stated, what = bool(found and field.search(found[0])), f"{suffix[1:].upper()} without a field for it"
    if stated:
        return None
    return (
        f"its header does not state the orientation ({what}); taken as {''.join(aff2axcodes(affine))}: left and right, "
        "or front and back, may be exchanged. Convert it again from the scanner's files"
    )
