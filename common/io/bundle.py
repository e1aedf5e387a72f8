"""What every bundle's configs need: its folder, and flags as command lines give them."""

from __future__ import annotations

import json
from pathlib import Path


def bundle_root(name: str) -> str:
    """Return the folder of a bundle: the working directory if it is that bundle, else ``bundles/<name>`` under it, else
    the one beside the installed ``common``.

    Args:
        name: the bundle's folder name, e.g. ``m3ae``.

    Raises:
        FileNotFoundError: none of these places holds the bundle.
    """
    here = Path.cwd()
    beside = Path(__file__).resolve().parents[2]
    places = [here, here / "bundles" / name, beside / "bundles" / name, beside]
    for place in places:
        if _is_bundle(place, name):
            return str(place)
    raise FileNotFoundError(
        f"The bundle {name!r} is in none of {', '.join(map(str, places))}. "
        "Run from the repository or the bundle's folder, or pass --bundle_root."
    )


def flag(key: str, value: bool | str) -> bool:
    """Return a flag that a config (``true``) or a command line (text such as ``false`` or ``True``) gives.

    Raises:
        ValueError: it is neither true nor false.
    """
    if str(value).lower() not in ("true", "false"):
        raise ValueError(f"{key} {value!r}: expected true or false.")
    return str(value).lower() == "true"


def _is_bundle(place: Path, name: str) -> bool:
    metadata = place / "configs" / "metadata.json"
    return metadata.is_file() and json.loads(metadata.read_text()).get("bundle") == name
