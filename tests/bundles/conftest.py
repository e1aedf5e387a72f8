"""A case of the phantom that every bundle segments."""

from typing import Any

import pytest

from common.cohorts.datalist import load_datalist


@pytest.fixture(scope="session")
def case(phantom_dir) -> dict[str, Any]:
    """The datalist item of a test subject."""
    return load_datalist(phantom_dir / "datalist.json", phantom_dir)["test"][0]


@pytest.fixture(scope="session")
def coarse_case(coarse_dir) -> dict[str, Any]:
    """The same item with voxels of 6 mm, for what does not depend on how well it is segmented."""
    return load_datalist(coarse_dir / "datalist.json", coarse_dir)["test"][0]
