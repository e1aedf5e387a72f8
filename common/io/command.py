"""``python -m monai.bundle run``: the words it was started with, their check, and the errors that MONAI wraps."""

import difflib
import inspect
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, run

from common.io.settings import optional
from common.text import shortened


def is_run() -> bool:
    """Return whether this process is ``python -m monai.bundle run``."""
    return sys.argv[0].replace(os.sep, "/").endswith("monai/bundle/__main__.py")


def given_run() -> tuple[list[str], dict[str, Any]]:
    """Return the config files and the settings that ``python -m monai.bundle run`` was given.

    Raises ValueError if MONAI does not read a path as it was typed.
    """
    words = _options()
    own, files = inspect.signature(run).parameters, words.get("config_file", [])
    settings = {key.replace("::", "#"): value for key, value in words.items() if key not in own}
    return [files] if isinstance(files, str) else list(files), settings


def recipe_names() -> list[str]:
    """Return the names of the config files after the first one that ``python -m monai.bundle run`` was given."""
    return [Path(file).name for file in given_run()[0][1:]]


def check_settings(
    files: Sequence[str], settings: Mapping[str, Any], bundle_root: str | os.PathLike | None = None
) -> None:
    """Refuse settings that config files cannot be given, before anything runs.

    A key has to be in the merged files, except that an object accepts any argument of its class, and
    ``evaluation#overrides`` any key of the evaluation's own configs. A number cannot become a text, unless that is null
    or an expression (``$...``, ``@...``, ``%...``). Raises ValueError if a file is not JSON, a key is unknown (the
    message suggests the nearest known one), or a text is given for a number.

    Args:
        files: config files; later ones override earlier ones.
        settings: key -> value. A nested key has all keys above it, e.g. ``train#optimizer#lr``.
        bundle_root: folder of the bundle; by default that of the first file.
    """
    for file in files:
        try:
            ConfigParser.load_config_file(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not a JSON config ({error}).") from error
    config = ConfigParser(ConfigParser.load_config_files(list(files)))
    folder = Path(bundle_root, "configs") if bundle_root else Path(files[0]).parent
    for key, value in settings.items():
        _require_key(key, config, files, folder)
        number = config.get(key)
        text = isinstance(value, str) and value[:1] not in ("$", "@", "%") and optional(value) is not None
        if text and isinstance(number, int | float) and not isinstance(number, bool):
            raise ValueError(f"{key} {value!r}: expected a number, such as {number}.")


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


def _require_key(key: str, config: ConfigParser, files: Sequence[str], folder: Path) -> None:
    """Refuse a key that config files do not have and may not be given; ``folder`` has the evaluation's configs."""
    outer, _, inner = key.rpartition("#")
    if outer == "evaluation#overrides":
        above = ConfigParser.load_config_files([str(folder / name) for name in config["evaluation_configs"]])
        known = inner in above
    else:
        if outer:
            _require_key(outer, config, files, folder)
        above = config.get(outer)
        known = isinstance(above, dict | list) and ("_target_" in above or key in config)
    if not known:
        names = list(above) if isinstance(above, dict) else []
        near = difflib.get_close_matches(inner, names, n=1)
        hint = f"did you mean {key.removesuffix(inner)}{near[0]}?" if near else f"expected one of {shortened(names)}."
        raise ValueError(f"{key!r} is not a key of {', '.join(map(str, files))}; {hint}")
