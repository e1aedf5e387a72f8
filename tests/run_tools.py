import sys

from tools.__main__ import main


def run(*arguments: object) -> int | str | None:
    """Run ``python -m tools`` in this process; return what it exits with, None if it just ends."""
    before, sys.argv = sys.argv, ["tools", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return None
