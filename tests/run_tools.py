import sys

from mmb.__main__ import main


def run(*arguments: object) -> int | str | None:
    """Run ``mmb`` in this process; return its exit code or message, or None if it simply ends."""
    before, sys.argv = sys.argv, ["mmb", *map(str, arguments)]
    try:
        main()
    except SystemExit as stop:
        return stop.code
    finally:
        sys.argv = before
    return None
