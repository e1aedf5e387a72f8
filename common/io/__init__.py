"""Reading and writing files: images, checkpoints, a bundle's folder, and the settings of its configs.

Each module is imported when one of its names is first used, so ``import common.io`` loads neither PyTorch nor MONAI.
"""

from typing import Any

from common.names import find

_MODULES = {
    "bundle": ("bundle_root",),
    "checkpoints": ("load_weights", "read_checkpoint", "read_weights", "start_from", "write_checkpoint"),
    "facts": ("setting_of_weights",),
    "files": ("file_digest", "require_writable"),
    "images": ("AtomicNibabelWriter", "read_volume"),
    "lock": ("lock_folder", "unlock_folder"),
    "settings": ("check_counts", "flag", "optional", "per_axis"),
    "weights": ("shipped_weights", "tell_weights"),
}
__all__ = sorted(name for names in _MODULES.values() for name in names)


def __getattr__(name: str) -> Any:
    return find(__name__, name, _MODULES)
