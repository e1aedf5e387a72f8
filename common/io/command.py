"""``python -m monai.bundle run``: its options, and its errors."""

import inspect
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

    MONAI would print its parsing steps twice and end with the config's expression. Errors raised elsewhere keep their
    traceback.
    """
    if _is_run():
        sys.excepthook = _complain


def _complain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    refusal = error
    while isinstance(refusal, RuntimeError) and refusal.__cause__ is not None:  # MONAI wraps errors in RuntimeError
        refusal = refusal.__cause__
    frames = traceback.extract_tb(refusal.__traceback__)
    ours = isinstance(refusal, ValueError | OSError) and frames and Path(frames[-1].filename).is_relative_to(COMMON)
    if isinstance(refusal, KeyboardInterrupt):
        print("error: interrupted.", file=sys.stderr)
    elif ours or full_disk(refusal) or out_of_memory(refusal):
        print(f"error: {complaint(refusal)}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


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
