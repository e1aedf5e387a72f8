"""Names of packages that are imported when they are used."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any


def find(package: str, name: str, modules: Mapping[str, Sequence[str]]) -> Any:
    """Return a name of a package from that of its modules which has it.

    A package calls this as its ``__getattr__``, so that only modules are imported whose names are used. For an unknown
    name an AttributeError is raised.
    """
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(f"{package}.{module}"), name)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")
