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


def for_each_file(find: Callable[[str], Any], paths: Iterable[str | os.PathLike], name: str) -> dict[str, Any]:
    """Return ``find(path)`` for each file; see `for_each`."""
    paths = list(dict.fromkeys(map(str, paths)))
    return dict(zip(paths, for_each(find, paths, lambda path: [path], name, "file"), strict=True))


def for_each(
    find: Callable[[Thing], Any],
    things: Sequence[Thing],
    files: Callable[[Thing], Iterable[str | os.PathLike]],
    name: str,
    unit: str,
) -> list[Any]:
    """Return ``find(thing)`` for each thing, from all processor cores, with progress; known ones are not read again.

    A thing is known by the paths, sizes, modification times and permissions of its files. If results cannot be kept,
    e.g. on a full disk, a line is logged, and all files are read.

    Args:
        find: what to find out; its result has to be JSON, without a tuple.
        things: files, or cases.
        files: returns the files of a thing.
        name: of what is found out; change it when ``find`` changes. It names the file in which results are kept.
        unit: what a thing is called in the progress bar.
    """
    keys = [" ".join(map(_key, files(thing))) for thing in things]
    known = _read(kept_file(name), keys)
    new = [number for number, key in enumerate(keys) if key not in known]
    found: dict[str, Any] = {}
    try:
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            results = pool.map(find, [things[number] for number in new])
            for number, result in zip(new, tqdm(results, name, len(new), unit=unit, disable=not new), strict=True):
                found[keys[number]] = result
    finally:
        _write(kept_file(name), found)
    known |= found
    return [known[key] for key in keys]


def _key(path: str | os.PathLike) -> str:
    if not os.path.exists(path):  # a broken link, which whoever opens it reports
        return f"{path} absent"
    status = os.stat(path)
    return f"{os.path.realpath(path)} {status.st_size} {status.st_mtime_ns} {status.st_mode:o}"


def _read(file: Path, keys: Iterable[str]) -> dict[str, Any]:
    if not file.is_file():
        return {}
    try:
        with closing(sqlite3.connect(file, timeout=60)) as kept:
            query = "SELECT result FROM results WHERE file = ?"
            rows = {key: kept.execute(query, (key,)).fetchone() for key in set(keys)}
        return {key: json.loads(row[0]) for key, row in rows.items() if row}
    except (sqlite3.Error, OSError, ValueError) as error:
        logger.warning(f"{file}: cannot be read ({error}); the files are read again. You can delete it.")
        return {}


def _write(file: Path, found: dict[str, Any]) -> None:
    if not found:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with closing(sqlite3.connect(file, timeout=60)) as kept, kept:
            kept.execute("CREATE TABLE IF NOT EXISTS results (file TEXT PRIMARY KEY, result TEXT)")
            rows = [(key, json.dumps(result)) for key, result in found.items()]
            kept.executemany("INSERT OR REPLACE INTO results VALUES (?, ?)", rows)
        file.chmod(0o600)
    except (sqlite3.Error, OSError) as error:
        logger.warning(f"{file}: cannot be written ({error}); the files will be read again the next time.")
