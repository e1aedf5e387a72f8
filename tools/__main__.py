"""The verbs of ``mmb``, alias ``python -m tools``: each is the function in the module of its name.

A verb imports what it runs when it is called, since PyTorch and MONAI take seconds to load, which help texts and errors
in arguments should not wait for.
"""

import logging
import signal
import sys
from importlib import import_module
from importlib.util import find_spec

from mmb import require_ours

require_ours()  # before anything of ours is imported

from common.io.arguments import REFUSALS, parse_verb  # noqa: E402
from common.text import printable  # noqa: E402

NAMES = {
    "patients": ("predict", "export_labels"),
    "data": ("check", "datalist", "join", "phantom"),
    "compare": ("evaluate", "compare", "pool", "calibrate", "reproduce"),
    "many methods and machines": ("leaderboard", "budget", "federate", "provision"),
    "share": ("package", "zoo", "import_weights"),
}
VERBS = {
    title: {name: getattr(import_module(f"tools.{name}"), name) for name in names} for title, names in NAMES.items()
}
"""Title of a group of verbs -> name of a verb -> its function."""
if find_spec("tools.maintenance"):  # in a clone only
    VERBS["maintenance"] = {
        name: getattr(import_module(f"tools.maintenance.{name}"), name) for name in ("ship", "train_content")
    }


def main() -> None:
    """Run a verb; what is wrong with options and files ends in one line and status 1, all else in a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # else the first use on a machine tells of its fonts
    sys.stdout.reconfigure(errors="backslashreplace")  # paths may have undecodable characters
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started and cleans up
    try:
        parse_verb(VERBS, sys.argv[1:], "mmb")()
    except REFUSALS as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    main()
