"""Steps that join the configs of a bundle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ignite.distributed as idist
from monai.bundle import run


def evaluate_bundle(bundle_root: str, overrides: Mapping[str, Any]) -> None:
    """Run a bundle's own evaluation (``inference.json`` with ``evaluate.json`` over it) on rank 0.

    Args:
        bundle_root: folder of the bundle.
        overrides: config keys to set, e.g. ``ckpt_path`` and ``output_dir``.
    """
    if idist.get_rank() == 0:
        configs = Path(bundle_root) / "configs"
        files = [str(configs / "inference.json"), str(configs / "evaluate.json")]
        run(config_file=files, bundle_root=bundle_root, **overrides)
