"""Whose weights they are, and what they were trained on: those that come with a bundle, and others."""

import json
import logging
import os
from pathlib import Path
from typing import Any

from common.io.facts import read_facts
from common.io.files import file_digest

logger = logging.getLogger(__name__)


def shipped_weights(ckpt_path: str | os.PathLike, bundle_root: str | os.PathLike) -> dict[str, Any] | None:
    """Return what metadata.json says of the weights; None if they are not the bundle's.

    Its keys are ``sha256``, ``data_source`` and, if the file itself does not say so, ``patients`` (`trained_patients`).
    """
    path = Path(ckpt_path)
    if not path.is_file():
        return None
    metadata = metadata_of(bundle_root)
    known, digest = metadata.get("weights", {}), file_digest(path)
    if path.parent.resolve() != Path(bundle_root, "models").resolve():  # a copy elsewhere, or the user's own
        return next((entry for entry in known.values() if entry["sha256"] == digest), None)
    if known.get(path.name, {}).get("sha256") != digest:
        raise ValueError(
            f"{path} (SHA-256 {digest}) is not the file that {metadata['bundle']} {metadata['version']} came with "
            "(`weights` in configs/metadata.json). Download the bundle again, or keep your own weights elsewhere and "
            "name them by --ckpt_path."
        )
    return known[path.name]


def metadata_of(bundle_root: str | os.PathLike) -> dict[str, Any]:
    """Return a bundle's metadata.json."""
    return json.loads(Path(bundle_root, "configs", "metadata.json").read_text())


def weights_name(path: str | os.PathLike) -> str:
    """Return the name of a weights file and its SHA-256, which say whose weights made a result."""
    return f"{Path(path).name}, SHA-256 {file_digest(path)}"


def trained_on(path: str | os.PathLike, bundle_root: str | os.PathLike) -> str | None:
    """Return a short description of the data that weights were trained on; None if neither they nor the bundle say."""
    if known := shipped_weights(path, bundle_root):
        return known["data_source"]
    facts = read_facts(path)
    return (facts.trained_on or None) if facts else None


def trained_patients(path: str | os.PathLike, bundle_root: str | os.PathLike) -> list[str]:
    """Return the `patient_digest` of each patient that weights were trained on; empty if nothing says so."""
    known = shipped_weights(path, bundle_root) or {}
    facts = read_facts(path)
    return known.get("patients") or (facts.patients if facts else [])


def tell_weights(ckpt_path: str, bundle_root: str) -> None:
    """Log what the weights were trained on; of the bundle's own also the intended use."""
    if shipped := shipped_weights(ckpt_path, bundle_root):
        use = metadata_of(bundle_root)["intended_use"]
        logger.warning(f"{ckpt_path}: trained on: {shipped['data_source']}. {use}")
    elif known := trained_on(ckpt_path, bundle_root):
        logger.info(f"{weights_name(ckpt_path)}: trained on {known}")
    elif Path(ckpt_path).is_file():
        logger.warning(
            f"{ckpt_path}: has no record of its training, so the settings of inference.json are used. If it was "
            "trained with other settings, add its recipe, or give them (--cohort, --width, --crop, --spacing)."
        )
