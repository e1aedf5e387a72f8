"""Memory that a tensor has left is used for the next one."""

import ctypes
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from common.io.memory import keep_freed_memory

FAULTS = """
import resource
import torch
from common.io.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
for _ in range(16):  # the heap grows until it keeps 512 MiB
    torch.ones(2**24)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):
    torch.ones(2**24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="an option of glibc")
def test_a_tensor_gets_the_memory_of_the_one_before():
    kept, returned = (
        int(subprocess.run([sys.executable, "-c", FAULTS.format(keep=keep)], capture_output=True, check=True).stdout)
        for keep in (True, False)
    )
    assert kept < returned / 8


def test_older_glibc_gets_the_largest_threshold_that_it_takes(monkeypatch):
    """It refuses one above 32 MiB, and the one of 128 KiB that it has is then fixed by any other option."""
    options = {}

    def mallopt(option: int, value: int) -> int:
        if option == -3 and value > 2**25:
            return 0
        options[option] = value
        return 1

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(ctypes, "CDLL", lambda name: SimpleNamespace(mallopt=mallopt))
    keep_freed_memory()
    assert options == {-3: 2**25, -1: 2**29, -2: 2**26}
