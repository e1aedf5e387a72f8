"""Makes MONAI Label 0.8.5 importable without packages that this app never uses. To be imported before it."""

import sys
from types import ModuleType
from typing import Any

import monai  # noqa: F401  # before the stand-ins, which it would take for the packages

NOT_USED = (
    "SimpleITK",
    "girder_client",
    "pydicom_seg",
    "shapely",
    "shapely.geometry",
    "skimage",
    "skimage.measure",
    "torchvision",
    "torchvision.utils",
)
"""What the package imports at its start for things that this app never does: it neither converts DICOM with SimpleITK
nor writes DICOM-SEG with pydicom-seg, which does not know pydicom 3."""


class _StandIn(ModuleType):
    """A package that is not installed: names can be imported from it, but not called."""

    __path__: list[str] = []  # noqa: RUF012  # a package

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise NotImplementedError(f"{self.__name__}.{name}: not part of this server.")

        return refuse


for _name in NOT_USED:
    sys.modules.setdefault(_name, _StandIn(_name))
