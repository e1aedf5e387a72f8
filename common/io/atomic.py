"""Results of several files: written in a folder of their own, and moved into place when all are written."""

import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from common.io.files import require_no_folder, require_writable


@contextmanager
def written_whole(folder: str | os.PathLike, earlier: Iterable[Path] = (), last: str | None = None) -> Iterator[Path]:
    """Yield a temporary folder in ``folder``; at the end its files are moved to the same places in ``folder``.

    After an error before that, ``folder`` is as it was.

    Args:
        folder: is created if needed.
        earlier: files of an earlier result. Those that the new one lacks are removed, and their folders if nothing
            else is in them.
        last: name of the file that marks the others as complete: it is removed first and moved last.
    """
    with tempfile.TemporaryDirectory(prefix=".", dir=require_writable(folder)) as temporary:
        yield (made := Path(temporary))
        names = [path.relative_to(made) for path in made.rglob("*") if path.is_file()]
        # A report's page comes before its folders: without it, the next run would take them for another program's.
        names.sort(key=lambda name: (str(name) == last, len(name.parts), name))
        for target in [Path(folder, name) for name in names]:
            require_no_folder(target)
            require_writable(target.parent)
        if last is not None:
            Path(folder, last).unlink(missing_ok=True)
        gone = [path for path in earlier if path.relative_to(folder) not in names]
        for path in gone:
            path.unlink(missing_ok=True)
        for parent in {path.parent for path in gone} - {Path(folder, name).parent for name in names}:
            with suppress(OSError):  # it is not empty, as ``folder`` never is
                parent.rmdir()
        for name in names:
            shutil.move(made / name, Path(folder, name))
