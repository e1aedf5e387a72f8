"""Reading MetaImage and NRRD files with ITK, after checks that ITK omits: that a file holds all of its own voxels."""

import math
import re
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from monai.data import ITKReader

from common.io.geometry import require_shape

HEADER_BYTES = 2**16  # maximum length of a header
_INTEGERS = {
    f"{sign}{name}": np.dtype(f"{sign}{number}")
    for name, number in {"char": "int8", "short": "int16", "int": "int32", "long_long": "int64"}.items()
    for sign in ("", "u")
}
_REALS = {"float": np.dtype("float32"), "double": np.dtype("float64")}
_METAIMAGE_TYPES = {f"MET_{name.upper()}": dtype for name, dtype in (_INTEGERS | _REALS).items()}
_NRRD_TYPES = {name.replace("_", " "): dtype for name, dtype in (_INTEGERS | _REALS).items()}
_NRRD_TYPES |= {dtype.name: dtype for dtype in _INTEGERS.values()}

_NRRD_FIELDS = {
    "dimension", "type", "blocksize", "encoding", "endian", "content", "min", "max", "oldmin", "oldmax", "number",
    "sampleunits", "sizes", "spacings", "thicknesses", "axismins", "axismaxs", "centers", "centerings", "labels",
    "units", "kinds", "space", "spacedimension", "spaceunits", "spaceorigin", "spacedirections", "measurementframe",
}  # fmt: skip
"""Fields of an NRRD header, without spaces; none names another file, or bytes to skip."""


def read_with_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a MetaImage (``.mha``) or NRRD (``.nrrd``) file that holds its voxels itself.

    Both formats can name other files to read, or bytes to skip. Such a file is refused, since it would let its sender
    read files of the person who opens it. Returns voxels ``(X, Y, Z)`` or ``(X, Y, Z, C)``, and the affine in mm, RAS.
    Raises ValueError if the header names another file, announces more or fewer bytes than there are, or uses a feature
    that is not supported here.
    """
    content = path.read_bytes()
    layout = _of_nrrd if content.startswith(b"NRRD") else _of_metaimage
    shape, dtype, inflate, voxels = layout(content)
    require_shape(shape)
    expected = math.prod(shape) * dtype.itemsize
    if inflate is not None:
        voxels = inflate(voxels, expected)
    if len(voxels) != expected:
        raise ValueError(f"its header announces {expected} bytes of voxels, but it has {len(voxels)}; copy it again")
    reader = ITKReader()
    array, meta = reader.get_data(reader.read(path))
    own = np.frombuffer(voxels, dtype).reshape(shape, order="F")
    own = own if own.shape == array.shape else np.moveaxis(own, 0, -1)  # NRRD may list a voxel's values first
    if not np.array_equal(array, own, equal_nan=dtype.kind == "f"):
        raise ValueError(
            "its header is inconsistent: ITK reads voxels that differ from those in the file; convert it again"
        )
    return array, meta["affine"]


def nrrd_shape(path: Path) -> tuple[int, ...]:
    """Return the shape in the header of an NRRD file, which is refused as in `read_with_itk`."""
    with path.open("rb") as file:
        return _of_nrrd(file.read(HEADER_BYTES))[0]


Layout = tuple[tuple[int, ...], np.dtype, Callable[[bytes, int], bytes] | None, bytes]
"""Shape, data type, function that decompresses the voxels (or None), and the voxels' bytes."""


def _of_metaimage(content: bytes) -> Layout:
    """Parse a MetaImage. Source: documentation of MetaIO, "Quick start" and "Reference: Tags of MetaImage"."""
    end = re.search(rb"^ElementDataFile\s*=\s*([^\r\n]*?)\s*?\r?\n", content[:HEADER_BYTES], re.MULTILINE)
    if end is None or end[1] != b"LOCAL":
        raise ValueError("a MetaImage whose voxels lie in another file; expected one with ElementDataFile = LOCAL")
    fields = _fields(content[: end.start()], "=")
    if "HeaderSize" in fields:
        raise ValueError("a MetaImage with a HeaderSize; expected one whose voxels directly follow its header")
    if fields.get("BinaryData", "False") != "True" or int(fields.get("ElementNumberOfChannels", 1)) != 1:
        raise ValueError("a MetaImage with text or multi-channel voxels; expected one binary value per voxel")
    dtype = _METAIMAGE_TYPES.get(fields.get("ElementType", ""))
    if dtype is None:
        raise ValueError(f"ElementType {fields.get('ElementType')}; expected one of {', '.join(_METAIMAGE_TYPES)}")
    swapped = "True" in (fields.get("BinaryDataByteOrderMSB"), fields.get("ElementByteOrderMSB"))
    dtype = dtype.newbyteorder(">" if swapped else "<")
    packed = fields.get("CompressedData", "False") == "True"
    return _sizes(fields, "DimSize"), dtype, _inflating(zlib.MAX_WBITS) if packed else None, content[end.end() :]


def _of_nrrd(content: bytes) -> Layout:
    """Parse an NRRD file. Source: "Definition of NRRD File Format", sections 3 (header) and 5 (fields)."""
    end = re.search(rb"\r?\n\r?\n", content[:HEADER_BYTES])
    if end is None:
        raise ValueError("an NRRD file whose header does not end; copy it again")
    lines = re.split(rb"[\r\n]+", content[: end.start()])
    own = [line for line in lines if not re.match(rb"#|[^:]*:=", line)]  # no comments, or key/value pairs of programs
    fields = {" ".join(name.lower().split()): value for name, value in _fields(b"\n".join(own), ":").items()}
    if other := next((name for name in fields if name.replace(" ", "") not in _NRRD_FIELDS), None):
        raise ValueError(
            f"an NRRD file with the field {other[:40]!r}; expected known ones, and voxels after the header"
        )
    kind = re.sub(r"^unsigned ", "u", fields.get("type", "").lower().removeprefix("signed ")).removesuffix("_t")
    dtype = _NRRD_TYPES.get(re.sub("(?<=short|.long) int$", "", kind.replace("longlong", "long long")))
    if dtype is None:
        raise ValueError(f"type {kind!r}; expected one of {', '.join(_NRRD_TYPES)}")
    dtype = dtype.newbyteorder(">" if fields.get("endian", "").lower() == "big" else "<")
    encoding = fields.get("encoding", "").lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise ValueError(f"encoding {encoding!r}; expected raw or gzip")
    inflate = None if encoding == "raw" else _inflating(zlib.MAX_WBITS + 16)
    return _sizes(fields, "sizes"), dtype, inflate, content[end.end() :]


def _fields(header: bytes, separator: str) -> Mapping[str, str]:
    lines = (line.partition(separator) for line in header.decode("latin1").splitlines())
    return {name.strip(): value.strip() for name, found, value in lines if found}


def _sizes(fields: Mapping[str, str], name: str) -> tuple[int, ...]:
    sizes = fields.get(name, "").split()
    if not all(size.isdecimal() for size in sizes):
        raise ValueError(f"{name} = {fields.get(name)}; expected whole numbers")
    return tuple(map(int, sizes))


def _inflating(window: int) -> Callable[[bytes, int], bytes]:
    """Return a function that decompresses bytes, checks their checksum, and returns at most one byte too many."""

    def inflate(packed: bytes, expected: int) -> bytes:
        stream = zlib.decompressobj(window)
        voxels = stream.decompress(packed, expected + 1)
        if not stream.eof and len(voxels) <= expected:
            raise EOFError("its compressed voxels are truncated")
        return voxels

    return inflate
