"""The workflow that evaluates a config, and how its run ends if it fails."""

import inspect
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser, ConfigWorkflow, load
from torch import nn

from common.io import bundle, checkpoints
from common.io.errors import unwrapped_errors
from common.text import printable

AROUND = ("imports", "initialize", "finalize")
"""Lists of a config that MONAI runs before and after the steps."""


def running() -> ConfigWorkflow | None:
    """Return the workflow whose config is being evaluated; None outside of one.

    MONAI hands it to no expression of a config, so it is looked for among those who called this.
    """
    selves = (frame.f_locals.get("self") for frame in _callers())
    return next((each for each in selves if isinstance(each, ConfigWorkflow)), None)


def lends_its_network() -> bool:
    """Return whether the workflow is that of `monai.bundle.load`, which only takes the network of a config."""
    return any(frame.f_code is load.__code__ for frame in _callers())


def _callers() -> Iterator[FrameType]:
    frame = inspect.currentframe()
    while frame is not None:
        yield frame
        frame = frame.f_back


@contextmanager
def refused() -> Iterator[None]:
    """End a command that meets a ValueError or OSError with one line that says why; a program gets the error itself."""
    try:
        with unwrapped_errors():
            yield
    except (ValueError, OSError) as error:
        if not is_command():
            raise
        raise SystemExit(f"error: {printable(str(error))}") from None  # which MONAI does not wrap


start_from = refused()(checkpoints.start_from)


@refused()
def load_weights(network: nn.Module, path: str) -> None:
    """Load a network's weights by `common.io.checkpoints`; for `monai.bundle.load`, only require all (ValueError)."""
    if lends_its_network():
        for values in filter(torch.is_floating_point, network.state_dict().values()):
            values.fill_(torch.nan)  # which that leaves where the file has no weights that fit
        network.register_load_state_dict_post_hook(_require_all)
    else:
        checkpoints.load_weights(network, path)


def _require_all(network: nn.Module, _: object) -> None:
    values = network.state_dict()
    if lacking := [name for name in values if values[name].isnan().any()]:
        what = f"{len(lacking)} of the network's {len(values)} weights, e.g. {lacking[0]}, are not in the file"
        raise ValueError(f"{what}, which is of another network: give `model_file` or `net_override` (docs/bundles.md).")


def bundle_root(name: str) -> str:
    """Return the folder of a bundle: that of the running workflow's configs, or as `common.io.bundle.bundle_root`."""
    workflow = running()
    return bundle.bundle_root(name, None if workflow is None else workflow.config_root_path)


def is_command() -> bool:
    """Return whether this process is ``python -m monai.bundle``, so that errors end in one line."""
    return getattr(sys.modules["__main__"].__spec__, "name", None) == "monai.bundle.__main__"


def run_engine(engine: Engine) -> None:
    """Run an engine, so that of a command that fails the last line says why, in place of MONAI's expressions.

    The traceback is that of the error itself, without those of the errors that MONAI wraps around it.
    """
    try:
        with unwrapped_errors():
            engine.run()
    except Exception as error:
        if not is_command():
            raise
        traceback.print_exception(error)
        raise SystemExit(1) from None  # which MONAI does not wrap


def steps_of(config: ConfigParser, run_id: str) -> list[str]:
    """Return the expressions of a list of steps, and of the lists that it refers to.

    Raises ValueError if it is no list of steps: MONAI would build another key's value and do nothing.
    """
    lists = [key for key, value in config.get().items() if key not in AROUND and is_steps(value)]
    if run_id not in lists:
        raise ValueError(f"run {run_id}: not a list of steps of these configs; expected one of {', '.join(lists)}.")
    lines: list[str] = []
    for line in config.get(run_id):
        inner = line[0] == "@" and is_steps(config.get(line[1:]))
        lines += steps_of(config, line[1:]) if inner else [line.replace("::", "#")]
    return lines


def is_steps(value: object) -> bool:
    """Return whether a config's value is a list of expressions and references."""
    return isinstance(value, list) and bool(value) and all(isinstance(s, str) and s[:1] in "$@" for s in value)


def configs_of(bundle_root: str, names: Sequence[str]) -> list[str]:
    """Return the paths of configs of a bundle; FileNotFoundError if one is not there."""
    folder = Path(bundle_root, "configs")
    for name in [names] if isinstance(names, str) else names:
        if not (folder / name).is_file():
            raise FileNotFoundError(f"evaluation_configs {name}: no such file in {folder}.")
    return [str(folder / name) for name in ([names] if isinstance(names, str) else names)]
