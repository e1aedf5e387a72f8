"""Keys of a config that nobody reads, and values of the wrong kind."""

import difflib
import inspect
import itertools
import os
import re
from collections.abc import Iterator, Mapping
from pydoc import locate
from typing import Any

from monai.bundle import ConfigComponent, ConfigParser
from monai.bundle.utils import DEFAULT_EXP_MGMT_SETTINGS

from common.io.settings import check_choice, check_number
from common.run.workflow import is_steps
from common.text import shortened

REFERENCE = re.compile(r"@(\w+(?:(?:::|#)\w+)*)")
VARIABLE = re.compile(r"\$(?!None$)(\w+|\{\w+\})(/.*)?", re.ASCII | re.DOTALL)
"""A path that begins with a variable of the shell; a config's expressions are longer."""
LAST = ("initialize", "run", "finalize")
"""The last keys of a bundle's own files. What comes after them was added, by an overlay or a setting."""
OF_MONAI = frozenset(ConfigParser(DEFAULT_EXP_MGMT_SETTINGS)["mlflow#configs"])
"""Keys that MONAI itself sets, to follow a run."""
KINDS: dict[str, tuple[str, Any]] = {
    "bool": ("true or false", bool),
    "int": ("a whole number", int),
    "float": ("a number", int | float),
    "str": ("text", str),
}
WORDS = {"true": True, "false": False, "null": None}
"""Words of JSON that a command line gives as text: MONAI's reads those of Python alone."""
Config = Mapping[str, Any]


def check_config(config: Config) -> None:
    """Refuse a merged config with a key that nobody reads, or a value that cannot be used.

    A key that was added to a bundle's own has to be referred to (``@key``), begin with an underscore, or be listed in
    ``_unread_``, as an overlay's own keys are: what reads them may be replaced in turn. An object takes what its class
    takes; where the class asks for a number or a text, a plain value has to be one. ``_allowed_`` gives the range or
    the choices of keys.

    Raises:
        ValueError: naming the key, what was found and what was expected.
    """
    before = list(itertools.takewhile(lambda key: key != "imports", config))
    if "imports" in config and (early := [key for key in before if key[0] != "_"]):
        raise ValueError(
            f"{early[0]}: the bundle's own file comes after it and would undo it. Give recipes after that file."
        )
    used = {name.replace("#", "::") for text in _texts(config) for name in REFERENCE.findall(text)}
    for key, known in _unread(config, used):
        near = difflib.get_close_matches(key.rpartition("#")[2], known, n=1)
        outer = key.rpartition("#")[0]
        hint = f"did you mean {f'{outer}#' * bool(outer)}{near[0]}?" if near else f"expected one of {shortened(known)}."
        raise ValueError(f"{key!r} is not a key of this config, and nothing refers to it; {hint}")
    parser = ConfigParser(config)
    for place, item in _objects(config):
        _check_object(place, item, parser)
    for key, value in config.items():
        if key.endswith(("_dir", "_path")) and value is not None:
            _require_path(key, value)
    for key, allowed in config.get("_allowed_", {}).items():
        given: Any = config.get(key)
        if not _is_text_of_config(given) and given is not None:
            choices = isinstance(allowed[0], str | bool)
            check_choice(key, given, allowed) if choices else check_number(key, given, *allowed)


def read_words(config: ConfigParser) -> None:
    """Give ``true``, ``false`` and ``null`` among the settings their values, before one of them is used."""
    for key, value in config.get().items():
        if isinstance(value, str) and value in WORDS:
            config.get()[key] = WORDS[value]
            config.ref_resolver.items[key].update_config(WORDS[value])


def check_files(config: Config) -> None:
    """Refuse paths of a merged config that do not exist, of the keys in ``_files_``, with FileNotFoundError."""
    for key in config.get("_files_", ()):
        path: Any = config.get(key)
        if not _is_text_of_config(path) and path is not None and not os.path.isfile(path):
            raise FileNotFoundError(f"{key} {path}: no such file.")
    folder = config.get("dataset_dir")
    if folder is not None and not _is_text_of_config(folder) and not os.path.isdir(folder):
        raise FileNotFoundError(f"dataset_dir {folder}: no such folder.")


def _is_text_of_config(value: Any) -> bool:
    """Return whether a value is an expression, a reference or a macro."""
    return isinstance(value, str) and value[:1] in ("$", "@", "%")


