"""Fixtures for several tests of the server."""

from pathlib import Path

import pytest


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server")
