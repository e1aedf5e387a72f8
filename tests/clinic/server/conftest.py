"""Fixtures for several tests of the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from archive_stack import SECRETS, Stack, running


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("server")


@pytest.fixture(scope="session")
def stack(tmp_path_factory) -> Iterator[Stack]:
    """An archive with studies, and a server that uses it. At its end, no request has left a file or a name."""
    with running(tmp_path_factory.mktemp("stack")) as one:
        yield one
        assert not [path for path in (one.folder / "tmp").rglob("*") if path.is_file()]
    assert not list((one.folder / "tmp").iterdir())
    assert not SECRETS.search(one.log())
