"""Studies that clients send: each has a folder of its own, which vanishes; names of files are never logged."""

import errno
import os
import secrets
import shutil
import tempfile
import time
import unicodedata
from collections.abc import AsyncIterable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from typing import Any

from fastapi import HTTPException

from common.text import printable
from mmb.errors import StudyError
from mmb.server.limits import (
    FILES_AT_ONCE,
    HELD_BYTES,
    KEPT_SECONDS,
    SPARE_BYTES,
    STUDIES,
    UPLOAD_BYTES,
    UPLOAD_FILES,
)  # fmt: skip

LONGEST_NAME, DEEPEST = 200, 16  # maximum length in bytes of a file's name, and number of folders it lies in
WRONG_NAME = {errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}  # the client's fault, not the disk's
GONE = "This study is not on the server any more; send it again."
BUSY = ("reading", "waiting", "running")  # states in which it is neither changed nor read
UNPRINTED = ("Cc", "Cs", "Zl", "Zp")  # categories of characters that no name has: control characters, line separators


class Upload:
    """A study that a client sends, and its results.

    Attributes:
        study: folder of its files.
        results: folder of the results, which exists as soon as there are any.
        state: ``received``, ``reading``, ``received``, then ``waiting``, ``running``, and ``done`` or ``failed``.
        step: what is being done, in words.
        told: the answer and the warnings of the results, or the reason why there are none.
        recognised: what is in it, and ``asked``, how it is segmented, as the page shows them.
        seconds: how long its step takes, as far as earlier ones tell.
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
        self.recognised: dict[str, Any] | None = None
        self.asked: dict[str, Any] = {}
        self.seconds: float | None = None
        self.in_one = self.removed = self.cancelled = False
        self.users = 0
        self.touch()
        self.require_room = require_room
        self.size = self._received = self._files = 0

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Keep the folder as long as it is used, even if the study is removed or becomes too old meanwhile."""
        self.users += 1
        try:
            yield
        finally:
            self.users -= 1
            self.touch()
            if self.removed and not self.users:
                self.close()

    async def require_wanted(self) -> None:
        """Raise FileNotFoundError if it was removed, HTTPException 409 if it is not to be segmented any more."""
        if self.removed:
            raise FileNotFoundError(GONE)
        if self.cancelled:
            raise HTTPException(409, "Cancelled.")

    async def receive(self, pieces: AsyncIterable[bytes], name: str, announced: int = 0) -> None:
        """Write a file of the study as it arrives; HTTPException 413 if the study exceeds its limits.

        There has to be room for its ``announced`` size before anything is read. HTTPException 503 if `FILES_AT_ONCE`
        others arrive.
        """
        if self.users >= FILES_AT_ONCE:
            raise HTTPException(
                503, f"More than {FILES_AT_ONCE} files of the study arrive at once, the limit; send them in turn."
            )
        with self.in_use():
            await self._receive(pieces, name, announced)

    async def _receive(self, pieces: AsyncIterable[bytes], name: str, announced: int) -> None:
        self.require_room(announced)
        path = inside(self.study, name)
        self._files += 1
        if self._files > UPLOAD_FILES:
            raise HTTPException(413, f"The study has more than {UPLOAD_FILES} files, the limit for a study.")
        with created(path) as file:
            try:
                async for piece in pieces:
                    await self.require_wanted()
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

    def new(self, in_one: bool = False) -> tuple[str, Upload]:
        """Return a new one, sent ``in_one`` request or not, with its name; HTTPException 503 if there are too many."""
        self.expire()
        alike = [each for each in self._held.values() if each.in_one or not in_one]
        if len(alike) >= (limit := STUDIES // 2 if in_one else STUDIES):
            raise HTTPException(503, f"The server holds {limit} studies, its limit; try again when one is removed.")
        name = secrets.token_urlsafe(16)
        self._held[name] = Upload(self._require_room)
        self._held[name].in_one = in_one
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

    def remove(self, name: str) -> None:
        """Remove a study and its results, if they are still there; what is done with it ends."""
        if upload := self._held.pop(name, None):
            upload.removed = True
            if not upload.users:  # else the last of them closes it
                upload.close()

    def expire(self) -> None:
        """Remove those that were last used too long ago."""
        for name, upload in [*self._held.items()]:
            if not upload.users and time.monotonic() - upload.used > KEPT_SECONDS:
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
    """Return the path of a client's file in a folder; StudyError if its name leads out of it or is too long."""
    parts = PurePosixPath(name.replace("\\", "/")).parts
    wrong = len(parts) > DEEPEST or any(len(part.encode(errors="replace")) > LONGEST_NAME for part in parts)
    wrong |= any(unicodedata.category(each) in UNPRINTED for each in name)
    if not parts or parts[0] == "/" or ".." in parts or wrong:
        what = f"leads out of the study's folder, is longer than {LONGEST_NAME} bytes, or has control characters"
        raise StudyError(f"{_quoted(name)}: the file's name {what}; rename it.")
    return folder.joinpath(*parts)


def created(path: Path) -> Any:
    """Open a new file for writing, in folders that are made; StudyError if the client has sent another of this name."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("xb")
    except OSError as error:
        if error.errno in WRONG_NAME:
            raise StudyError(f"{_quoted(path.name)}: two files, or a folder, have the same name; rename one.") from None
        raise


def _quoted(name: str) -> str:
    """Return a name for the client who has sent it, printable and of bounded length."""
    return f'"{printable(name[:LONGEST_NAME])}"'
