import sys

from tools.__main__ import main


def run(*arguments: object) -> int | str | None:
    """Run ``python -m tools`` in this process; return its exit code or message, or None if it simply ends."""
    before, sys.argv = sys.argv, ["tools", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return None
