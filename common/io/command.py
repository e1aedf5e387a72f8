"""``python -m monai.bundle run``: its options, and its errors."""

import inspect
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

from fire.parser import DefaultParseValue

from common.io.bundle import COMMON, require_same_common
from common.io.disk import complaint, full_disk, out_of_memory
from common.io.training import check_settings


def refuse_unknown_options(bundle_root: str) -> None:
    """Refuse options of ``python -m monai.bundle run`` that no given config has as a key; MONAI would ignore them.

    Also refuse what `check_settings` refuses, and a bundle that was packaged with another version of ``common``.
    """
    require_same_common(bundle_root)
    if not (words := _words()):
        return
    from monai.bundle import run

    settings = {
        key.replace("::", "#"): value for key, value in words.items() if key not in inspect.signature(run).parameters
    }
    files = words.get("config_file", [])
    check_settings([files] if isinstance(files, str) else files, settings, bundle_root)


def recipe_names() -> list[str]:
    """Return the names of the config files after the first one that ``python -m monai.bundle run`` was given."""
    files = _words().get("config_file", [])
    return [] if isinstance(files, str) else [Path(str(file)).name for file in files[1:]]


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise errors about files and settings themselves instead of the errors that MONAI wraps around them."""
    try:
        yield
    except Exception as error:
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, ValueError | OSError):
            cause = cause.__cause__
        if cause is None or cause is error:
            raise
        raise cause from None


def errors_in_one_line() -> None:
    """Make ``python -m monai.bundle run`` end with a one-line error when this package refuses an input.

    MONAI would print its parsing steps twice and end with the config's expression. Errors that name a file are treated
    alike if this package opened it. Errors raised elsewhere keep their traceback.
    """
    if _is_run():
        sys.excepthook = _complain
        logging.setLogRecordFactory(_log_record)


def _complain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(error, KeyboardInterrupt):
        print("error: interrupted.", file=sys.stderr)
    elif (refusal := _refusal(error)) is not None:
        print(f"error: {complaint(refusal)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _log_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """Return a record without the traceback of an error that a line can explain; MONAI's StatsHandler logs them all."""
    record = logging.LogRecord(*args, **kwargs)
    if record.exc_info and record.exc_info[1] and _refusal(record.exc_info[1]) is not None:
        record.exc_info = None
    return record


def _refusal(error: BaseException) -> BaseException | None:
    """Return the error that a line can explain: ``error`` or its cause; None if it needs its traceback."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:  # MONAI wraps errors in RuntimeError
        error = error.__cause__
    frames = [Path(frame.filename).is_relative_to(COMMON) for frame in traceback.extract_tb(error.__traceback__)]
    ours = isinstance(error, ValueError | OSError) and frames and frames[-1]
    names_file = isinstance(error, OSError) and error.filename is not None and any(frames)  # e.g. by pathlib
    return error if ours or names_file or full_disk(error) or out_of_memory(error) else None


def _is_run() -> bool:
    """Return whether this process is ``python -m monai.bundle run``."""
    return sys.argv[0].replace(os.sep, "/").endswith("monai/bundle/__main__.py")


def _words() -> dict[str, Any]:
    """Return the options of ``python -m monai.bundle run`` with their values, including MONAI's own options."""
    if not _is_run():
        return {}
    found = {}
    for word, following in zip(sys.argv[1:], [*sys.argv[2:], "--"], strict=True):
        if word.startswith("--") and word != "--":
            option, equals, value = word.removeprefix("--").partition("=")
            text = value if equals else "True" if following.startswith("--") else following
            read = found[option] = DefaultParseValue(text)
            if option.endswith(("_dir", "_path")) and read is not None and str(read) != text.strip("'\""):
                raise ValueError(f"--{option} {text}: MONAI reads this as {read!r}; write it as a path, e.g. ./{text}.")
    return found
