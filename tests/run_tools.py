import logging
import sys
from collections.abc import Callable

from mmb.__main__ import main
from mmb.errors import PROGRESS
from tools.__main__ import main as scripts


def run(*arguments: object, program: Callable[[], None] = main) -> int | str | None:
    """Run ``mmb`` or another program in this process; return its exit code or message, or None if it simply ends."""
    before, sys.argv = sys.argv, ["mmb", *map(str, arguments)]
    try:
        program()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
        be_audible()
    return None


def be_audible() -> None:
    """Let the loggers speak again that `silence_libraries` silenced for this process; other tests listen to them."""
    for name in PROGRESS:
        logging.getLogger(name).disabled = False


def run_script(*arguments: object) -> int | str | None:
    """Run ``python -m tools`` likewise."""
    return run(*arguments, program=scripts)


class Here:
    """Run in the process of the tests what a `Worker` would, which first has to import everything."""

    def run(self, function: Callable, *arguments: object) -> object:
        return function(*arguments)
