"""``python -m tools SCRIPT``, for maintainers in a clone: packages, zoo folders, weights, pages that are made."""

import logging
import sys
from collections.abc import Callable
from importlib import import_module
from typing import Any

from common.io.errors import unwrapped_errors
from common.text import printable
from mmb.__main__ import VERBS
from mmb.arguments import REFUSALS, parse_verb

SCRIPTS = ("package", "zoo", "ship", "api", "licences", "words")


def script(name: str) -> Callable[..., Any]:
    """Return the function of a script."""
    return getattr(import_module(f"tools.{name}"), name)


def main() -> None:
    """Run a script; what is wrong with options and files ends in one line and status 1, all else in a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    word = "".join(sys.argv[1:2]).replace("-", "_")
    if any(word in names for names in VERBS.values()):
        sys.exit(f"error: `python -m tools {word}` is `mmb {word}` now.")
    try:
        with unwrapped_errors():
            made = parse_verb({"scripts": {name: script(name) for name in SCRIPTS}}, sys.argv[1:], "python -m tools")()
    except REFUSALS as error:
        sys.exit(f"error: {printable(str(error))}")
    if made is not None:
        print(made)


if __name__ == "__main__":
    main()
