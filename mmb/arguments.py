"""Words of a command line, which argparse reads by the signature and the docstring of the function to call."""

import argparse
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

from mmb.extras import MissingExtraError

REFUSALS = (
    *(ValueError, FileNotFoundError, FileExistsError, IsADirectoryError, PermissionError, BlockingIOError),
    MissingExtraError,
)
"""Errors about a user's options and files, of which a program's main says one line instead of a traceback."""
EXPECTED = {int: "a whole number", float: "a number", bool: "true or false"}


def parse_verb(
    groups: Mapping[str, Mapping[str, Callable[..., None]]], words: Sequence[str], program: str
) -> Callable[[], None]:
    """Return the call that a command line requests from a program with verbs; print help if that is requested.

    Raises ValueError if there is no such verb, and what `parse` raises.

    Args:
        groups: title of a group of verbs -> name of a verb -> its function.
        words: the words after the program's name.
        program: what a user types before the verb.
    """
    verbs = {name: verb for group in groups.values() for name, verb in group.items()}
    if not words or words[0] in ("-h", "--help"):
        print(f"usage: {program} VERB ...\n\n{program} VERB --help describes a verb.")
        for title, group in groups.items():
            print("\n".join([f"\n{title}", *(f"  {name:20}{_summary(verb)}" for name, verb in group.items())]))
        raise SystemExit(0)
    name = words[0].replace("-", "_")
    if name not in verbs:
        raise ValueError(f"{words[0]}: no such verb; see {program} --help.")
    return parse(verbs[name], words[1:], f"{program} {name}")


def parse(function: Callable[..., None], words: Sequence[str], program: str) -> Callable[[], None]:
    """Return the call of a function that a command line requests, without making it; print help if that is requested.

    Parameters without a default, or before a ``/``, are words in their order, or options; the others are options. A
    word with a default, or that may be None, may be left out. The annotation says how a word is read: as text, a
    number, a flag (alone, or followed by ``true`` or ``false``), a sequence (``1,2`` or ``[1,2]``) or a dict (``t1c=7
    flair=4``). Further options (``**``) are text, and have a dot in their name.

    Raises SystemExit after help, and with status 2 if words do not fit.
    """
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters.values()
    description, _, listed = (inspect.getdoc(function) or "").partition("\nArgs:\n")
    texts = dict(re.findall(r"^ {4}(\w+): (.*?)(?=\n {4}\w|\Z)", listed, re.M | re.S))
    parser = argparse.ArgumentParser(program, description=description, allow_abbrev=False)
    words = [re.sub("^--[^=]+", lambda option: "--" + option[0][2:].replace("-", "_"), word) for word in words]
    flags = [f"--{name}" for name, hint in hints.items() if hint is bool]
    words = [  # else argparse would take any word after a flag for its value
        f"{word}=true" if word in flags and following.lower() not in ("true", "false") else word
        for word, following in zip(words, [*words, ""][1:], strict=True)
    ]
    given = [word[2:].partition("=")[0] for word in words if word.startswith("--")]
    others = {name for name in given if "." in name and any(p.kind is p.VAR_KEYWORD for p in parameters)}
    for name in others:
        parser.add_argument(f"--{name}", help=argparse.SUPPRESS)
    for p in parameters:
        if p.kind is not p.VAR_KEYWORD:
            _add(parser, p, hints[p.name], texts.get(p.name, ""), p.name in given)
    values = vars(parser.parse_intermixed_args(words))
    defaults = {p.name: p.default for p in parameters if p.default is not p.empty}
    values = {name: defaults.get(name) if value is None else value for name, value in values.items()}
    values |= {name: dict(values[name]) for name, hint in hints.items() if dict in get_args(hint) and values[name]}
    first = [values.pop(p.name) for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    more = [word for p in parameters if p.kind is p.VAR_POSITIONAL for word in values.pop(p.name)]
    return partial(function, *first, *more, **values)


def _add(parser: argparse.ArgumentParser, p: inspect.Parameter, hint: Any, text: str, given_by_name: bool) -> None:
    """Add a parameter of a function to a parser, with its text of the docstring as help."""
    how: dict[str, Any] = {"type": partial(_read, hint), "metavar": p.name.upper()}
    how["help"] = " ".join(text.replace("%", "%%").split())
    if p.kind is p.VAR_POSITIONAL:
        parser.add_argument(p.name, nargs="*", **how)
    elif p.default is p.empty or p.kind is p.POSITIONAL_ONLY:
        if not given_by_name and (p.default is not p.empty or NoneType in get_args(hint)):
            how["nargs"] = "?"
        parser.add_argument(f"--{p.name}" if given_by_name else p.name, **how)
    elif hint is bool:
        parser.add_argument(f"--{p.name}", nargs="?", **how | {"metavar": "true"})
    elif dict in get_args(hint):
        parser.add_argument(f"--{p.name}", nargs="+", action="extend", **how | {"metavar": "NAME=VALUE"})
    else:
        parser.add_argument(f"--{p.name}", **how)


def _read(hint: Any, text: str) -> Any:
    """Return a word converted to the type of a parameter's annotation."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    kind = kinds[0]
    if not text:
        raise argparse.ArgumentTypeError("expected a value, not an empty one")
    if text == "None" and NoneType in kinds:
        return None
    if kind is dict:
        name, equals, value = text.partition("=")
        if not equals:
            raise argparse.ArgumentTypeError(f"{text}: expected NAME=VALUE")
        return name, None if value.lower() == "none" else value
    if get_origin(kind) is Sequence:
        inner = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
        return [_read(get_args(kind)[0], part.strip(" '\"")) for part in inner.split(",")]
    try:
        return {"true": True, "false": False}[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise argparse.ArgumentTypeError(f"{text}: expected {EXPECTED[kind]}") from None


def fields_of(kind: type, name: str, given: Mapping[str, str] | None) -> dict[str, Any]:
    """Return the fields of a dataclass that the option ``name`` gives as NAME=VALUE, each read as its annotation says.

    Raises ValueError if there is no such field, or a value is not of its kind.
    """
    hints = get_type_hints(kind)
    values = {}
    for key, text in (given or {}).items():
        if key not in hints:
            raise ValueError(f"--{name} {key}: expected some of {', '.join(hints)}.")
        try:
            values[key] = _read(hints[key], text or "None")
        except argparse.ArgumentTypeError as error:
            raise ValueError(f"--{name} {key}: {error}.") from None
    return values


def _summary(function: Callable[..., None]) -> str:
    """Return the first sentence of a docstring."""
    return (inspect.getdoc(function) or "").partition("\n")[0]
