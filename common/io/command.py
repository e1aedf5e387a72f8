"""``python -m monai.bundle run``: its options, and its errors."""

import atexit
import gc
import inspect
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dis import opname
from functools import partial
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

    MONAI would print its parsing steps twice and end with the config's expression. The same holds for errors of Python
    about a file that this package opened. Errors raised elsewhere, and those of an operation in this package, which no
    ``raise`` statement meant for a user, keep their traceback.
    """
    if _is_run():
        sys.excepthook = _complain
        logging.setLogRecordFactory(partial(_log_record, logging.getLogRecordFactory()))
        atexit.register(gc.freeze)  # else the end looks for garbage among a million objects of MONAI, for 1.5 s


def _complain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if isinstance(cause_of(error), KeyboardInterrupt):
        print("error: interrupted.", file=sys.stderr)
    elif (refusal := _refusal(error)) is not None:
        print(f"error: {complaint(refusal)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _log_record(make: Callable[..., logging.LogRecord], *args: Any, **kwargs: Any) -> logging.LogRecord:
    """Return a record without the traceback, which MONAI logs of every error, if a line can explain the error."""
    record = make(*args, **kwargs)
    error = record.exc_info[1] if record.exc_info else None
    if isinstance(error, KeyboardInterrupt):
        record.exc_info = None
    elif error is not None and (refusal := _refusal(error)) is not None:
        said, line = record.getMessage(), complaint(refusal)
        record.msg, record.args, record.exc_info = said if line in said else f"{said} ({line})", (), None
    return record


def cause_of(error: BaseException) -> BaseException:
    """Return the error that MONAI wrapped in a RuntimeError, or the error itself."""
    while isinstance(error, RuntimeError) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _refusal(error: BaseException) -> BaseException | None:
    """Return the error that a line can explain: ``error`` or its cause; None if it needs its traceback."""
    error = cause_of(error)
    places = [Path(frame.filename) for frame in traceback.extract_tb(error.__traceback__)]
    if isinstance(error, OSError) and error.filename is not None:  # raised where pathlib, say, opened a file for us
        while places and _is_standard(places[-1]) and places[-1].name != "subprocess.py":
            places.pop()
    meant = isinstance(error, OSError) or (isinstance(error, ValueError) and _is_raised(error.__traceback__))
    ours = meant and places and places[-1].is_relative_to(COMMON)
    return error if ours or full_disk(error) or out_of_memory(error) else None


def _is_raised(trace: TracebackType | None) -> bool:
    """Return whether an error comes from a ``raise`` statement, not from an operation such as ``int("x")``."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and opname[trace.tb_frame.f_code.co_code[trace.tb_lasti]] == "RAISE_VARARGS"


def _is_standard(place: Path) -> bool:
    """Return whether a file belongs to Python's standard library."""
    inside = place.is_relative_to(Path(os.__file__).parent) and "site-packages" not in place.parts
    return inside or str(place).startswith("<frozen ")


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
