"""Images and label maps for clients and from them; a `Worker` runs this, since files may be damaged.

A label map from a client is NIfTI or NRRD, recognised by its content, since its name may be wrong. A header that names
another file is refused, since that would be a file of the server.
"""

import gzip
import math
import zlib
from collections.abc import Mapping, Sequence
from io import BufferedIOBase
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from common.io.images import read_volume
from common.io.itk_formats import shape_in_header
from mmb.errors import StudyError
from mmb.server.datastore import Datastore, class_label, labelled_modality
from mmb.server.limits import LABEL_BYTES, LABEL_VOXELS
from mmb.server.options import Segment

EXPECTED = "expected NIfTI (.nii, .nii.gz) or NRRD (.nrrd) with the voxels inside; save it as one of these"
CHUNK = 1 << 20


def write_image(datastore: Datastore, image: str, folder: Path) -> str:
    """Write a study's reference volume, which clients show and on whose grid results lie, as NIfTI; return its name."""
    study, path = datastore.read_study(image), folder / "image.nii.gz"
    nib.save(study.images[study.reference], path)
    return path.name


def write_label(datastore: Datastore, image: str, tag: str, folder: Path) -> str:
    """Write a study's label map as NIfTI, return its name; raise FileNotFoundError if it has none of this tag."""
    path = folder / "label.nii.gz"
    nib.save(datastore.read_label(image, tag, datastore.read_study(image))[1], path)
    return path.name


def write_final_label(
    datastore: Datastore, image: str, file: Path, info: Sequence[Segment] | None, folder: Path
) -> str:
    """Write a label map that a person has approved into a folder, as the store keeps it; return the file's name.

    ``file`` is as a client sent it (see `read_label_map`), on the grid of one of the study's images. ``info`` has the
    meaning of its values 1, 2, ...; without it they are those of the cohort.
    """
    drawn, values = read_label_map(file, folder), datastore.cohort.labels.values
    voxels = _in_values_of(values, drawn.get_fdata(dtype="float32"), info)
    label = nib.Nifti1Image(voxels, drawn.affine)
    labelled_modality(datastore.read_study(image), label)
    path = folder / "final.nii.gz"
    nib.save(label, path)
    return path.name


def read_label_map(file: Path, folder: Path) -> nib.Nifti1Image:
    """Read the whole of a label map that a client sent, under any name, with its values unchanged.

    Decompressed files go into ``folder``. Raises ValueError if the file is neither NIfTI nor NRRD, has its voxels in
    another file, is damaged, or exceeds `limits`.
    """
    unpacked = folder / "unpacked"
    with file.open("rb") as source:
        packed = source.read(2) == b"\x1f\x8b"
        source.seek(0)
        with gzip.open(source) if packed else source as content:
            _copy(content, unpacked)
    with unpacked.open("rb") as content:
        start = content.read(348)
    if start.startswith(b"NRRD000"):
        return _read(unpacked.rename(folder / "label.nrrd"))
    if start[344:348] == b"n+1\0" or start[4:12] == b"n+2\0\r\n\x1a\n":
        return _read(unpacked.rename(folder / "label.nii"))
    raise ValueError(f"The label map is a file of another kind; {EXPECTED}.")


def _in_values_of(classes: Mapping[str, int], voxels: np.ndarray, info: Sequence[Segment] | None) -> np.ndarray:
    """Return a client's label map in the cohort's values, ``classes``; ``info`` says what its values mean."""
    whole = voxels.astype(np.uint8)
    if whole.ndim != 3 or not np.array_equal(whole, voxels):
        raise ValueError(f"A label map of shape {voxels.shape}; expected one volume of whole numbers from 0 to 255.")
    by_name = {class_label(name): value for name, value in classes.items()}
    table = {0: 0} if info else {0: 0, **{value: value for value in classes.values()}}
    for number, segment in enumerate(info or [], start=1):
        if segment.idx not in (None, number):
            raise ValueError(f"Segment {segment.name!r}: number {number} in the list, but its idx is {segment.idx}.")
        if segment.name not in by_name:
            raise ValueError(f"Segment {segment.name!r}; expected some of {', '.join(by_name)}. Rename or remove it.")
        table[number] = by_name[segment.name]
    unknown = sorted(set(np.unique(whole).tolist()) - set(table))
    if unknown:
        raise ValueError(f"The label map has the values {unknown}, which have no segment; expected {sorted(table)}.")
    return np.array([table.get(value, 0) for value in range(256)], np.uint8)[whole]


def _read(path: Path) -> nib.Nifti1Image:
    if math.prod(_shape(path)) > LABEL_VOXELS:
        raise _too_large()
    try:
        volume = read_volume(path)
    except ValueError as error:
        raise StudyError(str(error), f"The label map cannot be read as an image; {EXPECTED}.") from None
    return nib.Nifti1Image(volume.numpy(), volume.affine.numpy())


def _shape(path: Path) -> tuple[int, ...]:
    if path.suffix == ".nrrd":
        try:
            return shape_in_header(path)
        except ValueError as error:
            raise ValueError(f"The label map: {error}; {EXPECTED}.") from None
    try:
        image: Any = nib.load(path)
        return image.shape
    except Exception:  # nibabel's readers raise many types
        raise ValueError(f"The label map's header is damaged; {EXPECTED}.") from None


def _too_large() -> ValueError:
    return ValueError(
        f"The label map exceeds the limit of {LABEL_VOXELS} voxels, or {LABEL_BYTES >> 20} MiB unpacked; save it "
        "as whole numbers of one byte, on the grid of the image."
    )


def _copy(content: BufferedIOBase, path: Path) -> None:
    """Write a stream's content to a file, up to its end, where gzip verifies its checksum."""
    size = 0
    with path.open("wb") as target:
        while True:
            try:
                chunk = content.read(CHUNK)
            except (gzip.BadGzipFile, EOFError, zlib.error):
                raise ValueError("The label map is damaged or cut off (gzip); send it again.") from None
            if not chunk:
                return
            size += len(chunk)
            if size > LABEL_BYTES:
                raise _too_large()
            target.write(chunk)
