from collections.abc import Callable
from pathlib import Path

import pytest

from common import cohorts
from common.cohorts.phantom.stand_in import write_stand_in


@pytest.fixture
def unlooked(monkeypatch):
    """Let tests of names use empty files: `common.cohorts.prepare` does not look into them."""
    monkeypatch.setattr(cohorts, "look", lambda *args: None)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory) -> Callable[[str], Path]:
    """Return a function that returns the folder of a data set's stand-in, written once."""
    root = tmp_path_factory.mktemp("stand_ins")
    return lambda name: write_stand_in(cohorts.get_cohort(name), root / name, None)
