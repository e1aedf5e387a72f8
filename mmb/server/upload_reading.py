"""What is in a study that a client has sent; a `Worker` runs this, since files may be damaged or hostile."""

import io
import lzma
import time
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from nibabel.affines import voxel_sizes

from common.cohorts.cohort import Cohort
from common.io.files import walk
from common.io.geometry import lengths
from common.modalities import display_name
from mmb.clinic.recognise.assign import assign_series, to_look_at
from mmb.clinic.recognise.claims import Headers, read_headers
from mmb.clinic.recognise.evidence import Candidate, SeriesCandidate
from mmb.clinic.recognise.record import Assignment
from mmb.clinic.recognise.site import SiteTable
from mmb.clinic.report.pictures import thumbnail
from mmb.errors import StudyError
from mmb.server.errors import private
from mmb.server.limits import DIRECTORY_BYTES, UNPACKED_BYTES, UPLOAD_FILES
from mmb.server.upload_store import created, inside, require_free_disk

CHUNK = 1 << 20
PICTURES, PICTURES_SECONDS = 100, 30  # of how many candidates pictures are made, and for how long
DAMAGED = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError, NotImplementedError, OverflowError)
"""Errors of a zip that is damaged, encrypted, or packed in a way that Python does not know."""


class _Zip(io.FileIO):
    """A file of which no more is read at once than a zip with `UPLOAD_FILES` files needs."""

    def read(self, size: int | None = -1) -> bytes:
        if (size or 0) > DIRECTORY_BYTES:
            raise _too_large()
        return super().read(size)


def recognise_upload(folder: Path, cohort: Cohort, site: SiteTable | None = None) -> dict[str, Any]:
    """Unpack the zips that a study was sent as, and return what its headers and names say.

    Returns ``sequences``, modality -> its name for a reader; ``candidates``, the series or files with what each is
    taken for, its ``size`` and a ``picture`` (see `_seen`); ``automatic``, modality -> the ``key`` of the one that is
    used unless a person decides otherwise; ``open``, the modalities that only the images can tell; ``refused``,
    modality -> why it is left out (of an empty one: why nothing is decided); and ``left_out``, a line for each series
    or file that is none of them. Raises ValueError if the folder is no study.
    """
    with private(sent=True):
        _unpack_all(folder)
        headers = read_headers(folder, cohort, site=site)
        made, unclear, refused = _automatic(headers)
        not_used = {
            each.candidate: f"; not used, since {each.better}"
            for each in made.records
            if each.better and each.candidate not in unclear
        }
        return {
            "candidates": [
                {
                    "key": each.key,
                    "name": each.name,
                    "described": each.described,
                    "modality": each.says.modality,
                    "reason": each.problem or each.says.reason + not_used.get(each, ""),
                    "usable": each.problem is None,
                    **seen,
                }
                for each, seen in zip(headers.candidates, _seen(headers.candidates), strict=True)
            ],
            "sequences": {name: display_name(name) for name in cohort.modalities},
            "automatic": {name: each.candidate.key for name, each in made.chosen.items()},
            "open": sorted({each.says.modality for each in unclear if each.says.modality}),
            "refused": refused,
            "left_out": [*headers.others],
        }


def require_sequences(found: Mapping[str, Any], by_hand: Mapping[str, Any], modalities: Sequence[str]) -> None:
    """Refuse, with StudyError, to segment a study of which nothing can be used; ``found`` is what was recognised in it.

    ``by_hand`` maps modalities to series or files.
    """
    unset = {name: number for name, number in by_hand.items() if str(number) != "none"}
    if not {*modalities} & {*found["automatic"], *found["open"], *unset}:
        raise StudyError("No sequence was recognised in the study; choose a series or file for at least one.")


def is_zip(path: Path) -> bool:
    """Return whether a file begins as a zip does that is not empty."""
    with path.open("rb") as file:
        return file.read(4) == b"PK\3\4"


def _automatic(headers: Headers) -> tuple[Assignment, list[Candidate], dict[str, str]]:
    """Return what headers and names alone decide, and the candidates whose images have to decide.

    Last comes what is refused and left out for that: modality -> why; an empty one -> why nothing is decided.
    """
    looked_at, is_open = to_look_at(headers.candidates, headers.modalities)
    unclear, left = [*looked_at] if is_open else [], [*headers.modalities]
    made, refused = Assignment({}), dict[str, str]()
    while left and not made.chosen:
        try:
            made = assign_series(headers.candidates, left)
        except StudyError as error:
            if error.about and error.code == "unusable":
                out = ", ".join(map(display_name, error.about))
                refused |= dict.fromkeys(error.about, f"{error.said} {out} is left out.")
            elif not error.about:
                refused[""] = error.public
            # Of equal ones the person or the images decide.
            keep = error.about and error.code in ("equal", "unusable")
            left = [name for name in left if keep and name not in error.about]
    chosen = {name: each for name, each in made.chosen.items() if each.candidate not in unclear}
    return replace(made, chosen=chosen), unclear, refused


def _seen(candidates: Sequence[Candidate]) -> Iterator[dict[str, str]]:
    """Yield how large each candidate is, and a picture of it (PNG in base64) in the plane of most of them."""
    planes = Counter(each.across for each in candidates if isinstance(each, SeriesCandidate) and not each.problem)
    axis, until = max(planes, key=planes.__getitem__, default=2), time.monotonic() + PICTURES_SECONDS
    for number, each in enumerate(candidates):
        size = picture = ""
        if number < PICTURES and time.monotonic() < until:
            with suppress(Exception):  # what is damaged has no picture; who segments it is told why
                image, count = each.middle(axis), each.grid[0][2]
                size = f"{count} images, {lengths(voxel_sizes(image.affine))} mm"
                picture = thumbnail(image, axis)
        yield {"size": size, "picture": picture}


def _unpack_all(folder: Path) -> None:
    """Unpack every zip in a folder, once, into a folder of its name."""
    size = 0
    for path in walk(folder):
        if is_zip(path):
            packed_as = path.rename(folder.with_name("packed"))
            size = _unpack(packed_as, path, size)
            packed_as.unlink()


def _unpack(path: Path, folder: Path, size: int) -> int:
    """Unpack a zip into a folder; return the size of what was unpacked, with that of what was unpacked before.

    No link is made, and nothing is written outside the folder. Sizes that the zip states are not trusted.
    """
    try:
        with _Zip(path) as file, zipfile.ZipFile(file) as packed:
            entries = [entry for entry in packed.infolist() if not entry.is_dir() and "__MACOSX" not in entry.filename]
            if len(entries) > UPLOAD_FILES or size + sum(entry.file_size for entry in entries) > UNPACKED_BYTES:
                raise _too_large()
            for entry in entries:
                with packed.open(entry) as content, created(inside(folder, entry.filename)) as target:
                    while piece := content.read(CHUNK):
                        size += len(piece)
                        if size > UNPACKED_BYTES:
                            raise _too_large()
                        require_free_disk(folder.parent, len(piece))
                        target.write(piece)
    except DAMAGED:
        raise StudyError("The zip is damaged, encrypted or packed in an unknown way; make it again.") from None
    return size


def _too_large() -> StudyError:
    return StudyError(
        f"The zip exceeds {UNPACKED_BYTES >> 20} MiB unpacked, or {UPLOAD_FILES} files, the limits for a study; leave "
        "out what is not MRI."
    )
