"""Names of packages that are imported when they are used, and names of earlier versions."""

import warnings
from collections.abc import Mapping, Sequence
from importlib import import_module
from pydoc import locate
from types import ModuleType
from typing import Any

_PAPERS = ("gss", "m3ae", "mag_ms", "medmap", "passion")
_BASELINES = ("cotraining", "dedicated", "hved", "plain", "pmkl", "robustseg")
RENAMED = {
    "common.engines.PreferenceBalancer": "common.papers.passion.PreferenceBalancer",
    "common.engines.claim_output": "common.engines.multi_gpu.claim_output",
    "common.io.trained": "common.io.facts.setting_of_weights",
    "common.losses.parts": "common.losses.dice_ce",
    "common.losses.acn": "common.baselines.cotraining",
    "common.losses.smunet": "common.baselines.cotraining",
    **{f"common.{old}.{name}": f"common.papers.{name}" for old in ("losses", "methods") for name in _PAPERS},
    **{f"common.{old}.{name}": f"common.baselines.{name}" for old in ("losses", "methods") for name in _BASELINES},
}
"""Name in a config of version 0.3 or 0.4 -> what it is now. Each is kept for one minor version: these go in 0.6."""


def find(package: str, name: str, modules: Mapping[str, Sequence[str]]) -> Any:
    """Return a name of a package from that of its modules which has it, or what a name of an earlier version is now.

    A package calls this as its ``__getattr__``, so that only modules are imported whose names are used. A renamed one
    gives a DeprecationWarning; for an unknown name an AttributeError is raised.
    """
    for module, names in modules.items():
        if name in names:
            return getattr(import_module(f"{package}.{module}"), name)
    old = f"{package}.{name}"
    if old in RENAMED:
        new = RENAMED[old]
        warnings.warn(f"{old} is {new} now; the old name goes in version 0.6.", DeprecationWarning, stacklevel=3)
        return locate(new)
    raise AttributeError(f"module {package!r} has no attribute {name!r}")


class OldPackage(ModuleType):
    """A package of an earlier version, all of whose modules were renamed."""

    def __getattr__(self, name: str) -> Any:
        return find(self.__name__, name, {})
