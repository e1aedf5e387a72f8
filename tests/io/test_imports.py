"""`common.io` loads what a name needs when the name is first used."""

import subprocess
import sys

import common.io


def test_neither_pytorch_nor_monai_is_loaded_before_it_is_needed():
    light = ("bundle", "documents", "files", "lock", "settings", "weights")
    code = f"import sys; from common.io import {', '.join(light)}; assert not {{'torch', 'monai'}} & {{*sys.modules}}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_every_name_is_there():
    assert all(callable(getattr(common.io, name)) for name in common.io.__all__)
    assert not hasattr(common.io, "nothing")
