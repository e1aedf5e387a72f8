"""The folder for the server's temporary files, which include images of patients."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

from common.study.scratch import scratch


@contextmanager
def private_folder() -> Iterator[None]:
    """Put all temporary files into one folder that only this user can read, and remove it at the end; see `scratch`."""
    with scratch() as folder:
        before = os.environ.get("TMPDIR")
        os.environ["TMPDIR"] = tempfile.tempdir = str(folder)
        try:
            yield
        finally:
            tempfile.tempdir = None
            os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
