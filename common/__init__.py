"""Code that all bundles share. A process loads one version of it; a packaged bundle contains its own copy."""

import atexit
import gc

__version__ = "0.2.0"

# PyTorch and MONAI leave a million objects; a process that looks for garbage among them takes 1.5 s longer to end.
atexit.register(gc.freeze)
