"""Studies that clients send: each has a folder of its own, which vanishes; names of files are never logged."""

import errno
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterable, Callable
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import HTTPException

from mmb.clinic.server.limits import HELD_BYTES, KEPT_SECONDS, SPARE_BYTES, STUDIES, UPLOAD_BYTES, UPLOAD_FILES

LONGEST_NAME, DEEPEST = 200, 16  # maximum length in bytes of a file's name, and number of folders it lies in
WRONG_NAME = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}  # the client's fault, not the disk's
GONE = "This study is not on the server any more; send it again."
BUSY = ("reading", "waiting", "running")  # states in which its folder is used, or will be


class Upload:
    """A study that a client sends, and its results.

    Attributes:
        study: folder of its files.
        results: folder of the results, which exists as soon as there are any.
        state: ``received``, ``reading``, ``received``, then ``waiting``, ``running``, and ``done`` or ``failed``.
        step: what is being done, in words.
        told: the answer and the warnings of the results, or the reason why there are none.
        used: time of the last use, on Python's monotonic clock.
        size: size of its files in bytes.

    Args:
        require_room: raises an error if there is no room for a number of bytes more; see `Uploads`.
    """

    def __init__(self, require_room: Callable[[int], None] = lambda size: None) -> None:
        self._folder = TemporaryDirectory(prefix="study-", ignore_cleanup_errors=True)
        self.folder = Path(self._folder.name).resolve()
        self.study, self.results = self.folder / "study", self.folder / "results"
        self.study.mkdir()
        self.state, self.step = "received", ""
        self.told: Any = None
        self.touch()
        self.require_room = require_room
        self.size = self._received = self._files = 0

    async def receive(self, pieces: AsyncIterable[bytes], name: str, announced: int = 0) -> None:
        """Write a file of the study as it arrives; HTTPException 413 if the study exceeds its limits.

        There has to be room for its ``announced`` size before anything is read.
        """
        self.touch()
        self.require_room(announced)
        path = inside(self.study, name)
        self._files += 1
        if self._files > UPLOAD_FILES:
            raise HTTPException(413, f"The study has more than {UPLOAD_FILES} files, the limit for a study.")
        with created(path) as file:
            try:
                async for piece in pieces:
                    self._received += len(piece)
                    if self._received > UPLOAD_BYTES:
                        raise HTTPException(413, f"The study exceeds {UPLOAD_BYTES >> 20} MiB, the limit for a study.")
                    self.require_room(len(piece))
                    file.write(piece)
                    self.size += len(piece)
            except BaseException:  # a part of a file must not be taken for the whole
                path.unlink(missing_ok=True)
                raise

    def measure(self) -> None:
        """Note the size of its files, of which a zip may have become more."""
        self.size = sum(path.stat().st_size for path in self.study.rglob("*") if path.is_file())

    def touch(self) -> None:
        """Note that it is in use."""
        self.used = time.monotonic()

    def files(self) -> list[str]:
        """Return the names of the result's files."""
        return sorted(path.name for path in self.results.iterdir()) if self.results.is_dir() else []

    def close(self) -> None:
        """Remove the folder."""
        self._folder.cleanup()


class Uploads:
    """The studies that clients have sent, by names that nobody can guess."""

    def __init__(self) -> None:
        self._held: dict[str, Upload] = {}

    def new(self) -> tuple[str, Upload]:
        """Return a new one with its name; HTTPException 503 if there are too many."""
        self.expire()
        if len(self._held) >= STUDIES:
            raise HTTPException(503, f"{STUDIES} studies are on the server, its limit; try again when one is removed.")
        name = secrets.token_urlsafe(16)
        self._held[name] = Upload(self._require_room)
        return name, self._held[name]

    def _require_room(self, size: int) -> None:
        if sum(upload.size for upload in self._held.values()) + size > HELD_BYTES:
            raise HTTPException(
                503,
                f"The studies on the server exceed {HELD_BYTES >> 30} GiB, its limit; try again when one is removed.",
            )
        require_free_disk(tempfile.gettempdir(), size)

    def __getitem__(self, name: str) -> Upload:
        self.expire()
        if name not in self._held:
            raise FileNotFoundError(GONE)
        return self._held[name]

    def __contains__(self, upload: Upload) -> bool:
        return upload in self._held.values()

    def remove(self, name: str) -> None:
        """Remove a study and its results, if they are still there."""
        upload = self._held.pop(name, None)
        if upload and upload.state not in BUSY:  # else `release` closes it
            upload.close()

    def release(self, upload: Upload) -> None:
        """Note that a study's folder is not used any more, and close it if it was removed meanwhile."""
        upload.touch()
        if upload not in self:
            upload.close()

    def expire(self) -> None:
        """Remove those that were last used too long ago."""
        for name, upload in [*self._held.items()]:
            if upload.state not in BUSY and time.monotonic() - upload.used > KEPT_SECONDS:
                self.remove(name)

    def close(self) -> None:
        """Remove all, when nothing is segmented any more."""
        for upload in self._held.values():
            upload.close()


def require_free_disk(folder: str | Path, size: int) -> None:
    """Raise OSError (ENOSPC) if a file of a size in bytes would leave less than `SPARE_BYTES` on a folder's disk."""
    if shutil.disk_usage(folder).free < size + SPARE_BYTES:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def inside(folder: Path, name: str) -> Path:
    """Return the path of a client's file in a folder; ValueError if its name leads out of it or is too long."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    too_long = len(parts) > DEEPEST or any(len(part.encode(errors="replace")) > LONGEST_NAME for part in parts)
    if not parts or parts[0] == "/" or ".." in parts or too_long or not name.isprintable():
        raise ValueError("A file's name leads out of the study's folder, is too long or not printable; rename it.")
    return folder.joinpath(*parts)


def created(path: Path) -> Any:
    """Open a new file for writing, in folders that are made; ValueError if the client has sent another of this name."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except OSError as error:
        if error.errno in WRONG_NAME:
            raise ValueError("Two files have the same name, or one has that of a folder; rename one of them.") from None
        raise
