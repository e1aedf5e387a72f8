"""Fingerprints of inputs, settings and code, by which stale results are recognised.

An object is described by its class and its state, a class by its functions, and a function by what Python compiled of
it, its defaults, the variables that it encloses, and all that it refers to by name: constants, functions, modules. Of
code in an installed package, the version is enough.
"""

import builtins
import copyreg
import dis
import functools
import hashlib
import importlib.util
import json
import logging
import os
import re
import sys
import sysconfig
import threading
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.bundle.reference_resolver import ReferenceResolver
from torch import nn

REFERENCES = ReferenceResolver._vars
"""Global variable in which MONAI gives an expression of a config what it refers to by ``@``."""
PYTHON = (sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib"))
IMPORTS = re.compile(r"^\s*(?:from|import)\s+([\w.]+)", re.MULTILINE)
IMPORT_NAME = dis.opmap["IMPORT_NAME"]
OURS = ("common", "mmb")
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
PLAIN = (
    type(None),
    bool,
    int,
    float,
    complex,
    bytes,
    slice,
    range,
    types.GenericAlias,
    types.UnionType,
    types.EllipsisType,
)

SILENT = (np.random.RandomState, torch.Generator, logging.Logger, type(threading.Lock()), type(threading.RLock()))
"""What has no part in a result; every random transform has a state of the first kind, set anew in each epoch."""


class UnknownError(ValueError):
    """Something has no fingerprint, since it does not say what it is made of."""


def fingerprint(*parts: Any) -> str:
    """Return 16 hexadecimal digits that change when any part changes, and are the same in every process.

    A text that is the path of a file also stands for the file's size and modification time. Of networks all counts but
    their weights, which are a file of their own.

    Raises:
        UnknownError: if a part does not say what it is made of, as an open file does not.

    Example:
        >>> from common.io.fingerprint import fingerprint
        >>> def gain(factor):
        ...     return lambda image: image * factor
        >>> fingerprint(gain(1)) == fingerprint(gain(1)), fingerprint(gain(1)) == fingerprint(gain(2))
        (True, False)
    """
    return _Description().of(parts)[:16]


def files_of(item: Mapping[str, Any]) -> list[tuple[str, int, int]]:
    """Return path, size in bytes and modification time (ns) of those files of a datalist item that exist."""
    images = item["image"] if isinstance(item["image"], list | tuple) else [item["image"]]
    return [_file(str(path)) for path in [*images, item.get("label")] if path is not None and os.path.exists(path)]


def enclosed(function: types.FunctionType) -> dict[str, Any]:
    """Return what a function encloses or refers to by name: defaults, outer variables, and values of a config."""
    cells = [cell.cell_contents for cell in function.__closure__ or ()]
    told = dict(zip(function.__code__.co_freevars, cells, strict=True))
    told |= {f"default {index}": value for index, value in enumerate(function.__defaults__ or ())}
    return told | (function.__kwdefaults__ or {}) | _referred(function.__code__, function.__globals__)


def _referred(code: types.CodeType, around: Mapping[str, Any]) -> dict[str, Any]:
    """Return the global variables that code, and functions within it, refer to; of a config's, those it names."""
    codes = _inner(code)
    names = {name for each in codes for name in each.co_names}
    said = {name: around[name] for name in sorted(names) if name in around and name != REFERENCES}
    if REFERENCES in names:
        constants = {text for each in codes for text in each.co_consts if isinstance(text, str)}
        said |= {key: value for key, value in around.get(REFERENCES, {}).items() if key in constants}
    return said


class _Description:
    """Digests of what objects are made of; each object and each module is described once."""

    def __init__(self) -> None:
        self.known: dict[int, str] = {}
        self.kept: list[Any] = []  # ids of objects that are gone are used again
        self.modules: dict[str, Any] = {}

    def of(self, value: Any) -> str:
        """Return the digest of a value; one that contains itself is told by its class there."""
        if id(value) not in self.known:
            self.kept.append(value)
            self.known[id(value)] = type(value).__qualname__
            describe = next((describe for kinds, describe in KINDS if isinstance(value, kinds)), _Description._object)
            said = json.dumps([self._type(value), describe(self, value)])
            self.known[id(value)] = hashlib.sha256(said.encode()).hexdigest()
        return self.known[id(value)]

    def _type(self, value: Any) -> Any:
        cls = type(value)
        if _version_of(cls):
            return cls.__qualname__
        return [
            self.of(cls),
            self.of(getattr(value, "__dict__", None)) if isinstance(value, list | tuple | dict) else None,
        ]

    def _plain(self, value: Any) -> Any:
        return repr(value)

    def _text(self, value: str | os.PathLike) -> Any:
        return [str(value), _file(str(value)) if len(str(value)) < 4096 and os.path.isfile(value) else None]

    def _nothing(self, value: Any) -> Any:
        return None

    def _array(self, value: np.ndarray | torch.Tensor) -> Any:
        array = np.asarray(value.detach().cpu() if isinstance(value, torch.Tensor) else value)
        if array.dtype == object:
            return self.of(array.tolist())
        return [array.dtype.str, array.shape, hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()]

    def _network(self, network: nn.Module) -> Any:
        """Describe each part's class, attributes and hooks, and the buffers that no weights file has."""
        said = []
        for name, part in network.named_modules():
            told = {key: value for key, value in vars(part).items() if not key.startswith("_")}
            told |= {key: list(vars(part)[key].values()) for key in HOOKS}  # their keys are counted in each process
            unsaved = {key: part._buffers[key] for key in part._non_persistent_buffers_set}
            said.append([name, self.of(type(part)), self._mapping({**told, **unsaved})])
        return said

    def _function(self, function: types.FunctionType) -> Any:
        name, module = f"{function.__module__}.{function.__qualname__}", function.__globals__.get("__name__")
        version = _version(module) if _holds(module, function.__globals__) else None
        cells = [cell.cell_contents for cell in function.__closure__ or ()]
        values = self.of([function.__defaults__, function.__kwdefaults__, cells, vars(function)])
        named = None if version else [self.of(function.__code__), self._named(function.__code__, function.__globals__)]
        return [name, version, values, named]

    def _code(self, code: types.CodeType) -> Any:
        what = [code.co_code.hex(), code.co_exceptiontable.hex(), code.co_names, code.co_freevars]
        arguments = [code.co_flags, code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]]
        return [what, arguments, [self.of(constant) for constant in code.co_consts]]  # among them inner functions

    def _named(self, code: types.CodeType, around: Mapping[str, Any]) -> Any:
        """Describe what code refers to by name: global variables, what it uses of modules, and its own imports."""
        codes, said = _inner(code), _referred(code, around)
        names = {name for each in codes for name in each.co_names}
        modules = [value for value in said.values() if isinstance(value, types.ModuleType)]
        for module in [each for each in modules if not _version(each.__name__)]:
            said |= {f"{module.__name__}.{name}": getattr(module, name) for name in names if hasattr(module, name)}
        imports = {
            step.argval
            for each in codes
            if IMPORT_NAME in each.co_code[::2]
            for step in dis.get_instructions(each)
            if step.opcode == IMPORT_NAME
        }
        package = around.get("__package__") or ""
        return [self._mapping(said), [self._imported(name, package) for name in sorted(imports)]]

    def _class(self, cls: type) -> Any:
        """Describe the functions and values of a class, and of those that it inherits from."""
        said = []
        for each in cls.__mro__:
            version = _version_of(each)
            own = {key: value for key, value in vars(each).items() if not version and _computes(key, value)}
            said.append([f"{each.__module__}.{each.__qualname__}", version, self._mapping(own)])
        return said

    def _module(self, module: types.ModuleType) -> Any:
        if getattr(module, "__spec__", None) is None:  # made by a program
            return self._mapping({key: value for key, value in vars(module).items() if not key.startswith("__")})
        return self._imported(module.__name__, "")

    def _imported(self, name: str, package: str) -> Any:
        """Describe a module by its text and those that it imports, or the version of an installed one."""
        found = _spec(name, package)
        if found is None:
            return name
        if found.name not in self.modules:
            self.modules[found.name] = found.name
            version = _version(found.name) or (sys.version if _installed(str(found.origin)) else None)
            if version or not found.origin or not os.path.isfile(found.origin):
                self.modules[found.name] = [found.name, version]
            else:
                text = Path(found.origin).read_text(encoding="utf-8", errors="replace")
                around = found.name if found.submodule_search_locations is not None else found.parent or ""
                others = [self._imported(each, around) for each in IMPORTS.findall(text)]
                self.modules[found.name] = self.of([found.name, text, json.dumps(others)])
        return self.modules[found.name]

    def _wrapper(self, value: Any) -> Any:
        if isinstance(value, property):
            return [self.of(part) for part in (value.fget, value.fset)]
        if isinstance(value, functools.cached_property):
            return self.of(value.func)
        return [self.of(value.__func__), self.of(getattr(value, "__self__", None))]

    def _builtin(self, function: Any) -> Any:
        owner = getattr(function, "__self__", None)
        bound = None if owner is None or isinstance(owner, types.ModuleType) else self.of(owner)
        return [function.__name__, _version(getattr(function, "__module__", None) or "builtins"), bound]

    def _sequence(self, values: Sequence[Any]) -> Any:
        return [self.of(value) for value in values]

    def _set(self, values: set | frozenset) -> Any:
        return sorted(self.of(value) for value in values)

    def _mapping(self, values: Mapping[Any, Any]) -> Any:
        return [[str(key), self.of(values[key])] for key in sorted(values, key=str)]

    def _object(self, value: Any) -> Any:
        """Describe an object by its class, its attributes, and what `pickle` would store if that is another matter."""
        cls = type(value)
        attributes = {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in _slots(value)}}
        own = cls.__reduce__ is not object.__reduce__ or cls.__reduce_ex__ is not object.__reduce_ex__
        if attributes and not own:
            return [self.of(cls), self.of(attributes)]
        try:
            reduce = copyreg.dispatch_table.get(cls)
            stored = reduce(value) if reduce else value.__reduce_ex__(4)
        except TypeError:
            raise UnknownError(f"a {cls.__module__}.{cls.__qualname__} does not say what it is made of") from None
        if isinstance(stored, str):
            return [self.of(cls), self.of(attributes), stored]
        parts = [list(part) if isinstance(part, Iterator) else part for part in stored]
        return [self.of(cls), self.of(attributes), self.of(parts)]


