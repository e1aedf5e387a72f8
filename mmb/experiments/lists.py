"""Lists of the methods that a leaderboard trains and the published tables that it prints, checked before it runs."""

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from common.cohorts import get_cohort
from common.cohorts.splits import CROSS_VALIDATION, PARTS, official_splits, require_split
from common.evaluation.metrics.conventions import Conventions
from common.io.bundle import bundle_root
from common.io.documents import Document, read_json
from common.run.keys import check_config
from mmb.experiments.paper_tables.published import published
from mmb.experiments.paper_tables.tables import Block
from mmb.experiments.training import Entry

OWN_SETTINGS = ("cohort", "dataset_dir", "method", "output_dir", "resume")
"""Config keys that the leaderboard sets itself, so that a list cannot set them."""
NAME = re.compile(r"[^-$@%=][^=]*")
"""Pattern of a method's name: MONAI does not parse it as anything else, and it can be the name in ``NAME=FOLDER``."""


def _checked_names(methods: dict[str, Any]) -> dict[str, Any]:
    for name in methods:
        if not NAME.fullmatch(name) or not name.isprintable():
            raise ValueError(f"{name!r}; expected a name on one line, without = and not starting with - $ @ %")
    return methods


def _checked_settings(settings: dict[str, Any]) -> dict[str, Any]:
    if own := [key for key in settings if key in OWN_SETTINGS]:
        raise ValueError(f"{own[0]!r} is set by the leaderboard itself; leave it out")
    return settings


Settings = Annotated[dict[str, Any], AfterValidator(_checked_settings)]


class Method(Document):
    """A method in a list's file: its bundle, config files over ``train.json``, and config keys to set."""

    bundle: str
    configs: tuple[str, ...] = ()
    settings: Settings = Field(default_factory=dict)


class Table(Document):
    """A published table (paper, table, dataset) and its rows: name in the paper -> method of the list, or a reason."""

    published: tuple[str, str, str]
    rows: dict[str, str | dict[Literal["unavailable"], str]]


class ListFile(Document):
    """A list's file; see `read_list`."""

    methods: Annotated[dict[str, Method], AfterValidator(_checked_names)]
    settings: Settings = Field(default_factory=dict)
    cohort: str | None = None
    folds: tuple[str, ...] = ()
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class MethodList:
    """The content of a list's file.

    Attributes:
        entries: methods of the list.
        cohort: name of the only cohort that the list is for; None for any.
        folds: all folds of one cross-validation, on each of which every method is trained; empty if each method is
            trained on the split of its own configs.
        blocks: published tables to print the results in.
        notes: notes for the reader of these tables.
    """

    entries: tuple[Entry, ...]
    cohort: str | None = None
    folds: tuple[str, ...] = ()
    blocks: tuple[Block, ...] = ()
    notes: tuple[str, ...] = ()

    def trainings(self) -> list[Entry]:
        """Return all trainings: one per method, or with folds one per method and fold."""
        return [training for entry in self.entries for training in self.trainings_of(entry)]

    def trainings_of(self, entry: Entry) -> list[Entry]:
        """Return the trainings of one method; with folds, each is named after method and fold."""
        return [
            replace(entry, name=f"{entry.name}, {fold}", settings={**entry.settings, "split": fold})
            for fold in self.folds
        ] or [entry]


def read_list(path: str | os.PathLike, cohort: str | None = None) -> MethodList:
    """Read a list of methods and check everything in it that can be checked without data.

    Keys of the JSON file, of which only ``methods`` is required (keys that begin with ``_`` are comments):

    - ``methods``: name of each method -> ``bundle``, and optionally ``configs`` (files over its ``train.json``, in
      the bundle's configs or beside the list) and ``settings`` (config keys to set, which override those for all);
    - ``settings``: config keys to set for all methods;
    - ``cohort``: name of the only cohort that the list is for;
    - ``folds``: see `MethodList`;
    - ``tables``: published tables, each with ``published`` (paper, table, dataset as in
      `mmb.experiments.paper_tables.published.sources`) and ``rows``: name of a method in the published table -> name
      of a method of the list, or ``{"unavailable": "why it cannot be trained here"}``;
    - ``notes``: lines to print below these tables.
    """
    read = read_json(path, ListFile, "See docs/evaluate.md.")
    with _said_of(path):
        if read.cohort and cohort not in (None, read.cohort):
            raise ValueError(f"the list is for cohort {read.cohort}, not for {cohort}; leave --cohort out.")
        folder = Path(os.path.abspath(path)).parent
        entries = tuple(_entry(name, method, read.settings, folder) for name, method in read.methods.items())
        blocks = tuple(_block(table, list(read.methods)) for table in read.tables)
        made = MethodList(entries, read.cohort, read.folds, blocks, read.notes)
        _require_consistent(made, get_cohort(cohort or read.cohort or "phantom").name)
    return made


