"""The verbs of ``python -m tools``: each is the function in the module of its name.

A verb imports what it runs when it is called, since PyTorch and MONAI take seconds to load, which help texts and errors
in arguments should not wait for.
"""

import atexit
import gc
import logging
import signal
import sys
from importlib import import_module
from importlib.util import find_spec

from common.io.arguments import parse
from common.io.disk import complaint, out_of_memory

PLACES = dict.fromkeys(("datalist", "join", "check", "compare", "average", "pool", "leaderboard", "predict"), "tools")
PLACES |= dict.fromkeys(("budget", "phantom", "federate", "provision", "package", "zoo", "import_weights"), "tools")
if find_spec("tools.maintenance"):  # in a clone only
    PLACES |= dict.fromkeys(("ship", "train_content"), "tools.maintenance")
VERBS = {name: getattr(import_module(f"{place}.{name}"), name) for name, place in PLACES.items()}


def main() -> None:
    """Run a verb; errors in the user's files are reported in one line, without a traceback."""
    # PyTorch and MONAI create a million objects that stay. To look for garbage among them less often, and not at all at
    # the end, saves two seconds.
    gc.set_threshold(20_000)
    atexit.register(gc.freeze)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    logging.getLogger("matplotlib").setLevel(logging.WARNING)  # else the first use on a machine tells of its fonts
    sys.stdout.reconfigure(errors="backslashreplace")  # paths may have undecodable characters
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # ends what was started and cleans up
    try:
        parse(VERBS, sys.argv[1:])()
    except Exception as error:
        if not isinstance(error, ValueError | OSError | ImportError) and not out_of_memory(error):
            raise
        sys.exit(f"error: {complaint(error)}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)


if __name__ == "__main__":
    main()
