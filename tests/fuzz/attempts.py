"""One try of fuzzing: hostile input is refused or read correctly, and never gives a silently wrong result or a hang."""

import os
import signal
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings

SECONDS = 20
"""Seconds after which a try counts as hanging."""

settings.register_profile(
    "fuzz",
    max_examples=int(os.environ.get("FUZZ_TRIES", "10")),
    derandomize="FUZZ_TRIES" not in os.environ,  # a short run makes the same tries every time
    database=None,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("fuzz")


def attempt(work: Callable[[], Any], is_right: Callable[[Any], bool]) -> None:
    """Fail unless a function that reads input refuses it, or returns what the input says."""

    def stop(*_: object) -> None:
        raise AssertionError(f"no answer for {SECONDS} seconds")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        result = work()
    except (ValueError, OSError):
        return
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    assert is_right(result), "read, but not what the input says"
