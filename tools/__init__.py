"""Command lines: ``python -m tools VERB``."""

import os

# Waiting threads sleep instead of spinning, which on a busy machine costs several times as much as the work itself.
# OpenMP reads this when PyTorch is loaded, so it is set before that.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
