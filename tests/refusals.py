"""Tables of refusals pin the facts of a message, not its sentences."""

import re

import pytest


def refused(kind: type[Exception], *facts: str):
    """Return `pytest.raises` for an error whose message has these texts in this order."""
    return pytest.raises(kind, match="(?s)" + ".*".join(map(re.escape, facts)))
