import pytest

from common.cohorts.phantom.cohort import generate


@pytest.fixture(scope="session")
def phantom_dir(tmp_path_factory):
    """A small phantom cohort: six subjects for training, one for validation, two for test."""
    return generate(tmp_path_factory.mktemp("phantom") / "phantom", subjects=9)
