"""Command lines: ``python -m tools VERB``."""

import os

# Threads that wait for others to finish sleep instead of spinning, which on a busy machine costs several times the work
# itself. OpenMP reads this when PyTorch is loaded, so it is set before anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