KINDS: tuple[tuple[Any, Callable[[_Description, Any], Any]], ...] = (
    (PLAIN, _Description._plain),
    ((str, os.PathLike), _Description._text),
    (SILENT, _Description._nothing),
    ((np.ndarray, torch.Tensor), _Description._array),
    (nn.Module, _Description._network),
    (types.FunctionType, _Description._function),
    (types.CodeType, _Description._code),
    ((types.MethodType, staticmethod, classmethod, property, functools.cached_property), _Description._wrapper),
    (type, _Description._class),
    (types.ModuleType, _Description._module),
    (
        (types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType, np.ufunc),
        _Description._builtin,
    ),
    ((list, tuple), _Description._sequence),
    ((set, frozenset), _Description._set),
    (Mapping, _Description._mapping),
)
"""Kinds of values, the first that fits counts, and what describes them."""


def _file(path: str) -> tuple[str, int, int]:
    about = os.stat(path)
    return path, about.st_size, about.st_mtime_ns


@functools.cache
def _version(module: str | None) -> str | None:
    """Return the version of the installed package that a module is of; None if it is the user's own.

    Of this project in a clone, where it is edited, it is a digest of all its code.
    """
    top = (module or "").partition(".")[0]
    spec = getattr(sys.modules.get(module or ""), "__spec__", None)
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        return sys.version
    if _installed(str(spec.origin)):
        return str(getattr(sys.modules[top], "__version__", sys.version))
    return _digest(Path(sys.modules[top].__path__[0])) if top in OURS else None


