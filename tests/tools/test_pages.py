"""Pages that are made by a command: the promised interface, and the licences of what is installed."""

import pytest

from tools.api import PAGE, page
from tools.licences import COPYLEFT, EXTRAS, WITHOUT, packages
from tools.licences import PAGE as LICENCES


def test_the_promised_interface_is_what_it_was():
    """If a name or an argument has to change: say so in CHANGELOG.md, then `python -m tools api`."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("extra", EXTRAS)
def test_nothing_that_is_installed_is_under_the_gpl(extra):
    found = packages(extra)
    assert {"torch", "monai"} <= found.keys()
    assert {name: one for name, one in found.items() if COPYLEFT.search(one)} == {}
    assert f"\n## {extra or WITHOUT}\n" in LICENCES.read_text()


def test_a_licence_of_the_gpl_would_be_seen():
    for text in ("GPL-3.0-or-later", "AGPL-3.0", "GNU General Public License v3 (GPLv3)"):
        assert COPYLEFT.search(text)
    for text in ("LGPL-3.0", "GNU Lesser General Public License v3 (LGPLv3)", "MIT"):
        assert not COPYLEFT.search(text)
