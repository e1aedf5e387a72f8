"""A bundle's folder, options and weights."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import monai.bundle
from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser

from common import __version__
from common.io.settings import refuse_texts_for_numbers

MANIFEST = "manifest.json"
"""Of a packaged bundle: the version of `common` it was made with, and size and SHA-256 of its files."""
COMMON = Path(__file__).resolve().parents[1]
_OF_MONAI = tuple(inspect.signature(monai.bundle.run).parameters)
"""Options of ``python -m monai.bundle run`` that are no keys of a config."""


def bundle_root(name: str) -> str:
    """Return the folder of a bundle: the working directory if it is that bundle, else ``bundles/<name>`` under it, else
    the one beside the installed ``common``, else the one beside the packaged bundle that ``common`` came with.

    Args:
        name: the bundle's folder name, e.g. ``m3ae``.

    Raises:
        FileNotFoundError: none of these places holds the bundle; the message names those that there are.
        ValueError: it was packaged with another version of ``common``.
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
        f"The bundle {name!r} is in none of {', '.join(map(str, places))}. "
        + (f"Expected one of {', '.join(others)}." if others else "Run from the repository, or pass --bundle_root.")
    )


def refuse_unknown_options(bundle_root: str) -> None:
    """Refuse options of ``python -m monai.bundle run`` that none of its configs has; MONAI would ignore them.

    Its configs are those of ``--config_file`` and, of the trainings of an ablation, those of the key ``configs``.

    Raises:
        ValueError: an unknown ``--option``; the message names the nearest known one. A text for a number. Or the
            bundle, which an option may have named, was packaged with another version of ``common``.
    """
    require_same_common(bundle_root)
    words = _words()
    if not words:
        return
    files = words.get("config_file", [*map(str, Path(bundle_root, "configs").rglob("*.json"))])
    read = [ConfigParser.load_config_file(file) for file in _several(files)]
    inner = _several(words.get("configs", [])) or [file for config in read for file in config.get("configs", [])]
    read += [ConfigParser.load_config_file(Path(bundle_root, "configs", file)) for file in inner]
    known = set(_OF_MONAI) | {_top(key.lstrip("+~")) for config in read for key in config}
    for option in words:
        if _top(option) not in known:
            near = difflib.get_close_matches(_top(option), known, n=1)
            hint = f"did you mean --{near[0]}?" if near else "see the scalars at the top of the config."
            raise ValueError(f"Option --{_top(option)} is no key of the configs of {bundle_root} that are run; {hint}")
    refuse_texts_for_numbers({key: value for config in read for key, value in config.items()}, words)


def given_options() -> dict[str, Any]:
    """Return the config keys that the options of ``python -m monai.bundle run`` set, and their values.

    Values are as MONAI reads them. There are none in a process that was started in another way.
    """
    return {key: value for key, value in _words().items() if key not in _OF_MONAI}


def errors_in_one_line() -> None:
    """Let ``python -m monai.bundle run`` end in one line when this package refuses something.

    MONAI would print what its parser was at, twice, and end in the expression of the config. What is raised elsewhere
    keeps its traceback.
    """
    if _is_run():
        sys.excepthook = _complain


def _complain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    refusal = error
    while isinstance(refusal, RuntimeError) and refusal.__cause__ is not None:  # MONAI's own
        refusal = refusal.__cause__
    frames = traceback.extract_tb(refusal.__traceback__)
    if isinstance(refusal, ValueError | OSError) and frames and Path(frames[-1].filename).is_relative_to(COMMON):
        print(f"error: {refusal}", file=sys.stderr)
    else:
        sys.__excepthook__(kind, error, trace)


def _is_run() -> bool:
    """Return if this process is ``python -m monai.bundle run``."""
    return sys.argv[0].replace(os.sep, "/").endswith("monai/bundle/__main__.py")


def _words() -> dict[str, Any]:
    """Return the options of ``python -m monai.bundle run`` and their values, MONAI's own among them."""
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
    """Return ``train`` of ``train#optimizer#lr`` or ``train::optimizer::lr``."""
    return re.split("#|::", option)[0]


def require_same_common(bundle_root: str | os.PathLike) -> None:
    """Refuse a packaged bundle that was made with another version of `common` than this process has loaded.

    Raises:
        ValueError: it was.
    """
    manifest = Path(bundle_root, MANIFEST)
    made_with = json.loads(manifest.read_text())["common"] if manifest.is_file() else __version__
    if made_with != __version__:
        raise ValueError(
            f"{bundle_root} was made with version {made_with} of `common`, but this process has loaded {__version__} "
            f"({COMMON}). One process loads one version: run this bundle in a process of its own, from its own folder."
        )


def _bundle_name(place: Path) -> str | None:
    """Return the name of the bundle that a folder is; None of another folder."""
    metadata = place / "configs" / "metadata.json"
    return json.loads(metadata.read_text()).get("bundle") if metadata.is_file() else None
