"""``mmb VERB``, or ``python -m mmb VERB``."""

import logging
import os
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from io import TextIOWrapper

from common.text import printable
from mmb.arguments import REFUSALS, parse_verb

VERBS = {
    "patients": ("predict", "serve", "export_labels"),
    "data": ("check", "datalist", "join"),
    "to try it out": ("example", "phantom"),
    "compare": ("compare", "pool", "calibrate"),
    "many methods": ("leaderboard",),
    "share": ("bundle", "import_weights", "ensemble"),
}
"""Title of a group of verbs -> their names."""


def verb(name: str) -> Callable[..., None]:
    """Return the function of a verb."""
    return getattr(import_module(f"mmb.verbs.{name}"), name)


def main() -> None:
    """Run a verb; what is wrong with options and files ends in one line and status 1, all else in a traceback."""
    # Waiting threads sleep instead of spinning, which on a busy machine costs several times as much as the work itself.
    # OpenMP reads this when PyTorch is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    for name in ("matplotlib", "numexpr"):  # which tell of fonts and threads
        logging.getLogger(name).setLevel(logging.WARNING)
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # paths may have undecodable characters
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started and cleans up
    try:
        parse_verb(
            {title: {name: verb(name) for name in names} for title, names in VERBS.items()}, sys.argv[1:], "mmb"
        )()
    except REFUSALS as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    main()
