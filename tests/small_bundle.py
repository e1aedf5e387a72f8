"""A bundle of a few bytes, for tests of packages."""

import hashlib
import json
from pathlib import Path


def write_bundle(folder: Path, name: str = "tiny", version: str = "0.1.0", weights: bytes = b"weights") -> Path:
    """Write a bundle, with files that its use and an editor leave in it; return its folder."""
    known = {"model.pt": {"sha256": hashlib.sha256(weights).hexdigest(), "data_source": "nothing"}}
    metadata = {"bundle": name, "version": version, "monai_version": "1.6.1", "weights": known}
    files = {
        "LICENSE": b"licence",
        "configs/metadata.json": json.dumps(metadata).encode(),
        "configs/inference.json": b'{\n    "imports": [\n        "$import common.io as io"\n    ],\n    "run": []\n}\n',
        "configs/recipes/one.json": b'{"imports": ["$import common.io as io"], "epochs": 3}',
        "docs/README.md": b"# Tiny\n",
        "models/model.pt": weights,
        "eval/inference/case_seg.nii.gz": b"not part of the bundle",
        "models/.model.pt.swp": b"nor this",
        "configs/__pycache__/x.pyc": b"nor this",
    }
    for path, content in files.items():
        Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, path).write_bytes(content)
    return folder
