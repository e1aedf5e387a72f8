"""Copies of images, which make their cases one patient."""

import gzip
import json
import os
import struct
import zlib
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

LEAST = 18
"""Bytes of the shortest gzip file; what is shorter is no image."""
GZIP = b"\x1f\x8b"
CHECKED = "checked.json"
"""In a folder of cases that ``mmb check`` found no fault with: case -> length and checksum of its files."""
SAMPLE = 65536
"""Bytes that are read at the beginning, in the middle and at the end of a file that is not compressed."""


class Copy(NamedTuple):
    """Two cases with an image of the same content, whatever the files are called."""

    case: str
    path: str
    other: str
    other_path: str


def copies(items: Iterable[Mapping[str, Any]]) -> Iterator[Copy]:
    """Yield each case that has a copy of an earlier case's image: the same bytes, however they are compressed.

    Copies that were saved anew, with another type or header, are found by `common.cohorts.check.check_folder`.

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


def content(item: Mapping[str, Any]) -> list[str]:
    """Return what tells whether an item was changed: of each file, and what is said of them besides.

    The place and the date of a file say nothing. Labels are read whole, images that are not compressed in samples.
    """
    label = str(item["label"]) if "label" in item else None
    files = [_sign(str(path)) for path in item["image"]] + ([_sign(label, whole=True)] if label else [])
    said = {key: item[key] for key in sorted(item) if key not in ("image", "label", "patient")}
    return [*files, json.dumps(said)]


def unchecked(items: Iterable[Mapping[str, Any]], folder: str | os.PathLike) -> list[str]:
    """Return the cases whose files are not among those that were checked in a folder."""
    path = Path(folder, CHECKED)
    known = json.loads(path.read_text()).values() if path.is_file() else ()
    return [item["case"] for item in items if content(item)[:-1] not in known]


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
