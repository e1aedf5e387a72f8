"""``python -m monai.bundle run``: the words it was started with, and the errors that MONAI wraps."""

import inspect
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue


def is_run() -> bool:
    """Return whether this process is ``python -m monai.bundle run``."""
    return sys.argv[0].replace(os.sep, "/").endswith("monai/bundle/__main__.py")


def given_run() -> tuple[list[str], dict[str, Any]]:
    """Return the config files and the settings that ``python -m monai.bundle run`` was given.

    Raises ValueError if MONAI does not read a path as it was typed.
    """
    from monai.bundle import run

    words = _options()
    own, files = inspect.signature(run).parameters, words.get("config_file", [])
    settings = {key.replace("::", "#"): value for key, value in words.items() if key not in own}
    return [files] if isinstance(files, str) else list(files), settings


def recipe_names() -> list[str]:
    """Return the names of the config files after the first one that ``python -m monai.bundle run`` was given."""
    files = _options().get("config_file", [])
    return [] if isinstance(files, str) else [Path(str(file)).name for file in files[1:]]


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise an error itself instead of the RuntimeErrors that MONAI wraps around it."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException = error
        while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is error:
            raise
        raise cause from None


def _options() -> dict[str, Any]:
    """Return the options of ``python -m monai.bundle run`` with their values, including MONAI's own options."""
    if not is_run():
        return {}
    options = {}
    for word, following in zip(sys.argv[1:], [*sys.argv[2:], "--"], strict=True):
        if word.startswith("--") and word != "--":
            option, equals, value = word.removeprefix("--").partition("=")
            text = value if equals else "True" if following.startswith("--") else following
            read = options[option] = DefaultParseValue(text)
            if option.endswith(("_dir", "_path")) and read is not None and str(read) != text.strip("'\""):
                raise ValueError(f"--{option} {text}: MONAI reads this as {read!r}; write it as a path, e.g. ./{text}.")
    return options
