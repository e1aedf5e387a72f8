"""The weights that come with a bundle: their checksums, and the data that they were trained on."""

import json
import logging
import os
from pathlib import Path

from common.io.files import file_digest

logger = logging.getLogger(__name__)


def shipped_weights(ckpt_path: str | os.PathLike, bundle_root: str | os.PathLike) -> dict[str, str] | None:
    """Return what metadata.json says of the weights (``sha256``, ``data_source``); None if they are not the bundle's.

    Raises ValueError if the file is in the bundle's ``models/`` but is not the one that this version came with.
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
            f"{path} (SHA-256 {found}) is not the file that {metadata['bundle']} {metadata['version']} came with "
            "(`weights` in configs/metadata.json). Download the bundle again, or keep your own weights elsewhere and "
            "name them by --ckpt_path."
        )
    return known[path.name]


def tell_shipped_weights(ckpt_path: str, bundle_root: str) -> None:
    """Log the training data and the intended use of the weights, if they are those that come with the bundle."""
    known = shipped_weights(ckpt_path, bundle_root)
    if known is not None:
        metadata = json.loads(Path(bundle_root, "configs", "metadata.json").read_text())
        logger.warning(f"{ckpt_path}: trained on: {known['data_source']}. {metadata['intended_use']}")
