"""A bundle's folder, options and weights."""

from __future__ import annotations

import difflib
import inspect
import json
import os
import re
import sys
from pathlib import Path

import monai.bundle

from common import __version__

MANIFEST = "manifest.json"
"""Of a packaged bundle: the version of `common` it was made with, and size and SHA-256 of its files."""
COMMON = Path(__file__).resolve().parents[1]


def bundle_root(name: str) -> str:
    """Return the folder of a bundle: the working directory if it is that bundle, else ``bundles/<name>`` under it, else
    the one beside the installed ``common``, else the one beside the packaged bundle that ``common`` came with.

    Args:
        name: the bundle's folder name, e.g. ``m3ae``.

    Raises:
        FileNotFoundError: none of these places holds the bundle.
        ValueError: it was packaged with another version of ``common``.
    """
    here = Path.cwd()
    beside = COMMON.parent
    places = [here, here / "bundles" / name, beside / "bundles" / name, beside, beside.parent / name]
    for place in places:
        if _is_bundle(place, name):
            require_same_common(place)
            return str(place)
    raise FileNotFoundError(
        f"The bundle {name!r} is in none of {', '.join(map(str, places))}. "
        "Run from the repository or the bundle's folder, or pass --bundle_root."
    )


def refuse_unknown_options(bundle_root: str) -> None:
    """Refuse options of ``python -m monai.bundle run`` that no config of the bundle has; MONAI would ignore them.

    Raises:
        ValueError: an unknown ``--option``; the message names the nearest known one. Or the bundle, which an option may
            have named, was packaged with another version of ``common``.
    """
    require_same_common(bundle_root)
    if not sys.argv[0].replace(os.sep, "/").endswith("monai/bundle/__main__.py"):
        return
    known = set(inspect.signature(monai.bundle.run).parameters)
    for path in Path(bundle_root, "configs").rglob("*.json"):
        known |= {key.split("#")[0] for key in json.loads(path.read_text())}
    for word in sys.argv[1:]:
        option = re.split("[=#]|::", word.removeprefix("--"))[0]
        if word.startswith("--") and option not in known:
            near = difflib.get_close_matches(option, known, n=1)
            hint = f"did you mean --{near[0]}?" if near else "see the scalars at the top of the config."
            raise ValueError(f"Option --{option} is no key of the configs of {bundle_root}; {hint}")


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


def _is_bundle(place: Path, name: str) -> bool:
    metadata = place / "configs" / "metadata.json"
    return metadata.is_file() and json.loads(metadata.read_text()).get("bundle") == name
