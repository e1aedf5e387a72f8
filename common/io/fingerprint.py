"""Fingerprints of inputs and settings, by which stale results are recognised."""

import hashlib
import json
import os
from collections.abc import Mapping
from types import CodeType, FunctionType
from typing import Any

import numpy as np
import torch
from torch import nn


def fingerprint(*parts: Any) -> str:
    """Return 16 hexadecimal digits that change when any part changes.

    Objects are described by their type and the names and values of their attributes, so the same settings give the same
    digits in every process.
    """
    said = json.dumps([_describe(part) for part in parts], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def files_of(item: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Return path, size in bytes and modification time (ns) of those files of a datalist item that exist."""
    images = item["image"] if isinstance(item["image"], list | tuple) else [item["image"]]
    paths = [path for path in [*images, item.get("label")] if path is not None and os.path.exists(path)]
    return [(str(path), os.stat(path).st_size, os.stat(path).st_mtime_ns) for path in paths]


def _describe(value: Any) -> Any:
    if isinstance(value, np.random.RandomState):  # every transform has one; its repr is a memory address
        return "RandomState"
    if isinstance(value, np.ndarray | torch.Tensor):
        array = np.ascontiguousarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        return [array.dtype.str, array.shape, hashlib.sha256(array.data).hexdigest()]
    if isinstance(value, nn.Module):  # its parts; its weights are a file of their own
        return [[name, type(part).__qualname__, _settings(part)] for name, part in value.named_modules()]
    if isinstance(value, FunctionType):
        return [value.__qualname__, _describe(value.__code__)]
    if isinstance(value, CodeType):  # its constants hold the code of functions within it
        return [value.co_code.hex(), value.co_names, _describe(value.co_consts)]
    if callable(value) and hasattr(value, "__qualname__"):
        return value.__qualname__
    if hasattr(value, "__dict__"):
        return [type(value).__qualname__, _settings(value)]
    if isinstance(value, tuple | list):
        return [_describe(v) for v in value]
    if isinstance(value, Mapping):
        return sorted((str(k), _describe(v)) for k, v in value.items())
    return repr(value)


def _settings(value: Any) -> list[tuple[str, Any]]:
    hidden = isinstance(value, nn.Module)  # of a module, leave out PyTorch's private attributes
    return sorted((k, _describe(v)) for k, v in vars(value).items() if not (hidden and k.startswith("_")))
