"""Fingerprints of inputs, settings and code, by which stale results are recognised.

An object is described by its class and its state, a class by its functions, and a function by what Python compiled of
it, its defaults, the variables that it encloses, and all that it refers to by name: constants, functions, modules. Of
code in an installed package, the version is enough.
"""

import copyreg
import dis
import functools
import hashlib
import importlib.util
import json
import logging
import os
import sys
import sysconfig
import threading
import types
import weakref
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
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
IMPORT_NAME = dis.opmap["IMPORT_NAME"]
OURS = ("common", "mmb")
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
KEPT = vars(nn.Module()).keys() - {"training"}
"""Attributes in which PyTorch keeps a network's parts."""
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
"""Types whose text says all of a value; one of a subclass is described as an object."""
SILENT = (
    np.random.RandomState,
    torch.Generator,
    logging.Logger,
    type(threading.Lock()),
    type(threading.RLock()),
    threading.local,
)
"""What has no part in a result, and may come and go with use; every random transform has a state of the first kind, set
anew in each epoch."""


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


def own_code(code: type | types.FunctionType) -> str:
    """Return the fingerprint of a class or function of the user's; empty for one of an installed package, or unknown.

    Example:
        >>> from common.io.fingerprint import own_code
        >>> from monai.transforms import Spacingd
        >>> own_code(Spacingd), len(own_code(lambda image: image * 2))
        ('', 16)
    """
    installed = _version_of(code) if isinstance(code, type) else _version_of_function(code)
    try:
        return "" if installed else fingerprint(code)
    except UnknownError:
        return ""


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
    names = _names(_inner(code))
    said = {name: around[name] for name in sorted(names) if name in around and name != REFERENCES}
    if REFERENCES in names:
        said |= {key: value for key, value in around.get(REFERENCES, {}).items() if key in names}
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
            describe = BUILTIN.get(type(value)) or next(
                (describe for kinds, describe in KINDS if isinstance(value, kinds)), _Description._object
            )
            said = json.dumps([self.of(type(value)), describe(self, value)])
            self.known[id(value)] = hashlib.sha256(said.encode()).hexdigest()
        return self.known[id(value)]

    def _plain(self, value: Any) -> Any:
        return repr(value)

    def _text(self, value: str | os.PathLike) -> Any:
        return [str(value), _file(str(value)) if len(str(value)) < 4096 and os.path.isfile(value) else None]

    def _nothing(self, value: Any) -> Any:
        return None

    def _array(self, value: np.ndarray) -> Any:
        if value.dtype.hasobject:
            return [value.dtype.str, self.of(value.tolist())]
        return [value.dtype.descr, value.shape, hashlib.sha256(np.ascontiguousarray(value).data).hexdigest()]

    def _tensor(self, value: torch.Tensor) -> Any:
        numbers = value.detach().cpu().to_dense().as_subclass(torch.Tensor)
        if numbers.is_floating_point() and numbers.itemsize < 4:
            numbers = numbers.float()  # NumPy has no bfloat16
        return [str(value.dtype), self._array(numbers.numpy()), self.of(vars(value))]

    def _network(self, network: nn.Module) -> Any:
        """Describe each part's class, attributes and hooks, and the buffers that no weights file has."""
        said = []
        for name, part in network.named_modules():
            told = {key: value for key, value in vars(part).items() if key not in KEPT}
            told |= {key: list(vars(part)[key].values()) for key in HOOKS}  # their keys are counted in each process
            unsaved = {key: part._buffers[key] for key in part._non_persistent_buffers_set}
            said.append([name, self.of(type(part)), self._mapping({**told, **unsaved})])
        return said

    def _function(self, function: types.FunctionType) -> Any:
        name, version = f"{function.__module__}.{function.__qualname__}", _version_of_function(function)
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
        modules = [value for value in said.values() if isinstance(value, types.ModuleType)]
        for module in [each for each in modules if not _version(each.__name__)]:
            used = sorted(name for name in _names(codes) if hasattr(module, name))
            said |= {f"{module.__name__}.{name}": getattr(module, name) for name in used}
        return [self._mapping(said), self._imports(codes, around.get("__package__") or "")]

    def _class(self, cls: type) -> Any:
        """Describe the functions and values of a class, and of those that it inherits from."""
        said = []
        for each in cls.__mro__:
            version = _version_of(each)
            own = {key: value for key, value in vars(each).items() if not version and _computes(key, value)}
            said.append([f"{each.__module__}.{each.__qualname__}", version, self._mapping(own)])
        return said

    def _module(self, module: types.ModuleType) -> Any:
        if (spec := getattr(module, "__spec__", None)) is None:  # made by a program
            return self._mapping({key: value for key, value in vars(module).items() if not key.startswith("__")})
        return self._imported(spec)

    def _imports(self, codes: Sequence[types.CodeType], package: str) -> Any:
        """Describe the modules that code imports, and those of a package of the user's that it takes from there."""
        said: list[Any] = []
        for name, parts in _imported(codes):
            if (found := _spec(name, package)) is None:
                said.append(name)
                continue
            own = found.submodule_search_locations is not None and not _installed(str(found.origin))
            inner = [_spec(f"{found.name}.{part}", "") for part in parts if own]
            said += [self._imported(each) for each in (found, *inner) if each is not None]
        return said

    def _imported(self, found: ModuleSpec) -> Any:
        """Describe a module by its text and those that it imports, or the version of an installed one."""
        if found.name not in self.modules:
            self.modules[found.name] = found.name
            version = _version(found.name) or (sys.version if _installed(str(found.origin)) else None)
            if version or not found.origin or not os.path.isfile(found.origin):
                self.modules[found.name] = [found.name, version]
            else:
                text = Path(found.origin).read_bytes()
                package = found.name if found.submodule_search_locations is not None else found.parent or ""
                try:
                    codes = _inner(compile(text, found.origin, "exec", dont_inherit=True))
                except (SyntaxError, ValueError):  # not Python's, or not yet
                    codes = []
                self.modules[found.name] = self.of([found.name, text, json.dumps(self._imports(codes, package))])
        return self.modules[found.name]

    def _wrapper(self, value: Any) -> Any:
        if isinstance(value, property):
            return [self.of(part) for part in (value.fget, value.fset)]
        if isinstance(value, functools.cached_property):
            return self.of(value.func)
        return [self.of(value.__func__), self.of(getattr(value, "__self__", None))]

    def _reference(self, reference: weakref.ReferenceType) -> Any:
        return self.of(reference())

    def _builtin(self, function: Any) -> Any:
        if function.__name__.endswith(" (vectorized)"):
            raise UnknownError(f"{function.__name__}, by numpy.frompyfunc, does not say what it is made of")
        owner, module = getattr(function, "__self__", None), getattr(function, "__module__", None) or "builtins"
        bound = None if owner is None or isinstance(owner, types.ModuleType) else self.of(owner)
        return [function.__name__, _version(module), bound]

    def _sequence(self, values: Sequence[Any]) -> Any:
        return [self.of(value) for value in values]

    def _set(self, values: set | frozenset) -> Any:
        return sorted(self.of(value) for value in values)

    def _mapping(self, values: Mapping[Any, Any]) -> Any:
        """Describe keys and values in their order, which may be that of steps."""
        plain = (str, *PLAIN)
        return [
            [repr(key) if type(key) in plain else self.of(key), self.of(value)]
            for key, value in values.items()
            if not isinstance(value, SILENT)
        ]

    def _object(self, value: Any) -> Any:
        """Describe an object by its attributes and by what `pickle` would store, which may be another matter."""
        cls = type(value)
        attributes = {**getattr(value, "__dict__", {}), **{name: getattr(value, name) for name in _slots(value)}}
        try:
            reduce = copyreg.dispatch_table.get(cls)
            stored = reduce(value) if reduce else value.__reduce_ex__(4)
        except Exception:  # of a class of any origin
            raise UnknownError(f"a {cls.__module__}.{cls.__qualname__} does not say what it is made of") from None
        parts = stored if isinstance(stored, str) else [list(p) if isinstance(p, Iterator) else p for p in stored]
        return [self.of(attributes), self.of(parts)]


