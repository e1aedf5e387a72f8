"""``python -m monai.bundle run``: the words it was started with, their check, and the errors that MONAI wraps."""

import difflib
import inspect
import os
import re
import sys
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fire.parser import DefaultParseValue
from monai.bundle import ConfigParser, run, update_kwargs

from common.io.settings import flag, optional
from common.text import shortened

OPTION = re.compile("--|-[A-Za-z]")
"""How a word begins that Fire takes for an option."""
AROUND = ("imports", "initialize", "finalize")
"""Lists of a config that MONAI runs before and after the steps."""


def is_run() -> bool:
    """Return whether this process is ``python -m monai.bundle run``."""
    return sys.argv[0].replace(os.sep, "/").endswith("monai/bundle/__main__.py")


def given_run() -> tuple[list[str], dict[str, Any]]:
    """Return the config files and the settings that ``python -m monai.bundle run`` was given."""
    options = _typed()[1]
    own, files = inspect.signature(run).parameters, options.get("config_file", [])
    settings = {key.replace("::", "#"): value for key, value in options.items() if key not in own}
    return [files] if isinstance(files, str) else list(files), settings


def given_step() -> str:
    """Return the list of steps that ``python -m monai.bundle run`` was told to run."""
    words, options = _typed()
    return words[1] if len(words) > 1 else options.get("run_id", "run")


def check_step(step: str, config: ConfigParser) -> None:
    """Refuse to run what is no list of steps of a config: MONAI would build another key's value and do nothing."""
    steps = [key for key, value in config.get().items() if key not in AROUND and _is_steps(value)]
    if step not in steps:
        raise ValueError(f"run {step}: not a list of steps of these configs; expected one of {', '.join(steps)}.")


def recipe_names() -> list[str]:
    """Return the names of the config files after the first one that ``python -m monai.bundle run`` was given."""
    return [Path(file).name for file in given_run()[0][1:]]


def check_settings(
    files: Sequence[str], settings: Mapping[str, Any], bundle_root: str | os.PathLike | None = None
) -> None:
    """Refuse settings that config files cannot be given, before anything runs.

    A key has to be in the merged files, except that an object accepts any argument of its class, and
    ``evaluation#overrides`` any key of the evaluation's own configs. A number cannot become a text, nor a flag anything
    but a flag, unless the text is null or an expression (``$...``, ``@...``, ``%...``).

    Args:
        files: config files; later ones override earlier ones.
        settings: key -> value. A nested key has all keys above it, e.g. ``train#optimizer#lr``.
        bundle_root: folder of the bundle; by default that of the first file.
    """
    for file in files:
        try:
            content = ConfigParser.load_config_file(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not a JSON config ({error}).") from error
        if file != files[0] and {"initialize", "run"} <= {*content}:
            raise ValueError(f"{file}: would undo {files[0]}; give it first, and recipes after it.")
    config = ConfigParser(ConfigParser.load_config_files(list(files)))
    folder = Path(bundle_root, "configs") if bundle_root else Path(files[0]).parent
    for key, value in settings.items():
        _require_key(key, config, files, folder)
        own = config.get(key)
        if isinstance(value, str) and (value[:1] in ("$", "@", "%") or optional(value) is None):
            continue
        if isinstance(own, bool) and value is not None:
            flag(key, value)
        elif isinstance(own, int | float) and isinstance(value, str):
            raise ValueError(f"{key} {value!r}: expected a number, such as {own}.")


def require_null(settings: Mapping[str, Any], config: ConfigParser) -> None:
    """Refuse None for a key that has a value: MONAI leaves None out, and the value would stay; null sets it."""
    for key, value in settings.items():
        if value is None and optional(config.get(key)) is not None:
            raise ValueError(f"{key} None: MONAI leaves this out, and {config[key]!r} would stay; write null.")


@contextmanager
def unwrapped_errors() -> Iterator[None]:
    """Raise an error itself instead of the RuntimeErrors that MONAI wraps around it."""
    try:
        yield
    except RuntimeError as error:
        cause: BaseException = error
        while isinstance(cause, RuntimeError) and cause.__cause__ is not None:
            cause = cause.__cause__
        if cause is error:
            raise
        raise cause from None


def _typed() -> tuple[list[str], dict[str, Any]]:
    """Return the words of ``python -m monai.bundle run`` that are no options, and the options with their values.

    Words are read as Fire reads them. The options include MONAI's own, and those of its ``--args_file``.
    """
    rest = deque(sys.argv[1:] if is_run() else ())
    words: list[str] = []
    options: dict[str, Any] = {}
    while rest and rest[0] != "--":  # what follows is for Fire itself
        word = rest.popleft()
        if not OPTION.match(word):
            words.append(word)
            continue
        option, equals, text = word.lstrip("-").partition("=")
        option = option.replace("-", "_")
        if not equals and rest and not OPTION.match(rest[0]):
            text = rest.popleft()
        elif not equals:
            off = option.startswith("no") and option not in inspect.signature(run).parameters
            option, text = (option[2:], "False") if off else (option, "True")
        read = options[option] = DefaultParseValue(text)
        if option.endswith(("_dir", "_path")) and read is not None and str(read) != text.strip("'\""):
            raise ValueError(f"--{option} {text}: MONAI reads this as {read!r}; write it as a path, e.g. ./{text}.")
    if file := options.get("args_file"):
        options = update_kwargs(file, ignore_none=False, **options)
    return words, options


def _is_steps(value: Any) -> bool:
    """Return whether a config's value is a list of expressions and references."""
    return isinstance(value, list) and bool(value) and all(isinstance(step, str) and step[:1] in "$@" for step in value)


def _require_key(key: str, config: ConfigParser, files: Sequence[str], folder: Path) -> None:
    """Refuse a key that config files do not have and may not be given; ``folder`` has the evaluation's configs."""
    outer, _, inner = key.rpartition("#")
    if outer == "evaluation#overrides":
        above = ConfigParser.load_config_files([str(folder / name) for name in config["evaluation_configs"]])
        known = inner in above
    else:
        if outer:
            _require_key(outer, config, files, folder)
        above = config.get(outer)
        known = isinstance(above, dict | list) and ("_target_" in above or key in config)
    if not known:
        names = list(above) if isinstance(above, dict) else []
        near = difflib.get_close_matches(inner, names, n=1)
        hint = f"did you mean {key.removesuffix(inner)}{near[0]}?" if near else f"expected one of {shortened(names)}."
        raise ValueError(f"{key!r} is not a key of {', '.join(map(str, files))}; {hint}")