@contextmanager
def _said_of(what: str | os.PathLike) -> Iterator[None]:
    """Put what an error is about at the beginning of its message."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{what}: {error}") from error
    except (TypeError, ValueError) as error:
        raise ValueError(f"{what}: {error}") from error


def _entry(name: str, method: Method, shared: Mapping[str, Any], folder: Path) -> Entry:
    """Return a method of a list that lies in ``folder``."""
    with _said_of(f"method {name!r}"):
        configs = tuple(_config(config, method.bundle, folder) for config in method.configs)
        entry = Entry(name, method.bundle, configs, {**shared, **method.settings})
        check_config(entry.config())
    return entry


def _config(name: str, bundle: str, folder: Path) -> str:
    """Return the name of a file in the bundle's configs, or the path of one beside the list."""
    inside, beside = Path(bundle_root(bundle), "configs", name), folder / name
    if ".." not in Path(name).parts and inside.is_file():
        return name
    if not beside.is_file():
        raise FileNotFoundError(f"{name}: no such config of {bundle}, nor beside the list ({beside}).")
    return str(beside)


def _block(table: Table, methods: Sequence[str]) -> Block:
    numbers, where = published(*table.published), " ".join(table.published)
    for names, known, kind in (
        (table.rows, list(numbers["method"].unique()), "method"),
        ([row for row in table.rows.values() if isinstance(row, str)], methods, "method of the list"),
    ):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"{where}: {unknown[0]!r} is no {kind}; expected one of {', '.join(known)}.")
    trained = {name: row for name, row in table.rows.items() if isinstance(row, str)}
    reasons = {name: row["unavailable"] for name, row in table.rows.items() if isinstance(row, dict)}
    return Block(table.published, tuple(table.rows), trained, reasons)


def _require_consistent(made: MethodList, cohort: str) -> None:
    """Refuse configs (except the phantom's), and splits of other cohorts, and differing conventions."""
    if made.folds:
        require_folds(cohort, made.folds)
    first: dict[str, Any] = {}
    for entry in made.entries:
        with _said_of(f"method {entry.name!r}"):
            config = entry.config()
            if config["cohort"] not in ("phantom", None, cohort):
                raise ValueError(f"{', '.join(entry.configs)} are for cohort {config['cohort']}, not for {cohort}.")
            if made.folds and "split" in entry.settings:
                raise ValueError("has a split, which has no effect with folds; leave one out.")
            if not made.folds and cohort != "phantom":
                require_split(cohort, config["split"])
            conventions = asdict(Conventions(**config["conventions"]))
            first = first or conventions
            if differing := [key for key in first if conventions[key] != first[key]]:
                key, name = differing[0], made.entries[0].name
                raise ValueError(f"'conventions#{key}' is {conventions[key]!r}, but {first[key]!r} for {name!r}.")


def require_folds(cohort: str, folds: Sequence[str]) -> None:
    """Refuse splits that are not the complete set of folds of one cross-validation; the data need not be present."""
    for fold in folds:
        require_split(cohort, fold)
    drawn, splits = [match for fold in folds if (match := CROSS_VALIDATION.fullmatch(fold))], official_splits(cohort)
    if len(drawn) == len(folds):
        whole = sorted(int(fold[1]) for fold in drawn) == list(range(1, int(drawn[0][2]) + 1))
        whole = whole and len({fold[2] for fold in drawn}) == 1
    else:
        parts = [splits[fold] for fold in folds if fold in splits]
        tested = sorted(case for part in parts for case in part["test"])
        whole = len(parts) == len(folds) and tested == sorted({c for part in parts for p in PARTS for c in part[p]})
    if not whole or cohort == "phantom":
        raise ValueError(
            f"folds {', '.join(folds)} of {cohort} are not all folds of one cross-validation, each given once; "
            "expected cv1of3, cv2of3 and cv3of3, or the like."
        )
