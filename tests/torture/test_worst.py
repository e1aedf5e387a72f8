"""The worst of the matrix: commands that are killed or cramped."""

from pathlib import Path

import pytest
from torture.matrix import attempt, prepare


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    made = tmp_path_factory.mktemp("torture")
    prepare(made)
    return made


@pytest.mark.slow  # processes of their own
@pytest.mark.parametrize(
    ("job", "name"),
    [
        ("predict", "SIGKILL at 85%"),
        ("predict", "output of 1 MiB"),
        ("training", "SIGKILL at 60%"),
        ("package", "SIGKILL at 85%"),
    ],
)
def test_what_was_promised_holds(folder, job, name):
    assert not attempt(job, name, folder)
