"""Command lines: ``python -m tools VERB``."""

import ctypes
import os
import sys

# Waiting threads sleep instead of spinning, which on a busy machine costs several times as much as the work itself.
# OpenMP reads this when PyTorch is loaded, so it is set before anything else.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# glibc returns large freed arrays to the system and fetches zeroed pages for the next ones, which takes a fifth of the
# processor time of segmenting a study. It is told to keep up to 512 MiB; other C libraries have no such function.
_LIBC = ctypes.CDLL(None) if sys.platform == "linux" else None
_KEPT = {-3: 1 << 30, -1: 1 << 29, -2: 1 << 26}  # bytes of M_MMAP_THRESHOLD, M_TRIM_THRESHOLD and M_TOP_PAD
if hasattr(_LIBC, "mallopt"):
    for _option, _value in _KEPT.items():
        _LIBC.mallopt(_option, _value)
