"""The weights that come with a bundle: whether they are, and what they were trained on."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from common.io.fingerprint import file_digest

logger = logging.getLogger(__name__)


def shipped_weights(ckpt_path: str | os.PathLike, bundle_root: str | os.PathLike) -> dict[str, str] | None:
    """Return what metadata.json says of weights that come with a bundle (``sha256``, ``data_source``), None of others.

    Raises:
        ValueError: the file in the bundle's ``models/`` is not the one that this version of the bundle came with.
    """
    path = Path(ckpt_path)
    if not path.is_file():
        return None
    metadata = json.loads(Path(bundle_root, "configs", "metadata.json").read_text())
    known, found = metadata.get("weights", {}), file_digest(path)
    if path.parent.resolve() != Path(bundle_root, "models").resolve():  # a copy elsewhere, or the user's own
        return next((entry for entry in known.values() if entry["sha256"] == found), None)
    if known.get(path.name, {}).get("sha256") != found:
        raise ValueError(
            f"{path} (SHA-256 {found}) is not what {metadata['bundle']} {metadata['version']} came with, by `weights` "
            "in configs/metadata.json. Download the bundle again, or name your own weights, elsewhere, by --ckpt_path."
        )
    return known[path.name]


def tell_shipped_weights(ckpt_path: str, bundle_root: str) -> None:
    """Log what the weights that come with a bundle were trained on and are for, if these are the ones in use.

    Raises:
        ValueError: see `shipped_weights`.
    """
    known = shipped_weights(ckpt_path, bundle_root)
    if known is not None:
        metadata = json.loads(Path(bundle_root, "configs", "metadata.json").read_text())
        logger.warning(f"{ckpt_path}: trained on: {known['data_source']}. {metadata['intended_use']}")
