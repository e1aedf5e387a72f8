"""The console script ``mmb``: a name that no other package has, so that it can say who stands in the place of ours."""

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("common", "clinic", "experiments", "tools")


def require_ours() -> None:
    """End with status 1 and one line if a package of this project is not the one that lies beside this file."""
    ours = Path(__file__).absolute().parent
    for name in PACKAGES:
        spec = find_spec(name)
        places = [Path(place).resolve() for place in spec.submodule_search_locations or [spec.origin]] if spec else []
        if places and (ours / name).resolve() not in places:
            sys.exit(
                f"error: {places[0]}: stands in the place of this program's own package {name!r}, {ours / name}; run "
                "it in another folder, clear PYTHONPATH, or install it into an environment of its own."
            )


def main() -> None:
    """Run a verb; see `tools.__main__`."""
    require_ours()
    from tools.__main__ import main as run

    run()
