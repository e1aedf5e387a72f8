"""Reading MetaImage and NRRD files with ITK, after a check that a file holds its own voxels."""

import re
from pathlib import Path

import numpy as np
from monai.data import ITKReader

from common.io.geometry import require_shape

NRRD_HEADER = re.compile(rb"NRRD.*?\n\r?\n", re.DOTALL)
"""Source: "Definition of NRRD File Format", section 3: the header ends with an empty line."""
NRRD_FILE = re.compile(rb"[\r\n]data\s*file\s*:(?!=)", re.IGNORECASE)
"""The field that names another file (section 5); ``key:=value`` is a note."""
META_FIELD = re.compile(rb"ElementDataFile", re.IGNORECASE)
META_LOCAL = re.compile(rb"^ElementDataFile *= *LOCAL *\r?\n", re.MULTILINE)
META_PACKED = re.compile(rb"^CompressedData *= *[Tt1]", re.MULTILINE)
META_SIZE = re.compile(rb"^CompressedDataSize *= *(\d+) *\r?$", re.MULTILINE)
"""Source: MetaIO, "Reference: Tags of MetaImage"."""


def read_with_itk(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Read a MetaImage (``.mha``) or NRRD (``.nrrd``) file that holds its voxels itself.

    Returns voxels ``(X, Y, Z)`` or ``(X, Y, Z, C)``, and the affine in mm, RAS. Raises ValueError as `shape_in_header`
    does, or if the shape cannot be that of an image; RuntimeError if voxels are missing or damaged.
    """
    require_shape(shape_in_header(path))
    reader = ITKReader()
    voxels, meta = reader.get_data(reader.read(path))
    return voxels, meta["affine"]


def shape_in_header(path: Path) -> tuple[int, ...]:
    """Return the spatial shape in the header of a MetaImage or NRRD file.

    Both formats can name other files to read. Such a file is refused, since it would let its sender read files of the
    person who opens it. Raises ValueError for such a file, or if the header is damaged.
    """
    import itk  # takes a second, which other formats should not wait for

    content = path.read_bytes()
    if path.suffix.lower() == ".nrrd":
        start = NRRD_HEADER.match(content)
        whole = start is not None and not NRRD_FILE.search(start[0])
    else:  # fields count up to ElementDataFile; it may occur only once, so that no other one is meant
        end = META_LOCAL.search(content)
        fields = content[: end.start()] if end else b""
        lines = fields.decode(errors="replace").replace("\r\n", "\n").split("\n")
        clear = all(line.isprintable() and line.count("=") == 1 for line in lines if line)
        whole = end is not None and len(META_FIELD.findall(content)) == 1 and clear
        if end and whole and META_PACKED.search(fields):  # MetaIO makes up what it cannot unpack
            size = META_SIZE.search(fields)
            whole = size is not None and int(size[1]) == len(content) - end.end()
    header = itk.ImageIOFactory.CreateImageIO(str(path), itk.CommonEnums.IOFileMode_ReadMode) if whole else None
    if header is None:
        raise ValueError("its header is damaged, or its voxels lie in another file; expected them after the header")
    header.SetFileName(str(path))
    try:
        header.ReadImageInformation()
    except RuntimeError:  # whose message has the path, which clients of a server are not told
        raise ValueError("its header is damaged") from None
    return tuple(int(header.GetDimensions(axis)) for axis in range(header.GetNumberOfDimensions()))
