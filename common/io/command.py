"""What MONAI was told to run: the config files and settings, their check, and the errors that MONAI wraps."""

import difflib
import inspect
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from pydoc import locate
from typing import Any, NamedTuple

from monai.bundle import ConfigComponent, ConfigParser, ConfigWorkflow, create_workflow, load, run, update_kwargs

from common.io.settings import flag, optional
from common.text import shortened

AROUND = ("imports", "initialize", "finalize")
"""Lists of a config that MONAI runs before and after the steps."""
VARIABLE = re.compile(r"\$(?!None$)(\w+|\{\w+\})(/.*)?", re.ASCII | re.DOTALL)
"""A path that begins with a variable of the shell; a config's expressions are longer."""


class Given(NamedTuple):
    """What MONAI was told to run: config files, settings over them, and the list of steps."""

    files: list[str]
    settings: dict[str, Any]
    step: str


def is_command() -> bool:
    """Return whether this process is ``python -m monai.bundle``, so that errors end in one line."""
    return getattr(sys.modules["__main__"].__spec__, "name", None) == "monai.bundle.__main__"


def given_run() -> Given | None:
    """Return what MONAI was told to run, by a command or by a program; None if a program built the workflow itself.

    `monai.bundle.run` and ``python -m monai.bundle run`` both call `monai.bundle.create_workflow`. MONAI hands none of
    its arguments on to the expressions of a config, so they are read where they are: on the stack.
    """
    frame = inspect.currentframe()
    while frame is not None and frame.f_code is not create_workflow.__code__:
        frame = frame.f_back
    if frame is None or (frame.f_back and frame.f_back.f_code is load.__code__):  # which only wants the network
        return None
    options, files = frame.f_locals["kwargs"], frame.f_locals["config_file"]
    if frame.f_locals["args_file"]:
        stored = update_kwargs(frame.f_locals["args_file"])
        null = {key: "null" for key, value in stored.items() if value is None}  # which MONAI does not leave out
        options = update_kwargs(stored | null, ignore_none=False, **options)
        files = files or options.get("config_file")
    own = {*inspect.signature(run).parameters, *inspect.signature(ConfigWorkflow).parameters}
    settings = {key.replace("::", "#"): value for key, value in options.items() if key not in own}
    return Given([files] if isinstance(files, str) else list(files or ()), settings, options.get("run_id") or "run")


def config_folder() -> Path | None:
    """Return the folder of the first config file of the workflow that evaluates this; None outside a workflow."""
    folder = getattr(_workflow(), "config_root_path", None)
    return Path(folder).absolute() if folder else None


def running_config() -> ConfigParser | None:
    """Return the merged config, with settings over it, of the workflow that evaluates this; None outside a workflow."""
    workflow = _workflow()
    return None if workflow is None else workflow.parser


def _workflow() -> ConfigWorkflow | None:
    frame = inspect.currentframe()
    while frame is not None and not isinstance(frame.f_locals.get("self"), ConfigWorkflow):
        frame = frame.f_back
    return frame.f_locals["self"] if frame else None


def check_step(step: str, config: ConfigParser) -> None:
    """Refuse to run what is no list of steps of a config: MONAI would build another key's value and do nothing."""
    steps = [key for key, value in config.get().items() if key not in AROUND and _is_steps(value)]
    if step not in steps:
        raise ValueError(f"run {step}: not a list of steps of these configs; expected one of {', '.join(steps)}.")


def reached_steps(step: str, config: ConfigParser) -> list[str]:
    """Return the expressions of a list of steps, and of the lists that it refers to."""
    lines: list[str] = []
    for line in config.get(step):
        inner = config.get(line[1:]) if line[0] == "@" else None
        lines += reached_steps(line[1:], config) if _is_steps(inner) else [line.replace("::", "#")]
    return lines


def recipe_names() -> list[str]:
    """Return the names of the config files after the first one that MONAI was given; known while it initialises."""
    given = given_run()
    return [Path(file).name for file in given.files[1:]] if given else []


def check_settings(
    files: Sequence[str], settings: Mapping[str, Any], bundle_root: str | os.PathLike | None = None
) -> None:
    """Refuse settings that config files cannot be given, before anything runs.

    A key has to be in the merged files, except that an object accepts the arguments of its class, and
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
    for key, value in {**config.get(), **settings}.items():
        if key.endswith(("_dir", "_path")) and value is not None:
            _require_path(key, value)
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


def _require_path(key: str, value: Any) -> None:
    """Refuse what MONAI reads as something else than a path: a list, ``1``, ``#``, ``~`` and ``$HOME``."""
    if isinstance(value, list | tuple):
        raise ValueError(f"{key} {value!r}: expected one path; mmb ensemble puts several networks into one file.")
    if not isinstance(value, str | os.PathLike):
        raise ValueError(f"{key} {value!r}: MONAI reads this as no text; write it as a path, e.g. ./{value}.")
    if str(value)[:1] == "~" or VARIABLE.fullmatch(str(value)):
        raise ValueError(f"{key} {value}: only a shell replaces ~ and variables, and not here; write the whole path.")
    if str(value)[:1] not in ("$", "@", "%") and any(mark in str(value) for mark in ("#", "::")):
        raise ValueError(f"{key} {value}: MONAI takes # for ::, and the folder would have another name; rename it.")


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
        taken = _arguments(above, config) if isinstance(above, dict) and "_target_" in above else []
        known = key in config or taken is None or inner in taken
        above = dict.fromkeys(taken) if taken else above
    if not known:
        names = list(above) if isinstance(above, dict) else []
        if isinstance(above, list):
            names = [f"0 to {len(above) - 1}"]
        near = difflib.get_close_matches(inner, names, n=1)
        hint = f"did you mean {key.removesuffix(inner)}{near[0]}?" if near else f"expected one of {shortened(names)}."
        raise ValueError(f"{key!r} is not a key of {', '.join(map(str, files))}; {hint}")


def _arguments(item: Mapping[str, Any], config: ConfigParser) -> list[str] | None:
    """Return the names of the arguments of an object's class or function; None if it may take any."""
    component = ConfigComponent(dict(item), locator=config.locator)
    target = component.resolve_module_name()
    made = locate(target) if isinstance(target, str) and target[:1] not in ("$", "@", "%") else None
    try:
        parameters = inspect.signature(made).parameters.values() if callable(made) else ()
    except ValueError:  # a class that is not written in Python
        return None
    if not parameters or any(each.kind is each.VAR_KEYWORD for each in parameters):
        return None
    return [*(each.name for each in parameters), *component.non_arg_keys]
