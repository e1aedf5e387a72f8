"""Conversion of a command line into a function call: Fire splits it, and the annotations define the types."""

import difflib
import inspect
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial, wraps
from types import NoneType, UnionType
from typing import Any, get_args, get_origin, get_type_hints

import fire
from fire.parser import DefaultParseValue

fire.decorators.FIRE_METADATA = "__fire_metadata__"  # Fire's help hides attributes whose names begin with __
OF_FIRE = ("help", "h")  # options that Fire handles itself
_KEPT = object()  # what a verb returns to Fire, which returns something else if it has applied surplus words to it


def parse(
    program: Mapping[str, Callable[..., None]] | Callable[..., None], words: Sequence[str], name: str = "tools"
) -> Callable[[], None]:
    """Return the call that a command line requests, without making it; print help if requested.

    Fire alone would call a function before refusing surplus arguments, and would read words as Python literals: a
    folder ``2024_01`` as the number 202401, ``out#1`` as ``out``. So words annotated as text are kept as typed. Raises
    ValueError if a verb or option is unknown (the message suggests the nearest one), or a word does not fit its
    annotation; SystemExit if Fire has printed help, or which argument is missing or surplus.

    Args:
        program: a function, or the verbs of several: name -> function. Their parameters are annotated as text, numbers,
            flags, sequences of these, or a dict; further options that a function takes (``**``) are text.
        words: words of the command line, without the program's name.
        name: name of the module that ``python -m`` runs.
    """
    calls: list[Callable[[], None]] = []
    if callable(program):
        if "--help" in words:
            words = ["--", "--help"]  # of a function with further options, Fire would take --help for one of them
        _check_options(program, words, name)
        component: Any = _kept(program, calls)
    else:
        _check_verb(program, words, name)
        component = {verb: _kept(function, calls) for verb, function in program.items()}
    found = fire.Fire(component, list(words), name, lambda result: None if calls else result)
    if calls and found is not _KEPT:
        verb = "" if callable(program) else f"{words[0]} "
        raise ValueError(f"{' '.join(words)}: too many words; see python -m {name} {verb}--help.")
    return calls[0] if calls else lambda: None


def _kept(verb: Callable[..., None], calls: list[Callable[[], None]]) -> Callable[..., None]:
    """Return a function for Fire to call instead of a verb; it stores the call, to be made if Fire refuses nothing."""

    @wraps(verb)
    def keep(*args: Any, **kwargs: Any) -> Any:
        calls.append(partial(verb, *args, **kwargs))
        return _KEPT

    parsers = {name: partial(_value, name, hint) for name, hint in get_type_hints(verb).items() if name != "return"}
    return fire.decorators.SetParseFn(str)(fire.decorators.SetParseFns(**parsers)(keep))


def _check_verb(verbs: Mapping[str, Callable[..., None]], words: Sequence[str], program: str) -> None:
    """Refuse an unknown verb, and what `_check_options` refuses."""
    if not words or words[0].startswith("-"):
        return
    name = words[0].replace("-", "_")
    if name not in verbs:
        raise ValueError(f"{words[0]}: no such verb; {_near(name, list(verbs))}see python -m {program} --help.")
    _check_options(verbs[name], words[1:], f"{program} {name}")


def _check_options(function: Callable[..., None], words: Sequence[str], name: str) -> None:
    """Refuse unknown options, and an option without a value, which Fire would set to "True"."""
    hints, parameters = get_type_hints(function), inspect.signature(function).parameters.values()
    named = [one.name for one in parameters if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)]
    others = any(one.kind == one.VAR_KEYWORD for one in parameters)
    for word, following in zip(words, [*words[1:], "--"], strict=True):
        if word == "--":  # the rest is for Fire, which ignores unknown options silently
            foreign = fire.parser.CreateParser().parse_known_args(words[list(words).index("--") + 1 :])[1]
            if foreign:
                raise ValueError(f"{foreign[0]}: options after -- are for Fire itself, which has no such option.")
            return
        option, equals, _ = word.removeprefix("--").partition("=")
        key = option.replace("-", "_")
        if not word.startswith("--") or key in OF_FIRE or hints.get(key.removeprefix("no")) is bool:
            continue
        if key not in named and not others:
            near = _near(key, named, "--")
            raise ValueError(f"--{option}: no such option of {name.split()[-1]}; {near}see python -m {name} --help.")
        if not equals and following.startswith("--"):
            raise ValueError(f"--{option}: expected a value after it.")


def _near(word: str, known: Sequence[str], dashes: str = "") -> str:
    """Return a question that suggests the most similar name, if there is one, else an empty text."""
    near = difflib.get_close_matches(word, known, n=1)
    return f"did you mean {dashes}{near[0]}? Else " if near else ""


def _value(name: str, hint: Any, text: str) -> Any:
    """Return a word converted to the type of a parameter's annotation, or raise a ValueError."""
    kinds = get_args(hint) if isinstance(hint, UnionType) else (hint,)
    if not text:
        raise ValueError(f"--{name}: expected a value, not an empty one.")
    if text == "None" and NoneType in kinds:
        return None
    for kind in kinds:
        if get_origin(kind) is Sequence:
            inner = text[1:-1] if text[:1] + text[-1:] in ("[]", "()") else text
            if inner != text or "," in text:
                parts = [part.strip(" '\"") for part in inner.split(",")]
                return [_value(name, get_args(kind)[0], part) for part in parts if part]
        if kind in (str, Sequence[str]):
            return text
        if kind in _KINDS:
            expected, read = _KINDS[kind]
            with suppress(KeyError, ValueError, MemoryError, RecursionError):
                return read(text)
            raise ValueError(f"--{name} {text}: expected {expected}.")
    raise ValueError(f"--{name} {text}: expected several values, separated by commas.")


def _dict(text: str) -> dict[str, Any]:
    if not isinstance(found := DefaultParseValue(text), dict):
        raise ValueError(text)
    return found


_KINDS: dict[type, tuple[str, Callable[[str], Any]]] = {
    int: ("a whole number", int),
    float: ("a number", float),
    bool: ("true or false", lambda text: {"true": True, "false": False}[text.lower()]),
    dict: ("names and values such as \"{'t1c': 7}\"", _dict),
}
"""Type of a parameter -> description of it, and function that reads it."""
