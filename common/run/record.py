"""What a training run is made of, kept beside its checkpoints and compared when it is resumed."""

import json
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from pydoc import locate
from types import FunctionType
from typing import Any

import ignite.distributed as idist

from common import __version__
from common.cohorts import get_cohort
from common.cohorts.contents import content, unchecked
from common.cohorts.datalist import write_datalist
from common.cohorts.splits import PARTS, Parts
from common.io.digest import digest, own_code
from common.io.files import file_digest, replacing
from common.run.workflow import running
from common.text import shortened

logger = logging.getLogger(__name__)
RECORD, SPLIT = "run.json", "split.json"
"""In the output folder of a training: version, settings, and part -> case -> digest of its files; its datalist."""
NAMING = ("_target_", "backbone")
"""Keys of a config whose values are dotted names of classes or functions."""
NAME = re.compile(r"\w+(\.\w+)+")


def kept_cases(parts: Parts, output_dir: str | os.PathLike, resume: bool) -> Parts:
    """Return the parts of a run: those given, or if it is resumed, those that it was started with.

    Raises ValueError if a case is not there any more, or has other files now. Cases that are new are left out, with a
    warning.
    """
    if not (record := _record(output_dir) if resume else None):
        return parts
    kept, source = record["cases"], Path(output_dir, RECORD)
    items = {item["case"]: item for part in PARTS for item in parts[part]}
    known = {case: files for cases in kept.values() for case, files in cases.items()}
    if gone := [case for case in known if case not in items]:
        raise ValueError(
            f"{source}: the run was started with {len(known)} cases; {len(gone)} of them are not there any more "
            f"({shortened(gone)}). Put them back, or start anew in another output_dir."
        )
    if changed := [case for case, files in known.items() if digest(content(items[case])) != files]:
        raise ValueError(
            f"{source}: {len(changed)} of its {len(known)} cases have other images or labels now "
            f"({shortened(changed)}). Put the former ones back, or start anew in another output_dir."
        )
    if new := [case for case in items if case not in known]:
        logger.warning(
            f"{source}: {len(new)} cases are new since the run was started ({shortened(new)}). It goes on with its own "
            "split, without them."
        )
    return {part: [items[case] for case in kept[part]] for part in PARTS}


def require_same_training(parts: Parts, output_dir: str | os.PathLike) -> None:
    """Refuse a stage of a training by other cases than those of the stage before it, in the same folder.

    The network would have seen cases that are for validation or test now. Raises ValueError.
    """
    record = _record(output_dir)
    used = {item["case"] for item in parts["training"]}
    if record and (others := [case for case in record["cases"]["training"] if case not in used]):
        raise ValueError(
            f"{Path(output_dir, RECORD)}: the stage before this one was trained on {len(others)} cases that are not "
            f"for training now ({shortened(others)}). Use its cases, split and split_seed, or run `fit` in another "
            "output_dir."
        )


class RunRecord:
    """What a training is made of, to be written into its output folder when it starts.

    It is made while the workflow initialises, whose settings it takes. Of a resumed run it has to be what it was:
    raises ValueError as `require_same_settings` does.
    """

    def __init__(
        self, parts: Parts, cohort: str, dataset_dir: str, output_dir: str | os.PathLike, resume: bool
    ) -> None:
        self.parts, self.cohort, self.folder = parts, cohort, Path(output_dir)
        self.images = dataset_dir
        workflow = running()
        config = {} if workflow is None else workflow.parser.get()
        self.settings = dict(leaves(config))
        if resume:
            require_same_settings(config, output_dir)

    def write(self) -> None:
        """Write the record, and the cases as a datalist, on rank 0; say how many there are, and if unchecked."""
        if idist.get_rank() == 0:
            counts = ", ".join(f"{len(self.parts[part])} {part}" for part in PARTS)
            logger.info(f"{self.folder}: {get_cohort(self.cohort).name}, cases: {counts}")
            items = [item for part in PARTS for item in self.parts[part]]
            if self.cohort != "phantom" and (new := unchecked(items, self.images)):
                logger.warning(
                    f"{self.images}: {len(new)} of {len(items)} cases have not been checked for damage and for copies "
                    f"of a patient ({shortened(new)}): mmb check {self.cohort} {self.images}"
                )
            cases = {part: {item["case"]: digest(content(item)) for item in self.parts[part]} for part in PARTS}
            said = {"version": __version__, "settings": self.settings, "cases": cases}
            with replacing(self.folder / RECORD) as path:
                path.write_text(json.dumps(said, indent=1))
            write_datalist({"cohort": get_cohort(self.cohort).name, **self.parts}, self.folder / SPLIT)


def split_of_run(output_dir: str | os.PathLike, datalist: str | None) -> str | None:
    """Return the datalist of the run in a folder, which its evaluation uses, or if there is none, the one given."""
    path = Path(output_dir, SPLIT)
    return str(path) if path.is_file() else datalist


def require_same_settings(config: Mapping[str, Any], output_dir: str | os.PathLike) -> None:
    """Refuse to resume a run with other settings than it was started with, but for those that `_free_` lists."""
    record = _record(output_dir)
    if not record or not record["settings"]:
        return
    before, now = record["settings"], dict(leaves(config))
    keys = before.keys() & now.keys() if record["version"] != __version__ else before.keys() | now.keys()
    differ = [key for key in sorted(keys) if before.get(key) != now.get(key)]
    if differ:
        told = shortened([f"{key} was {before.get(key)!r}, is {now.get(key)!r}" for key in differ])
        raise ValueError(
            f"{Path(output_dir, RECORD)}: the run was started with other settings: {told}. Resume it with the same, "
            "or start anew in another output_dir."
        )


def _record(output_dir: str | os.PathLike) -> dict[str, Any] | None:
    """Return the record of a run that has a checkpoint."""
    path = Path(output_dir, RECORD)
    if not path.is_file() or not any(Path(output_dir).glob("*_last.pt")):
        return None
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"{path}: damaged ({error}). Start anew in another output_dir.") from None


def leaves(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield key and value of a config's texts, numbers and null that may not change when a run is resumed.

    The keys of ``_free_`` may: where and how it runs, for how long, and what is evaluated afterwards. Objects count by
    their class, classes and functions of the user's own by the content of their files, and files by theirs.
    """
    for key, value in config.items():
        if not (key in config.get("_free_", ()) or key.startswith("_")):
            yield from _leaves(value, key)


def _leaves(config: Any, key: str) -> Iterator[tuple[str, Any]]:
    if isinstance(config, Mapping | list | tuple):
        for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
            yield from _leaves(value, f"{key}#{name}")
    else:
        plain = config is None or isinstance(config, str | int | float)
        yield key, config if plain else type(config).__name__
        if isinstance(config, str) and len(config) < 4096 and os.path.isfile(config):
            yield f"the content of {config}", file_digest(config)
        if key.rpartition("#")[2] in NAMING and isinstance(config, str) and NAME.fullmatch(config):
            made = locate(config)
            if isinstance(made, type | FunctionType) and (code := own_code(made)):
                yield f"the code of {config}", code
