"""The folder of a bundle."""

import json
import os
from pathlib import Path
from typing import Any

from common import __version__

MANIFEST = "manifest.json"
"""File in a packaged bundle: the version of `common` it was made with."""
COMMON = Path(__file__).resolve().parents[1]


def bundle_names() -> list[str]:
    """Return the names of the bundles in ``bundles/``, here or beside the installed ``common``, sorted."""
    named = {bundle_name(place) for home in _homes() for place in home.glob("*")}
    return sorted(name for name in named if name)


def _homes() -> list[Path]:
    return [place / "bundles" for place in (Path.cwd(), COMMON.parent, COMMON.parent / "mmb")]


def bundle_root(name: str, config_folder: Path | None = None) -> str:
    """Return the folder of a bundle.

    These are tried in turn: the folder above ``config_folder``; the working directory; ``bundles/<name>`` in it; the
    same beside the installed ``common``, or within the ``mmb`` installed beside it; the folder that
    contains ``common``; and a folder ``<name>`` beside that one. A bundle that was packaged with another version of
    ``common`` is refused.
    """
    here, config = Path.cwd(), config_folder and config_folder.absolute()
    beside = COMMON.parent
    own = [config.parent] if config and config.name == "configs" else []
    places = [*own, here, *(home / name for home in _homes()), beside, beside.parent / name]
    for place in places:
        if bundle_name(place) == name:
            require_same_common(place)
            return str(place)
    expected = (
        f"one of {', '.join(others)}, or the folder of a bundle"
        if (others := bundle_names())
        else "the folder of a bundle"
    )
    searched = ", ".join(dict.fromkeys(map(str, places)))
    raise FileNotFoundError(f"No bundle {name!r}; expected {expected}. Searched: {searched}.")


def require_same_common(bundle_root: str | os.PathLike) -> None:
    """Refuse a packaged bundle that was made with another version of `common` than the one this process has loaded."""
    manifest = Path(bundle_root, MANIFEST)
    made_with = _object(manifest).get("common", "unknown") if manifest.is_file() else __version__
    if made_with != __version__:
        raise ValueError(
            f"{bundle_root} was made with version {made_with} of `common`, but this process has loaded {__version__} "
            f"({COMMON}). A process can load only one version: run this bundle in its own process, from its own folder."
        )


def bundle_name(place: str | os.PathLike) -> str | None:
    """Return the name of the bundle in a folder, or None if the folder is not a bundle."""
    metadata = Path(place, "configs", "metadata.json")
    return _object(metadata).get("bundle") if metadata.is_file() else None


def _object(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))
