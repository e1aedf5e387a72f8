"""Digests of what a result was made of, by which stale caches and results are recognised.

A digest is of the version of `common`, of values as `pickle` stores them, of files that texts name (size and time of
change), and of the text of the user's own code. An edit of an installed package in place is not seen.
"""

import hashlib
import io
import logging
import os
import pickle
import sys
import sysconfig
import threading
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from common import __version__

INSTALLED = {Path(sysconfig.get_path(name)).resolve() for name in ("stdlib", "platstdlib", "purelib", "platlib")}
OURS = ("common", "mmb")
SILENT = (np.random.RandomState, torch.Generator, logging.Logger, type(threading.Lock()), type(threading.RLock()))
"""What has no part in a result: every random transform has a state of the first kind, set anew in each epoch."""


class UnknownError(ValueError):
    """Something has no digest, since it cannot be pickled; a lambda cannot."""


def digest(*parts: Any) -> str:
    """Return 16 hexadecimal digits that change with any part, and are the same in every process.

    Of networks all counts but their weights, which are a file of their own.

    Raises:
        UnknownError: if a part cannot be pickled, such as a lambda or an open file.

    Example:
        >>> from common.io.digest import digest
        >>> digest("t1", [1, 2]) == digest("t1", [1, 2]), digest("t1", [1, 2]) == digest("t1", [2, 1])
        (True, False)
    """
    stream = io.BytesIO()
    pickler = _Pickler(stream)
    try:
        pickler.dump(parts)
    except (pickle.PicklingError, AttributeError, TypeError, ValueError, RecursionError) as error:
        raise UnknownError(f"what it is made of cannot be told ({error})") from None
    said = [__version__.encode(), stream.getvalue(), *(path.read_bytes() for path in sorted(pickler.code))]
    return hashlib.sha256(b"".join(said)).hexdigest()[:16]


def files_of(item: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Return path, size in bytes and modification time (ns) of those files of a datalist item that exist."""
    images = item["image"] if isinstance(item["image"], list | tuple) else [item["image"]]
    return [_file(str(path)) for path in [*images, item.get("label")] if path is not None and os.path.exists(path)]


def own_code(code: type | types.FunctionType) -> str:
    """Return the digest of the files of a class or function of the user's; empty for one of an installed package.

    Example:
        >>> from common.io.digest import own_code
        >>> from monai.transforms import Spacingd
        >>> own_code(Spacingd)
        ''
    """
    files = sorted(_own_files(code.__module__))
    return digest(*(path.read_bytes() for path in files)) if files else ""


class _Pickler(pickle.Pickler):
    """Attributes: ``code``, the files of the user's own code of which objects are."""

    def __init__(self, stream: io.BytesIO) -> None:
        super().__init__(stream, protocol=4)
        self.fast = True  # equal values are the same whether or not they are one object
        self.code: set[Path] = set()

    def persistent_id(self, value: Any) -> Any:
        if isinstance(value, SILENT):
            return "silent"
        if isinstance(value, set | frozenset):
            return sorted(map(repr, value))  # their order differs between processes
        if isinstance(value, str) and len(value) < 4096 and os.path.isfile(value):
            return " ".join(map(str, ("file", *_file(value))))
        return None

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, type | types.FunctionType):
            self.code |= _own_files(value.__module__)
        elif isinstance(value, nn.Parameter):
            return str, (f"{value.dtype} {tuple(value.shape)}",)
        elif isinstance(value, torch.Tensor):
            plain = value.detach().cpu().as_subclass(torch.Tensor).to_dense()
            voxels = plain.float() if plain.dtype == torch.bfloat16 else plain
            return dict, ([("tensor", str(value.dtype)), ("voxels", voxels.numpy()), ("meta", vars(value))],)
        return NotImplemented


def _own_files(module: str) -> set[Path]:
    """Return the Python files of the package or folder of a module, unless it is installed, or ours."""
    top = module.partition(".")[0]
    file = getattr(sys.modules.get(module), "__file__", None)
    if file is None or top in OURS or INSTALLED & {*Path(file).resolve().parents}:
        return set()
    folder = Path(file).resolve().parents[module.count(".")]
    return {*folder.rglob("*.py")} if "." in module else {*folder.glob("*.py")}


def _file(path: str) -> tuple[str, int, int]:
    about = os.stat(path)
    return path, about.st_size, about.st_mtime_ns
