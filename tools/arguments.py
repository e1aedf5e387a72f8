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

OF_FIRE = ("help", "h")  # options that Fire handles itself
_KEPT = object()  # value that Fire returns for a valid command line, in which it finds no members for surplus words


def parse(verbs: Mapping[str, Callable[..., None]], words: Sequence[str]) -> Callable[[], None]:
    """Return the call that a command line requests, without making it; print help if requested.

    Fire alone would call a function before refusing surplus arguments, and would read words as Python literals: a
    folder ``2024_01`` as the number 202401, ``out#1`` as ``out``. So words annotated as text are kept as typed. Raises
    ValueError if a verb or option is unknown (the message suggests the nearest one), or a word does not fit its
    annotation; SystemExit if Fire has printed help, or which argument is missing or surplus.

    Args:
        verbs: name -> function, whose parameters are annotated as text, numbers, flags, sequences of these, or a dict.
        words: words of the command line, without the program's name.
    """
    _check_words(verbs, words)
    calls: list[Callable[[], None]] = []
    verbs = {name: _kept(verb, calls) for name, verb in verbs.items()}
    found = fire.Fire(verbs, list(words), "tools", lambda result: None if calls else result)
    if calls and found is not _KEPT:
        raise ValueError(f"{' '.join(words)}: too many words; see python -m tools {words[0]} --help.")
    return calls[0] if calls else lambda: None


def _kept(verb: Callable[..., None], calls: list[Callable[[], None]]) -> Callable[..., None]:
    """Return a function for Fire to call instead of a verb; it stores the call, to be made if Fire refuses nothing."""

    @wraps(verb)
    def keep(*args: Any, **kwargs: Any) -> Any:
        calls.append(partial(verb, *args, **kwargs))
        return _KEPT

    parsers = {name: partial(_value, name, hint) for name, hint in get_type_hints(verb).items() if name != "return"}
    return fire.decorators.SetParseFn(str)(fire.decorators.SetParseFns(**parsers)(keep))


def _check_words(verbs: Mapping[str, Callable[..., None]], words: Sequence[str]) -> None:
    """Refuse unknown verbs and options, and an option without a value, which Fire would set to "True"."""
    if not words or words[0].startswith("-"):
        return
    name = words[0].replace("-", "_")
    if name not in verbs:
        raise ValueError(f"{words[0]}: no such verb; {_near(name, list(verbs))}see python -m tools --help.")
    hints = get_type_hints(verbs[name])
    named = [one.name for one in inspect.signature(verbs[name]).parameters.values() if one.kind != one.VAR_POSITIONAL]
    for word, following in zip(words[1:], [*words[2:], "--"], strict=False):
        if word == "--":  # the rest is for Fire, which ignores unknown options silently
            foreign = fire.parser.CreateParser().parse_known_args(words[list(words).index("--") + 1 :])[1]
            if foreign:
                raise ValueError(f"{foreign[0]}: options after -- are for Fire itself, which has no such option.")
            return
        option, equals, _ = word.removeprefix("--").partition("=")
        key = option.replace("-", "_")
        if not word.startswith("--") or key in OF_FIRE or hints.get(key.removeprefix("no")) is bool:
            continue
        if key not in named:
            near = _near(key, named, "--")
            raise ValueError(f"--{option}: no such option of {name}; {near}see python -m tools {name} --help.")
        if not equals and following.startswith("--") and hints[key] is not bool:
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
