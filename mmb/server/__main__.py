"""``python -m mmb.server`` serves the bundles on a page, and to 3D Slicer and OHIF as MONAI Label does."""

import logging
import sys

from common.text import printable
from mmb.arguments import REFUSALS, parse
from mmb.errors import silence_libraries
from mmb.extras import required


def main() -> None:
    """Serve; what is wrong with options and files ends in one line and status 1, all else in a traceback."""
    logging.basicConfig(level=logging.ERROR, format="%(asctime)s %(levelname)s %(message)s")
    logging.getLogger("label").setLevel(logging.INFO)
    silence_libraries()
    try:
        with required("clinic", "This is the server"):
            from mmb.server.serve import serve
        parse(serve, sys.argv[1:], "python -m mmb.server")()
    except REFUSALS as error:
        sys.exit(f"error: {printable(str(error))}")


if __name__ == "__main__":
    main()