@functools.cache
def _installed(file: str) -> bool:
    """Return whether a file is of Python or an installed package: pip keeps its records beside what it installs."""
    return file.startswith(PYTHON) or any(_has_records(folder) for folder in Path(file).parents)


@functools.cache
def _has_records(folder: Path) -> bool:
    return any(folder.glob("*.dist-info"))


@functools.cache
def _digest(package: Path) -> str:
    texts = [path.read_bytes() for path in sorted(package.rglob("*.py"))]
    return hashlib.sha256(b"".join(texts)).hexdigest()


def _version_of(cls: type) -> str | None:
    made = cls.__module__ == "builtins" and not hasattr(builtins, cls.__name__)  # by a program, in an empty namespace
    return None if made else _version(cls.__module__)


def _holds(module: Any, names: Mapping[str, Any]) -> bool:
    """Return whether the global variables of a function are those of a module, rather than a program's."""
    return module in sys.modules and vars(sys.modules[module]) is names


def _spec(name: str, package: str) -> ModuleSpec | None:
    """Return where a module is that a module of a package imports by this name, absolutely or relatively."""
    for each in (name, f".{name}"):
        try:
            if found := importlib.util.find_spec(each, package or None):
                return found
        except (ImportError, ValueError):  # there is none, or it was made by a program
            continue
    return None


def _inner(code: types.CodeType) -> list[types.CodeType]:
    """Return code, and that of the functions within it."""
    return [code, *(each for part in code.co_consts if isinstance(part, types.CodeType) for each in _inner(part))]


def _computes(key: str, value: Any) -> bool:
    """Return whether an entry of a class says what it computes, rather than what Python keeps about it."""
    kept = isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType) or key == "_abc_impl"
    return not kept and (not key.startswith("__") or callable(value))


def _slots(value: Any) -> list[str]:
    named = [vars(each).get("__slots__", ()) for each in type(value).__mro__]
    names = [name for some in named for name in ([some] if isinstance(some, str) else some)]
    return [name for name in names if hasattr(value, name)]
