"""The folder and the command-line options of a bundle."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import monai.bundle
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from common import __version__
from common.io.settings import refuse_texts_for_numbers

MANIFEST = "manifest.json"
"""File in a packaged bundle: the version of `common` it was made with, and the size and SHA-256 of its files."""
COMMON = Path(__file__).resolve().parents[1]
_OF_MONAI = tuple(inspect.signature(monai.bundle.run).parameters)
"""Options of ``python -m monai.bundle run`` itself, which are not config keys."""


def bundle_root(name: str) -> str:
    """Return the folder of a bundle.

    The first match is returned of: the working directory; ``bundles/<name>`` in the working directory; the same beside
    the installed ``common``; the folder that contains ``common``; and a folder ``<name>`` beside that one.

    Args:
        name: the bundle's folder name, e.g. ``m3ae``.

    Raises:
        FileNotFoundError: if the bundle is in none of these places; the message lists the bundles that were found.
        ValueError: if the bundle was packaged with another version of ``common``.
    """
    here = Path.cwd()
    beside = COMMON.parent
    places = [here, here / "bundles" / name, beside / "bundles" / name, beside, beside.parent / name]
    for place in places:
        if _bundle_name(place) == name:
            require_same_common(place)
            return str(place)
    beside_it = [place for folder in (here, beside) for place in (folder / "bundles").glob("*")]
    others = sorted({str(found) for found in map(_bundle_name, beside_it) if found})
    raise FileNotFoundError(
        f"The bundle {name!r} was not found in {', '.join(map(str, places))}. "
        + (f"Expected one of {', '.join(others)}." if others else "Run from the repository, or pass --bundle_root.")
    )


def refuse_unknown_options(bundle_root: str) -> None:
    """Refuse options of ``python -m monai.bundle run`` that no config in use has as a key; MONAI would ignore them.

    The configs in use are those of ``--config_file`` and, for a config that runs several trainings (key ``configs``),
    those of the trainings.

    Raises:
        ValueError: if an option is unknown (the message suggests the nearest known one), if a numeric key is given
            text, or if the bundle was packaged with another version of ``common``.
    """
    require_same_common(bundle_root)
    words = _words()
    if not words:
        return
    files = words.get("config_file", [*map(str, Path(bundle_root, "configs").rglob("*.json"))])
    read = [ConfigParser.load_config_file(file) for file in _several(files)]
    inner = _several(words.get("configs", [])) or [file for config in read for file in config.get("configs", [])]
    inner = [str(Path(bundle_root, "configs", file)) for file in inner]
    read += [ConfigParser.load_config_file(file) for file in inner]
    known = set(_OF_MONAI) | {_top(key.lstrip("+~")) for config in read for key in config}
    for option in words:
        if _top(option) not in known:
            near = difflib.get_close_matches(_top(option), known, n=1)
            hint = f"did you mean --{near[0]}?" if near else "see the scalars at the top of the config."
            raise ValueError(f"Option --{_top(option)} is not a key of the configs that run in {bundle_root}; {hint}")
    for option in [option for option in words if _top(option) != option and "config_file" in words]:
        key = option.replace("::", "#")
        if not any(is_key(bundle_root, group, key) for group in (_several(files), inner) if group):
            raise ValueError(f"Option --{option} is not a key of the configs that run in {bundle_root}.")
    refuse_texts_for_numbers({key: value for config in read for key, value in config.items()}, words)


def is_key(bundle_root: str | os.PathLike, files: Sequence[str], key: str) -> bool:
    """Return whether config files have a key, such as ``train#optimizer#lr``, or may be given it.

    An object accepts any argument of its class, and ``evaluation#overrides`` any key of the evaluation's own configs.

    Args:
        bundle_root: folder of the bundle.
        files: config files; later ones override earlier ones.
        key: the key, with all keys above it.
    """
    config = ConfigParser(ConfigParser.load_config_files(list(files)))
    outer, _, inner = key.rpartition("#")
    if outer == "evaluation#overrides":
        evaluation = [str(Path(bundle_root, "configs", name)) for name in config["evaluation_configs"]]
        return inner in ConfigParser.load_config_files(evaluation)
    above = config.get(outer)
    return isinstance(above, dict | list) and ("_target_" in above or key in config)


def given_options() -> dict[str, Any]:
    """Return the config keys that the options of ``python -m monai.bundle run`` set, with their values.

    Values are parsed as MONAI parses them. The result is empty in a process that was started in another way.
    """
    return {key: value for key, value in _words().items() if key not in _OF_MONAI}


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
    if isinstance(refusal, ValueError | OSError) and frames and Path(frames[-1].filename).is_relative_to(COMMON):
        print(f"error: {refusal}", file=sys.stderr)
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
            found[option] = DefaultParseValue(value if equals else "True" if following.startswith("--") else following)
    return found


def _several(files: str | Sequence[str]) -> list[str]:
    return [files] if isinstance(files, str) else list(files)


def _top(option: str) -> str:
    """Return the top-level key of an option, e.g. ``train`` for ``train#optimizer#lr`` or ``train::optimizer::lr``."""
    return re.split("#|::", option)[0]


def require_same_common(bundle_root: str | os.PathLike) -> None:
    """Refuse a packaged bundle that was made with another version of `common` than the one this process has loaded.

    Raises:
        ValueError: if the versions differ.
    """
    manifest = Path(bundle_root, MANIFEST)
    made_with = _object(manifest).get("common", "unknown") if manifest.is_file() else __version__
    if made_with != __version__:
        raise ValueError(
            f"{bundle_root} was made with version {made_with} of `common`, but this process has loaded {__version__} "
            f"({COMMON}). A process can load only one version: run this bundle in its own process, from its own folder."
        )


def _bundle_name(place: Path) -> str | None:
    """Return the name of the bundle in a folder, or None if the folder is not a bundle."""
    metadata = place / "configs" / "metadata.json"
    return _object(metadata).get("bundle") if metadata.is_file() else None


def _object(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file}: not JSON ({error}); restore the file from the repository or the package.") from error
    if not isinstance(found, dict):
        raise ValueError(f"{file}: holds {type(found).__name__}; expected a JSON object, as in the package.")
    return found
