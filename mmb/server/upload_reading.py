"""What is in a study that a client has sent; a `Worker` runs this, since files may be damaged or hostile."""

import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.cohorts.cohort import Cohort
from common.cohorts.names import without_suffix
from common.io.files import walk
from common.modalities import display_name
from mmb.clinic.recognise.assign import assign_series, in_question
from mmb.clinic.recognise.claims import Headers, SeriesHeaders, read_headers
from mmb.clinic.recognise.evidence import Candidate, ImageFile
from mmb.clinic.recognise.site import SiteTable
from mmb.errors import StudyError
from mmb.server.errors import private
from mmb.server.limits import DIRECTORY_BYTES, UNPACKED_BYTES, UPLOAD_FILES
from mmb.server.upload_store import created, inside, require_free_disk

CHUNK = 1 << 20
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
    taken for; ``automatic``, modality -> the ``key`` of the one that is used unless a person decides otherwise;
    ``open``, the modalities that only the images can tell; and ``left_out``, a line for each series or file that is
    none of them. Raises ValueError if the folder is no study.
    """
    with private(sent=True):
        _unpack_all(folder)
        headers = read_headers(folder, cohort, site=site)
        automatic, unclear = _automatic(headers)
        return {
            "candidates": [
                {
                    "key": each.key,
                    "name": each.name,
                    "described": each.described,
                    "modality": each.says.modality,
                    "reason": each.problem or each.says.reason,
                    "usable": each.problem is None,
                }
                for each in headers.candidates
            ],
            "sequences": {name: display_name(name) for name in cohort.modalities},
            "automatic": {name: each.key for name, each in automatic.items()},
            "open": sorted({each.says.modality for each in unclear if each.says.modality}),
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


def as_told(
    folder: Path,
    cohort: Cohort,
    by_hand: Mapping[str, str],
    modalities: Sequence[str],
    site: SiteTable | None = None,
) -> Path:
    """Return a folder in which image files are named after the modalities that a person takes them for.

    ``by_hand`` maps a modality to a file by its `key`; the others are as recognised. Each is in the folder once, as a
    link. DICOM series have their numbers instead, so that they stay in their folder.
    """
    headers = read_headers(folder, cohort, site=site)
    if isinstance(headers, SeriesHeaders) or not by_hand:
        return folder
    files = {each.key: each.path for each in headers.candidates if isinstance(each, ImageFile)}
    told, taken = folder.with_name("told"), {*by_hand.values()}
    recognised = {name: each.key for name, each in _automatic(headers)[0].items()}
    chosen = {name: file for name, file in recognised.items() if file not in taken} | dict(by_hand)
    told.mkdir(exist_ok=True)
    for link in told.iterdir():
        link.unlink()
    for name, file in chosen.items():
        if file not in files:
            raise ValueError(f"{name}: the study has no such image file.")
        if name in modalities:
            os.link(files[file], told / f"study_{name}{file.removeprefix(without_suffix(file))}")
    return told


def _automatic(headers: Headers) -> tuple[dict[str, Candidate], list[Candidate]]:
    """Return what headers and names alone decide, and the candidates whose images have to decide."""
    unclear = in_question(headers.candidates, headers.modalities)
    try:
        chosen = assign_series(headers.candidates, headers.modalities).chosen
    except StudyError:  # the person decides, or the images
        chosen = {}
    return {name: each.candidate for name, each in chosen.items() if each.candidate not in unclear}, unclear


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
