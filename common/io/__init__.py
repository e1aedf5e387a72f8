"""Reading and writing files: images, checkpoints, a bundle's folder, and the settings of its configs.

Each module is imported when one of its names is first used, so ``import common.io`` loads neither PyTorch nor MONAI.
"""

from importlib import import_module
from typing import Any

_MODULES = {
    "bundle": ("bundle_root",),
    "checkpoints": ("load_weights", "read_checkpoint", "read_weights", "start_from", "write_checkpoint"),
    "command": ("recipe_names",),
    "facts": ("setting_of_weights",),
    "files": ("file_digest", "require_writable"),
    "images": ("AtomicNibabelWriter", "read_volume"),
    "lock": ("lock_folder", "unlock_folder"),
    "settings": ("check_counts", "flag", "optional", "per_axis"),
    "weights": ("shipped_weights", "tell_weights"),
}
_PLACES = {name: module for module, names in _MODULES.items() for name in names}
__all__ = sorted(_PLACES)


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_PLACES[name]}"), name)
