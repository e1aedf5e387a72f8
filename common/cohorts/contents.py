"""Copies of images, which make their cases one patient."""

import gzip
import hashlib
import json
import os
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from scipy.ndimage import find_objects
from tqdm import tqdm

from common.io.files import replacing

LEAST = 18
"""Bytes of the shortest gzip file; what is shorter is no image."""
MANY = 200
"""Number of label maps from which on the search for copies shows its progress, and keeps their checksums."""
GZIP = b"\x1f\x8b"
SAMPLE = 65536
"""Bytes that are read at the beginning, in the middle and at the end of a file that is not compressed."""


class Copy(NamedTuple):
    """Two cases with an image of the same content, whatever the files are called."""

    case: str
    path: str
    other: str
    other_path: str


def copies(items: Iterable[Mapping[str, Any]]) -> Iterator[Copy]:
    """Yield each case that has a copy of an earlier case's image.

    Copies have the same bytes, however they are compressed; or equal voxels once they are loaded, if the label maps are
    equal too: those were saved anew, with another type, header or orientation.
    """
    items = list(items)
    yield from _of_equal_bytes(items)
    yield from _of_equal_voxels(items)


def _of_equal_bytes(items: Sequence[Mapping[str, Any]]) -> Iterator[Copy]:
    """Yield copies of the same bytes, for which few files are decoded.

    Lengths and checksums are compared first: those in the last 8 bytes of a gzip file; of a file that is not
    compressed, three samples' checksum or, if there are compressed ones of its length too, its own. Files in which
    these are equal are read whole.
    """
    paths = [(item["case"], path) for item in items for path in dict.fromkeys(map(str, item["image"]))]
    paths = [(case, path) for case, path in paths if os.path.getsize(path) >= LEAST]
    packed = {length for _, path in paths if (length := _packed_length(path)) is not None}
    first: dict[str, list[tuple[str, str]]] = {}
    for case, path in paths:
        known = first.setdefault(_sign(path, packed), [])
        for other, other_path in known:
            if other != case and _equal(path, other_path):
                yield Copy(case, path, other, other_path)
                break
        else:
            known.append((case, path))


def _of_equal_voxels(items: Sequence[Mapping[str, Any]]) -> Iterator[Copy]:
    """Yield copies with the same label map; images are loaded only where label maps are equal, so seldom."""
    labelled = [item for item in items if item.get("label") is not None]
    many, alike = len(labelled) >= MANY, dict[str | None, list[Mapping[str, Any]]]()
    kept = _kept_sums() if many else {}
    sums: dict[str, str | None] = {}
    for item in tqdm(labelled, desc="looking for copies", unit="label", leave=False, disable=not many):
        path, about = str(item["label"]), os.stat(item["label"])
        file = f"{about.st_size} {about.st_mtime_ns} {os.path.abspath(path)}"
        sums[file] = kept[file] if file in kept else _sum_of_voxels(path, about.st_mtime_ns)
        alike.setdefault(sums[file], []).append(item)
    if many and not sums.keys() <= kept.keys():
        _keep_sums(kept | sums)
    for group in [group for digest, group in alike.items() if digest and len(group) > 1]:
        first: dict[str, tuple[str, str]] = {}
        for item in group:
            for path in map(str, item["image"]):
                digest = _sum_of_voxels(path, os.stat(path).st_mtime_ns)
                other, other_path = first.setdefault(digest or path, (item["case"], path))
                if other != item["case"]:
                    yield Copy(item["case"], path, other, other_path)
                    break


@cache
def _sum_of_voxels(path: str, changed: int) -> str | None:
    """Return a checksum of an image's box of voxels that are not 0, with axes in RAS; None if there are none.

    After a change the file is read again, since ``changed`` (ns) is its modification time.
    """
    from common.io import read_volume  # imports MONAI

    try:
        volume = read_volume(path)
    except (OSError, ValueError):
        return None  # others will say so
    image = nib.as_closest_canonical(nib.Nifti1Image(np.asarray(volume, np.float32), volume.affine.numpy()))
    voxels = np.asarray(image.dataobj)
    boxes = find_objects((voxels != 0).astype(np.uint8))
    return hashlib.sha256(np.ascontiguousarray(voxels[boxes[0]]).data).hexdigest() if boxes else None


def _sums_file() -> Path:
    folder = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(folder, "missing-modality-bundles", "label_sums.json")


def _kept_sums() -> dict[str, str | None]:
    """Return the checksums of label maps that an earlier run computed; none if it could not keep them."""
    try:
        return dict(json.loads(_sums_file().read_text()))
    except (OSError, ValueError, TypeError):
        return {}


def _keep_sums(sums: Mapping[str, str | None]) -> None:
    """Keep checksums of files that are still there, as far as this user may write there."""
    there = {file: digest for file, digest in sums.items() if os.path.exists(file.split(" ", 2)[2])}
    with suppress(OSError), replacing(_sums_file()) as path:
        path.write_text(json.dumps(there))


def content(item: Mapping[str, Any]) -> list[str]:
    """Return what tells whether an item was changed: of each file, and what is said of them besides.

    The place and the date of a file say nothing. Labels are read whole, images that are not compressed in samples.
    """
    label = str(item["label"]) if "label" in item else None
    files = [_sign(str(path)) for path in item["image"]] + ([_sign(label, whole=True)] if label else [])
    said = {key: item[key] for key in sorted(item) if key not in ("image", "label", "patient")}
    return [*files, json.dumps(said)]


def _packed_length(path: str) -> int | None:
    """Return the length (modulo 2^32) of what a gzip file holds; None if the file is not compressed."""
    with open(path, "rb") as file:
        if file.read(2) != GZIP:
            return None
        file.seek(-4, os.SEEK_END)
        return int.from_bytes(file.read(), "little")


def _sign(path: str, packed: Collection[int] = (), whole: bool = False) -> str:
    """Return length and checksum, of all bytes of a file that is not compressed if ``whole``, or ``packed`` has it."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(2) == GZIP and size >= LEAST:
            file.seek(-8, os.SEEK_END)
            checksum, length = struct.unpack("<II", file.read())
            return f"{length}/{checksum:08x}"
        checksum = 0
        if whole or size in packed:
            file.seek(0)
            while part := file.read(1 << 20):
                checksum = zlib.crc32(part, checksum)
            return f"{size}/{checksum:08x}"
        for start in (0, size // 2, size - SAMPLE):
            file.seek(max(0, start))
            checksum = zlib.crc32(file.read(SAMPLE), checksum)
    return f"{size}/{checksum:08x}"


def _equal(path: str, other: str) -> bool:
    if os.path.samefile(path, other):
        return True
    with _opened(path) as one, _opened(other) as two:
        while (part := one.read(1 << 20)) == two.read(1 << 20):
            if not part:
                return True
    return False


def _opened(path: str) -> Any:
    with open(path, "rb") as file:
        packed = file.read(2) == GZIP
    return gzip.open(path) if packed else open(path, "rb")
