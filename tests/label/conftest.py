"""What several tests of the server need."""

from collections.abc import Iterator

import pytest
from stack import Stack, running


@pytest.fixture(scope="session")
def stack(tmp_path_factory) -> Iterator[Stack]:
    """An archive with studies, and a server on it."""
    with running(tmp_path_factory.mktemp("stack")) as one:
        yield one
