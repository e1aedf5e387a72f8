"""What was once found out about a file, kept so that it need not be read again."""

import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

logger = logging.getLogger(__name__)

Thing = TypeVar("Thing")


def kept_file(name: str) -> Path:
    """Return the user's file of this name for what is kept: in ``$XDG_CACHE_HOME/missing-modality``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "missing-modality", f"{name}.sqlite")


def for_each(
    find: Callable[[Thing], Any],
    things: Sequence[Thing],
    files: Callable[[Thing], Iterable[str | os.PathLike]],
    name: str,
) -> list[Any]:
    """Return ``find(thing)`` for each thing, from all processor cores, with progress; known ones are not read again.

    A thing is known by the paths, sizes, modification times and permissions of its files. If results cannot be kept,
    e.g. in a folder that cannot be written, a line is logged, and all files are read.

    Args:
        find: what to find out; its result has to be JSON, without a tuple.
        things: what it is found out about, such as cases.
        files: returns the files of a thing.
        name: of what is found out; change it when ``find`` changes. It names the file in which results are kept.
    """
    keys = [" ".join(map(_key, files(thing))) for thing in things]
    with closing(_opened(kept_file(name))) as kept:
        known = {}
        for key in set(keys):
            if row := kept.execute("SELECT result FROM results WHERE file = ?", (key,)).fetchone():
                known[key] = json.loads(row[0])
        new = {key: thing for key, thing in zip(keys, things, strict=True) if key not in known}
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = tqdm(pool.map(find, new.values()), name, len(new), unit="case", disable=not new)
            for key, result in zip(new, results, strict=True):
                kept.execute("INSERT OR REPLACE INTO results VALUES (?, ?)", (key, json.dumps(result)))
                known[key] = result
    return [known[key] for key in keys]


def _opened(file: Path) -> sqlite3.Connection:
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        file.touch(mode=0o600)  # paths may name patients
        return _table(file)
    except (sqlite3.Error, OSError) as error:
        logger.warning(f"{file}: cannot be used ({error}), so nothing is kept for the next time.")
        return _table(":memory:")


def _table(file: Path | str) -> sqlite3.Connection:
    table = sqlite3.connect(file, timeout=60, isolation_level=None)  # every result is written at once
    table.execute("CREATE TABLE IF NOT EXISTS results (file TEXT PRIMARY KEY, result TEXT)")
    return table


def _key(path: str | os.PathLike) -> str:
    if not os.path.exists(path):  # a broken link, which whoever opens it reports
        return f"{path} absent"
    status = os.stat(path)
    return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns} {status.st_mode:o}"
