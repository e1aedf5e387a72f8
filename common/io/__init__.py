"""Files in and out: images, checkpoints, the folder of a bundle."""

from common.io.bundle import bundle_root, flag
from common.io.checkpoints import load_weights, read_checkpoint, write_checkpoint
from common.io.files import require_writable
from common.io.images import AtomicNibabelWriter, read_volume

__all__ = [
    "AtomicNibabelWriter",
    "bundle_root",
    "flag",
    "load_weights",
    "read_checkpoint",
    "read_volume",
    "require_writable",
    "write_checkpoint",
]
