"""Reading MetaImage and NRRD files with ITK, after a check that a file holds its own voxels, and all of them."""

import gzip
import re
import zlib
from pathlib import Path

import numpy as np
from monai.data import ITKReader

from common.io.geometry import require_shape

HEADER_BYTES = 2**16  # maximum length of an NRRD header


def read_with_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a MetaImage (``.mha``) or NRRD (``.nrrd``) file that holds its voxels itself.

    Both formats can name other files to read. Such a file is refused, since it would let its sender read files of the
    person who opens it. Returns voxels ``(X, Y, Z)`` or ``(X, Y, Z, C)``, and the affine in mm, RAS. Raises ValueError
    if the header names another file, or announces more or fewer bytes than there are; if the file is damaged, whatever
    ITK, gzip or zlib raise.
    """
    content = path.read_bytes()
    voxels = _nrrd_voxels(content) if content.startswith(b"NRRD") else _metaimage_voxels(content)
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(path))
    if array.nbytes != len(voxels):
        raise ValueError(f"its header announces {array.nbytes} bytes of voxels, but it has {len(voxels)}")
    return array, meta["affine"]


def nrrd_shape(path: Path) -> tuple[int, ...]:
    """Return the shape in the header of an NRRD file; raises ValueError if it names another file or has no shape."""
    with path.open("rb") as file:
        return _nrrd_sizes(_nrrd_header(file.read(HEADER_BYTES))[0])


def _metaimage_voxels(content: bytes) -> bytes:
    """Return the bytes of a MetaImage's voxels. Source: MetaIO, "Reference: Tags of MetaImage".

    MetaIO reads fields up to ElementDataFile. Only one place in the file may name it, so that no other is meant.
    """
    end = re.search(rb"^ElementDataFile *= *LOCAL *\r?\n", content, re.MULTILINE)
    if end is None or len(re.findall(rb"ElementDataFile", content, re.IGNORECASE)) != 1:
        raise ValueError("a MetaImage whose voxels lie in another file; expected one with ElementDataFile = LOCAL")
    voxels = content[end.end() :]
    return zlib.decompress(voxels) if re.search(rb"^CompressedData *= *True", content, re.MULTILINE) else voxels


def _nrrd_voxels(content: bytes) -> bytes:
    fields, voxels = _nrrd_header(content)
    require_shape(_nrrd_sizes(fields))
    return gzip.decompress(voxels) if fields.get("encoding", "").lower() in ("gz", "gzip") else voxels


def _nrrd_header(content: bytes) -> tuple[dict[str, str], bytes]:
    """Return the fields of an NRRD file, and the bytes after its header.

    Source: "Definition of NRRD File Format", sections 3 (header) and 5 (fields).
    """
    end = re.search(rb"\r?\n\r?\n", content[:HEADER_BYTES])
    if end is None:
        raise ValueError("an NRRD file whose header does not end; copy it again")
    lines = re.split(r"[\r\n]+", content[: end.start()].decode("latin1"))
    parts = (line.partition(":") for line in lines if not re.match("#|[^:]*:=", line))  # not comments, or key:=value
    fields = {"".join(name.lower().split()): value.strip() for name, _, value in parts}
    if "datafile" in fields:
        raise ValueError("an NRRD file whose voxels lie in another file; expected them after the header")
    return fields, content[end.end() :]


def _nrrd_sizes(fields: dict[str, str]) -> tuple[int, ...]:
    sizes = fields.get("sizes", "").split()
    if not sizes or not all(map(str.isdecimal, sizes)):
        raise ValueError(f"sizes {fields.get('sizes')}; expected whole numbers")
    return tuple(map(int, sizes))
