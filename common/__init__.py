"""Code that all bundles share. A process loads one version of it; a packaged bundle contains its own copy."""

import re
import sys
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = "0.4.0"
OLDEST_MONAI = (1, 6)


def require_monai(installed: str) -> None:
    """Refuse a version of MONAI that is too old, here since some names that are imported below are not in it.

    MONAI's bundles put off the ImportError and end with that of a later expression; so their run ends here, in a line.
    """
    number = re.match(r"(\d+)\.(\d+)", installed)  # a clone without tags has none
    if number and tuple(map(int, number.groups())) < OLDEST_MONAI:
        message = (
            f"MONAI {installed} is installed, which is too old. Install a newer one: pip install 'monai>=1.6,<1.8'"
        )
        raise SystemExit(f"error: {message}") if sys.argv[0].endswith("__main__.py") else ImportError(message)


for _name in ("monai", "monai-weekly"):
    with suppress(PackageNotFoundError):
        require_monai(version(_name))
        break