BUILTIN: dict[type, Callable[[_Description, Any], Any]] = {
    **dict.fromkeys(PLAIN, _Description._plain),
    str: _Description._text,
    np.ndarray: _Description._array,
    **dict.fromkeys((list, tuple), _Description._sequence),
    **dict.fromkeys((set, frozenset), _Description._set),
    **dict.fromkeys((dict, types.MappingProxyType), _Description._mapping),
}
"""Types, without their subclasses, and what describes their values."""
KINDS: tuple[tuple[Any, Callable[[_Description, Any], Any]], ...] = (
    (os.PathLike, _Description._text),
    (SILENT, _Description._nothing),
    (np.memmap, _Description._array),
    (torch.Tensor, _Description._tensor),
    (nn.Module, _Description._network),
    (types.FunctionType, _Description._function),
    (types.CodeType, _Description._code),
    ((types.MethodType, staticmethod, classmethod, property, functools.cached_property), _Description._wrapper),
    (type, _Description._class),
    (types.ModuleType, _Description._module),
    (weakref.ReferenceType, _Description._reference),
    (
        (
            *(types.BuiltinFunctionType, types.WrapperDescriptorType, types.MethodDescriptorType),
            *(types.ClassMethodDescriptorType, np.ufunc),
        ),
        _Description._builtin,
    ),
)
"""Kinds of other values, the first that fits counts, and what describes them."""