def _texts(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping | list):
        for value in config.values() if isinstance(config, Mapping) else config:
            yield from _texts(value)
    elif _is_text_of_config(config):
        yield config


def _unread(config: Config, used: set[str]) -> Iterator[tuple[str, list[str]]]:
    """Yield keys that nothing refers to, with the keys beside them, of the top level and of its sections."""
    names = [*config]
    added = names[1 + max((names.index(key) for key in LAST if key in config), default=-1) :]
    known = {*config.get("_unread_", ()), *config.get("_given_", ())}
    if "train" not in config and config.get("_recipes_"):
        added = []  # a training's recipe over inference.json has keys that inference does not read
    for key in added:
        unread = not (_is_used(key, used) or is_steps(config[key]) or key in known)
        if unread and key[0] != "_" and key not in OF_MONAI:
            yield key, [name for name in names if name != key and _is_used(name, used)]
    for key, section in config.items():
        if isinstance(section, Mapping) and "_target_" not in section and key[0] != "_" and key not in used:
            read = [name for name in section if _is_used(f"{key}::{name}", used)]
            for name, value in section.items():
                computed = _is_text_of_config(value) or (isinstance(value, Mapping) and "_target_" in value)
                if read and name not in read and not computed and name[0] != "_":
                    yield f"{key}#{name}", [each for each in section if each != name]


def _is_used(key: str, used: set[str]) -> bool:
    return key in used or any(name.startswith(f"{key}::") for name in used)


def _objects(config: Any, place: str = "") -> Iterator[tuple[str, Config]]:
    """Yield the place and the description of each object of a config, but of those that are disabled."""
    if isinstance(config, Mapping) and config.get("_disabled_") is True:
        return
    if isinstance(config, Mapping) and isinstance(config.get("_target_"), str):
        yield place, config
    if isinstance(config, Mapping | list):
        for key, value in config.items() if isinstance(config, Mapping) else enumerate(config):
            yield from _objects(value, f"{place}#{key}" if place else str(key))


def _check_object(place: str, item: Config, config: ConfigParser) -> None:
    """Refuse arguments that a class or function does not have, and plain values of another kind than it asks for."""
    component = ConfigComponent(dict(item), locator=config.locator)
    target = component.resolve_module_name()
    made = locate(target) if isinstance(target, str) and not _is_text_of_config(target) else None
    if not callable(made) or item.get("_mode_") == "callable":
        return
    try:
        taken = inspect.signature(made).parameters
    except ValueError:  # a class that is not written in Python
        return
    open_ended = any(each.kind is each.VAR_KEYWORD for each in taken.values())
    for name, value in item.items():
        if name in component.non_arg_keys or name[0] == "_":
            continue
        if name not in taken:
            if open_ended:
                continue
            near = difflib.get_close_matches(name, [*taken], n=1)
            hint = f"did you mean {place}#{near[0]}?" if near else f"expected one of {shortened([*taken])}."
            raise ValueError(f"{place}#{name} is not an argument of {target}; {hint}")
        key, given = f"{place}#{name}", value
        while isinstance(given, str) and REFERENCE.fullmatch(given):
            key, given = given[1:], config.get(given[1:])
        expected, kinds = KINDS.get(_kind(taken[name]), ("", object))
        plain = given is not None and not _is_text_of_config(given)
        if plain and (not isinstance(given, kinds) or (isinstance(given, bool) and kinds not in (bool, object))):
            raise ValueError(f"{key} {given!r}: expected {expected} ({name} of {target}).")


def _kind(parameter: inspect.Parameter) -> str:
    """Return the name of the type that an argument is annotated with, without that it may be None."""
    return str(getattr(parameter.annotation, "__name__", parameter.annotation)).removesuffix(" | None")


def _require_path(key: str, value: Any) -> None:
    """Refuse what MONAI reads as something else than a path: a list, ``1``, ``#``, ``~`` and ``$HOME``."""
    if isinstance(value, list | tuple):
        raise ValueError(f"{key} {value!r}: expected one path; mmb ensemble puts several networks into one file.")
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{key} {value!r}: MONAI does not read this as text; write it as a path, e.g. ./{value}.")
    if str(value)[:1] == "~" or VARIABLE.fullmatch(str(value)):
        raise ValueError(f"{key} {value}: ~ and variables are not replaced here; write the whole path.")
    if not _is_text_of_config(value) and any(mark in str(value) for mark in ("#", "::")):
        raise ValueError(f"{key} {value}: MONAI reads # as ::, so the folder would get another name; rename it.")
