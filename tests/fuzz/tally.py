"""Outcomes of fuzzing attempts: refused, read correctly (benign), read wrongly (silent), crashed, or hanging."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hypothesis import HealthCheck, settings

TRIES = int(os.environ.get("FUZZ_TRIES", "20"))
"""Number of attempts per test; a short run makes the same ones every time."""
SECONDS = 20
"""Seconds after which an attempt counts as hanging."""
REFUSALS = (ValueError, OSError)
"""Errors that bad input may raise; `tools` prints their text without a traceback."""

settings.register_profile(
    "fuzz",
    max_examples=TRIES,
    derandomize="FUZZ_TRIES" not in os.environ,
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")

outcomes: dict[str, Counter[str]] = {}
"""Test -> outcome -> count, for the summary at the end."""


class HangError(Exception):
    """An attempt took too long."""


def attempt(test: str, work: Callable[[], Any], is_right: Callable[[Any], bool]) -> None:
    """Make one attempt, count its outcome, and fail unless the input is refused or read correctly.

    Args:
        test: name of the test.
        work: function that reads the input.
        is_right: whether the result is what the input says.
    """
    counts = outcomes.setdefault(test, Counter())
    try:
        with _limited():
            result = work()
    except REFUSALS:
        counts["refused"] += 1
    except BaseException:
        counts["crashed"] += 1
        raise
    else:
        right = is_right(result)
        counts["benign" if right else "silent"] += 1
        assert right, "read, but not what the input says"


@contextmanager
def _limited() -> Iterator[None]:
    """Raise an error in a block that takes too long."""

    def stop(*_: object) -> None:
        raise HangError(f"no answer for {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