def _file(path: str) -> tuple[str, int, int]:
    about = os.stat(path)
    return path, about.st_size, about.st_mtime_ns


@functools.cache
def _version(module: str | None) -> str | None:
    """Return the version of the installed package that a module is of; None if it is the user's own.

    Of this project in a clone, where it is edited, it is a digest of all its code.
    """
    spec = getattr(sys.modules.get(module or ""), "__spec__", None)
    if spec is None:
        return None
    if spec.origin in ("built-in", "frozen"):
        return sys.version
    top = str(module).partition(".")[0]
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
    """Return the version of the package of a class; None for one that its module does not hold, made by a program."""
    held = hasattr(sys.modules.get(cls.__module__), cls.__qualname__.partition(".")[0])
    return _version(cls.__module__) if held else None


def _version_of_function(function: types.FunctionType) -> str | None:
    """Return the version of the package of a function; None for one whose global variables are not a module's."""
    names = function.__globals__
    module = names.get("__name__")
    return _version(module) if module in sys.modules and vars(sys.modules[module]) is names else None


def _spec(name: str, package: str) -> ModuleSpec | None:
    """Return where a module is that a module of a package imports by this name, with dots before a relative one."""
    try:
        return importlib.util.find_spec(name, package or None)
    except Exception:  # there is none, it was made by a program, or the package that holds it cannot be imported
        return None


def _imported(codes: Sequence[types.CodeType]) -> list[tuple[str, Collection[str]]]:
    """Return the modules that code imports, with dots before relative ones, and the names that it takes from each."""
    found: list[tuple[str, Collection[str]]] = []
    for code in codes:
        if IMPORT_NAME in code.co_code[::2]:
            steps = [step for step in dis.get_instructions(code) if step.opname != "EXTENDED_ARG"]
            for level, parts, step in zip(steps, steps[1:], steps[2:], strict=False):
                if step.opcode == IMPORT_NAME:
                    found.append(("." * level.argval + step.argval, parts.argval or ()))
    return found


def _inner(code: types.CodeType) -> list[types.CodeType]:
    """Return code, and that of the functions within it."""
    return [code, *(each for part in code.co_consts if isinstance(part, types.CodeType) for each in _inner(part))]


def _names(codes: Sequence[types.CodeType]) -> set[str]:
    """Return the names that code refers to, and its texts, which may be names too, as in ``globals()["gain"]``."""
    texts = {text for each in codes for text in each.co_consts if isinstance(text, str)}
    return texts.union(*(each.co_names for each in codes))


def _computes(key: str, value: Any) -> bool:
    """Return whether an entry of a class says what it computes, rather than what Python keeps about it."""
    kept = isinstance(value, types.GetSetDescriptorType | types.MemberDescriptorType) or key == "_abc_impl"
    return not kept and (not key.startswith("__") or callable(value) or hasattr(type(value), "__get__"))


def _slots(value: Any) -> list[str]:
    named = [vars(each).get("__slots__", ()) for each in type(value).__mro__]
    names = [name for some in named for name in ([some] if isinstance(some, str) else some)]
    return [name for name in names if hasattr(value, name)]
