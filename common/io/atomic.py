"""Results of several files that are written completely or, after an error or a signal, not at all."""

import errno
import os
import shutil
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import current_thread, main_thread

from common.io.files import replacing, require_no_folder, require_writable
from common.io.lock import LOCK
from common.io.scratch import scratch_folder


@contextmanager
def written_whole(folder: str | os.PathLike, earlier: Iterable[Path] = (), last: str | None = None) -> Iterator[Path]:
    """Yield a `scratch_folder` in ``folder``; at the end its files are moved to the same places in ``folder``.

    After an error or SIGTERM ``folder`` stays as it was. Signals wait while files are moved, which takes a moment; only
    SIGKILL, or a file system that fails, can leave some files old and others new then. Files of ``folder`` itself are
    moved before those of folders in it. Raises PermissionError if ``folder`` or a folder in it cannot be written;
    IsADirectoryError if a file's place is taken by a folder.

    Args:
        folder: is created if needed.
        earlier: files of an earlier result. Those that the new one lacks are removed.
        last: name of the file that marks the others as complete: it is removed first and moved last.
    """
    earlier = [*earlier]
    with _cleaning_up_at_sigterm(), scratch_folder(require_writable(folder)) as made:
        yield made
        names = [path.relative_to(made) for path in made.rglob("*") if path.is_file() and path != made / LOCK]
        # A report's page comes before its folders: without it, the next run would take them for another program's.
        names.sort(key=lambda name: (len(name.parts), name))
        for name in names:
            require_no_folder(Path(folder, name))
        displaced = [path for path in earlier if path.exists()]
        places = {path.parent for path in [*displaced, *(Path(folder, name) for name in names)]}
        for place in sorted(places, key=lambda place: not place.is_dir()):  # a refusal comes before any is created
            require_writable(place)
        marks = [name for name in names if str(name) == last]
        with _waiting_signals():
            for name in marks:
                Path(folder, name).unlink(missing_ok=True)
            for path in earlier:
                if path.relative_to(folder) not in names:
                    path.unlink(missing_ok=True)
            for name in [*(name for name in names if name not in marks), *marks]:
                _move(made / name, Path(folder, name))


def _move(path: Path, target: Path) -> None:
    """Move a file, also to another file system, on which a folder may lie that ``target``'s is a link to."""
    try:
        path.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing(target) as temporary:
            shutil.copyfile(path, temporary)


class _Terminated(BaseException):
    """SIGTERM came."""


@contextmanager
def _cleaning_up_at_sigterm() -> Iterator[None]:
    """Let SIGTERM end the process, as it does by default, but only after the blocks within have cleaned up."""
    came = []

    def leave(number: int, _frame: object) -> None:
        came.append(number)
        raise _Terminated

    if current_thread() is not main_thread() or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    try:
        signal.signal(signal.SIGTERM, leave)
        yield
    except _Terminated:
        pass  # the process ends below
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if came:  # also where the exception was lost, as it is in a finalizer
            signal.raise_signal(signal.SIGTERM)


@contextmanager
def _waiting_signals() -> Iterator[None]:
    """Let SIGTERM and SIGINT wait until the end of the block."""
    came: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    if current_thread() is not main_thread() or None in before.values():  # None: not set by Python
        yield
        return
    for number in before:
        signal.signal(number, lambda number, _: came.append(number))
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for number in came:
            signal.raise_signal(number)
