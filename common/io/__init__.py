"""Reading and writing files: images, checkpoints, a bundle's folder, and the settings of its configs."""

from common.io.bundle import bundle_root, errors_in_one_line, given_options, refuse_unknown_options
from common.io.checkpoints import load_weights, read_checkpoint, read_weights, start_from, write_checkpoint
from common.io.files import require_writable
from common.io.fingerprint import file_digest
from common.io.images import AtomicNibabelWriter, read_volume
from common.io.lock import lock_folder, unlock_folder
from common.io.settings import check_counts, flag, optional, per_axis
from common.io.weights import shipped_weights, tell_shipped_weights

__all__ = [
    "AtomicNibabelWriter",
    "bundle_root",
    "check_counts",
    "errors_in_one_line",
    "file_digest",
    "flag",
    "given_options",
    "load_weights",
    "lock_folder",
    "optional",
    "per_axis",
    "read_checkpoint",
    "read_volume",
    "read_weights",
    "refuse_unknown_options",
    "require_writable",
    "shipped_weights",
    "start_from",
    "tell_shipped_weights",
    "unlock_folder",
    "write_checkpoint",
]
