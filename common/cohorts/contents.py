"""Copies of images, which make their cases one patient, found without decoding the files."""

import gzip
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

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

    Of a gzip file, checksum and length of what is compressed are compared first, which are its last 8 bytes; of another
    one, its length and three samples. Files in which these are equal are read whole.
    """
    first: dict[str, list[tuple[str, str]]] = {}
    for item in items:
        for path in dict.fromkeys(map(str, item["image"])):
            known = first.setdefault(_sign(path), [])
            for other, other_path in known:
                if other != item["case"] and _equal(path, other_path):
                    yield Copy(item["case"], path, other, other_path)
                    break
            else:
                known.append((item["case"], path))


def content(item: Mapping[str, Any]) -> list[str]:
    """Return what tells, of each file of an item, whether it was changed; the place and the date of a file do not."""
    files = [*item["image"], *([item["label"]] if "label" in item else [])]
    return [_sign(str(path)) for path in files]


def _sign(path: str) -> str:
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if file.read(2) == GZIP:
            file.seek(max(0, size - 8))
            return file.read().hex()
        samples = b""
        for start in (0, size // 2, size - SAMPLE):
            file.seek(max(0, start))
            samples += file.read(SAMPLE)
    return f"{size}/{zlib.crc32(samples):08x}"


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
