"""Memory that a tensor has left is used for the next one."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource
import torch
from common.engines.memory import keep_freed_memory
if {keep}:
    keep_freed_memory()
for _ in range(2):
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
    assert kept < returned / 8  # the heap may still grow once
