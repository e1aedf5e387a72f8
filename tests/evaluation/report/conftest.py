"""Tests of reports use fewer bootstrap samples; the statistics have their own tests."""

from collections.abc import Iterator

import pytest

from common.evaluation.analysis import statistics


@pytest.fixture(scope="module", autouse=True)
def few_resamples() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(statistics, "RESAMPLES", 100)
        yield
