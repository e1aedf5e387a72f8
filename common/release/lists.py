"""Lists of the methods that a leaderboard trains and the published tables that it prints, checked before it runs."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.cohorts import COHORTS, get_cohort
from common.cohorts.datalist import require_folds, require_split
from common.evaluation.analysis.published import published
from common.evaluation.metrics.conventions import METRICS, Conventions
from common.evaluation.report.paper_tables import Block
from common.io.bundle import bundle_root, is_key
from common.io.settings import refuse_texts_for_numbers

KEYS = ("settings", "methods", "cohort", "folds", "tables", "notes")
METHOD_KEYS = ("bundle", "configs", "variant", "settings")
TABLE_KEYS = ("published", "rows")
OWN_SETTINGS = ("cohort", "dataset_dir", "method", "output_dir", "resume")
"""Config keys that the leaderboard sets itself, so that a list cannot set them."""
NAME = re.compile(r"[^-$@%=][^=]*")
"""Pattern of a method's name: MONAI does not parse it as anything else, and it can be the name in ``NAME=FOLDER``."""


@dataclass(frozen=True)
class Entry:
    """A method of a list.

    Attributes:
        name: name of the method in tables.
        bundle: name of the bundle.
        configs: names of config files in the bundle's ``configs``, merged over its ``train.json``.
        settings: config keys to set, with their values.
    """

    name: str
    bundle: str
    configs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """Paths of the config files; later ones override earlier ones."""
        return [str(Path(bundle_root(self.bundle), "configs", name)) for name in ("train.json", *self.configs)]

    def config(self) -> dict[str, Any]:
        """Return the merged configs with the settings over them; references and expressions are not resolved."""
        parser = ConfigParser(ConfigParser.load_config_files(self.files))
        parser.update(dict(self.settings))
        return parser.get()


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
        if not self.folds:
            return [entry]
        return [
            replace(entry, name=f"{entry.name}, {fold}", settings={**entry.settings, "split": fold})
            for fold in self.folds
        ]


def read_list(path: str | os.PathLike, cohort: str | None = None) -> MethodList:
    """Read a list of methods and check everything in it that can be checked without data.

    The key ``methods`` is required; the others are optional:

    - ``settings``: config keys to set for all methods, with their values;
    - ``cohort``: name of the only cohort that the list is for;
    - ``folds``: see `MethodList`;
    - ``tables``: published tables, each with ``published`` (paper, table, dataset as in
      `common.evaluation.analysis.published.sources`) and ``rows``: name of a method in the published table -> name of a
      method of the list, or ``{"unavailable": "why it cannot be trained here"}``;
    - ``notes``: lines to print below these tables.

    ``methods`` maps the name of each method to

    - ``bundle``: name of the bundle;
    - ``configs``: config files of the bundle that are merged over its ``train.json``;
    - ``variant``: the file of an ablation and the name of one of its variants. The variant's settings are applied, and
      the ablation's configs are used unless ``configs`` names others;
    - ``settings``: config keys to set; they override the variant's and those for all methods.

    All of these except ``bundle`` are optional. Keys that begin with ``_`` are comments.

    Args:
        path: path of the JSON file.
        cohort: name of the cohort to train on; None for the list's own cohort, or the phantom if it has none.

    Raises:
        FileNotFoundError: if the list, a bundle or a config does not exist.
        ValueError: if the list does not have this form, or a name in it occurs twice; if a setting is not a key of the
            bundle's configs, is a text where they have a number, or has no effect; if a split, a published table, a
            method or a variant does not exist; if the folds are not those of one cross-validation; if the list, a
            method's config or a published table is for another cohort; or if the methods' conventions differ, so that
            their results could not be compared.
    """
    content = Path(path).read_bytes()
    try:
        made = _parse(json.loads(content, object_pairs_hook=_unique))
        for entry in made.entries:
            _require_known(entry)
        if made.cohort and cohort not in (None, made.cohort):
            raise ValueError(f"the list is for cohort {made.cohort}, not for {cohort}; leave --cohort out")
        trained_on = get_cohort(cohort or made.cohort or "phantom").name
        _require_cohort(made, trained_on)
        _require_splits(made, trained_on)
        _require_same_conventions(made.entries)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"{path}: {error}") from error
    except (RecursionError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: not a list of methods ({error}); expected methods, each with a bundle, see docs/evaluate.md."
        ) from error
    except ValueError as error:
        raise ValueError(f"{path}: {str(error).rstrip('.')}.") from error
    return made


def _unique(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; refuse duplicate names, of which the JSON reader would silently keep the last."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise ValueError(f"{name!r} occurs twice; expected each name and key once")
        found[name] = value
    return found


def _parse(read: Any) -> MethodList:
    _require_keys("the list", read, KEYS, "methods")
    if "cohort" in read:
        get_cohort(str(read["cohort"]))
    shared, folds = _settings("the list", read), _texts("folds", read.get("folds", []))
    entries = tuple(_entry(name, made, shared) for name, made in _object("methods", read["methods"]).items())
    names, tables = [entry.name for entry in entries], read.get("tables", [])
    if not isinstance(tables, list):
        raise ValueError(f"tables is {tables!r}; expected a list")
    blocks = tuple(_block(made, names) for made in tables)
    sources = [block.source for block in blocks]
    if twice := [source for source in sources if sources.count(source) > 1]:
        raise ValueError(f"tables has {' '.join(twice[0])} twice; expected it once")
    if not blocks and len(entries) < 2:
        raise ValueError(f"methods has {', '.join(names) or 'none'}; without tables, name two or more to compare")
    return MethodList(entries, read.get("cohort"), folds, blocks, _texts("notes", read.get("notes", [])))


def _object(where: str, found: Any) -> dict[str, Any]:
    if not isinstance(found, dict):
        raise ValueError(f"{where} is {found!r}; expected a JSON object")
    return found


def _texts(where: str, found: Any) -> tuple[str, ...]:
    if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
        raise ValueError(f"{where} is {found!r}; expected a list of texts")
    return tuple(found)


def _require_keys(where: str, found: Any, expected: Sequence[str], *needed: str) -> None:
    """Refuse anything but a JSON object that has all needed keys and only expected ones."""
    listed = f"{', '.join(expected[:-1])} and {expected[-1]}"
    if foreign := sorted(key for key in _object(where, found) if key not in expected and not key.startswith("_")):
        raise ValueError(f"{where} has {foreign[0]!r}; expected {listed}")
    if absent := [key for key in needed if key not in found]:
        raise ValueError(f"{where} has no {absent[0]!r}; expected {listed}")


def _settings(where: str, read: Mapping[str, Any]) -> dict[str, Any]:
    settings = _object(f"settings of {where}", read.get("settings", {}))
    if own := [key for key in settings if key in OWN_SETTINGS]:
        raise ValueError(f"settings of {where} has {own[0]!r}, which the leaderboard sets itself; leave it out")
    return settings


def _entry(name: str, made: Any, shared: Mapping[str, Any]) -> Entry:
    if not NAME.fullmatch(name) or not name.isprintable():
        raise ValueError(f"methods has {name!r}; expected a name on one line, without = and not starting with - $ @ %")
    _require_keys(name, made, METHOD_KEYS, "bundle")
    if not isinstance(made["bundle"], str):
        raise ValueError(f"{name} has bundle {made['bundle']!r}; expected a name such as m3ae")
    configs, settings = _texts(f"configs of {name}", made.get("configs", [])), dict(shared)
    if "variant" in made:
        ablation, variant = _variant(name, made)
        configs = configs or tuple(config for config in ablation["configs"] if config != "train.json")
        settings |= variant
    for config in ("train.json", *configs):
        _config_file(name, made["bundle"], config)
    return Entry(name, made["bundle"], configs, settings | _settings(name, made))


def _config_file(name: str, bundle: str, config: str) -> Path:
    """Return the path of a bundle's config.

    Raises:
        FileNotFoundError: if the bundle or the config does not exist.
        ValueError: if the config is not in the bundle's configs.
    """
    if Path(config).is_absolute() or ".." in Path(config).parts:
        raise ValueError(f"method {name!r}: config {config!r}; expected the name of a file in the bundle's configs")
    try:
        path = Path(bundle_root(bundle), "configs", config)
    except FileNotFoundError as error:
        raise FileNotFoundError(f"method {name!r}: {error}") from error
    if not path.is_file():
        raise FileNotFoundError(f"method {name!r}: {path}: no such config.")
    return path


def _variant(name: str, made: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return an ablation's config, and the settings of the variant that a method uses."""
    given = _texts(f"variant of {name}", made["variant"])
    if len(given) != 2:
        raise ValueError(f"variant of {name} is {made['variant']!r}; expected an ablation's file and a variant of it")
    file, variant = given
    ablation = ConfigParser.load_config_file(_config_file(name, made["bundle"], file))
    variants = ablation.get("variants", {})
    if variant not in variants:
        there = "; ".join(variants) or "none"
        raise ValueError(f"{name} is variant {variant!r} of {file}, which has {there}")
    return ablation, variants[variant]


def _block(made: Any, methods: Sequence[str]) -> Block:
    _require_keys("a table", made, TABLE_KEYS, *TABLE_KEYS)
    source = _texts("published of a table", made["published"])
    if len(source) != 3:
        raise ValueError(f"published of a table is {list(source)!r}; expected paper, table and dataset")
    where, table = " ".join(source), published(*source)
    rows, printed = _object(f"rows of {where}", made["rows"]), list(table["method"].unique())
    if not table["metric"].isin(METRICS).any():
        raise ValueError(f"{where} has only {', '.join(table['metric'].unique())}; expected a metric measured here")
    if not rows:
        raise ValueError(f"rows of {where} is empty; expected some of {', '.join(printed)}")
    trained, reasons = {}, {}
    for name, method in rows.items():
        if name not in printed:
            raise ValueError(f"{where} has no method {name!r}; expected one of {', '.join(printed)}")
        if isinstance(method, str):
            if method not in methods:
                raise ValueError(
                    f"row {name!r} of {where} is method {method!r}, which is not in the list; the list has "
                    f"{', '.join(methods) or 'none'}"
                )
            trained[name] = method
        else:
            reasons[name] = method.get("unavailable") if isinstance(method, dict) and len(method) == 1 else None
            if not isinstance(reasons[name], str) or not reasons[name]:
                raise ValueError(
                    f"row {name!r} of {where} is {method!r}; expected a method of the list, or "
                    '{"unavailable": "why it cannot be trained here"}'
                )
    return Block(source, tuple(rows), trained, reasons)


def _require_known(entry: Entry) -> None:
    """Refuse settings that no config has, texts in place of numbers, and configs that cannot be read."""
    for file in entry.files:
        try:
            ConfigParser.load_config_file(file)
        except ValueError as error:
            raise ValueError(f"method {entry.name!r}: {file}: not a JSON config ({error})") from error
    parser = ConfigParser(ConfigParser.load_config_files(entry.files))
    for key in entry.settings:
        if not is_key(bundle_root(entry.bundle), entry.files, key):
            raise ValueError(f"method {entry.name!r}: {key!r} is not a key of {', '.join(entry.files)}")
    try:
        refuse_texts_for_numbers(parser.get(), entry.settings)
    except ValueError as error:
        raise ValueError(f"method {entry.name!r}: {error}") from error


def _require_cohort(made: MethodList, cohort: str) -> None:
    """Refuse configs and published tables that are for another cohort; configs for the phantom fit any cohort."""
    for entry in made.entries:
        found = entry.config()["cohort"]
        if found not in ("phantom", cohort):
            raise ValueError(
                f"method {entry.name!r}: {', '.join(entry.configs)} are for cohort {found}, not for {cohort}"
            )
    for block in made.blocks:
        plain = re.sub(r"\W+", "_", block.source[2].lower())
        found = next((name for name in COHORTS if plain.startswith(name)), cohort)
        if found != cohort:
            raise ValueError(f"table {' '.join(block.source)} is for cohort {found}, not for {cohort}")


def _require_splits(made: MethodList, cohort: str) -> None:
    """Refuse splits that the cohort does not have; the phantom always uses its own split."""
    if made.folds:
        require_folds(cohort, made.folds)
    for entry in made.entries:
        if made.folds and "split" in entry.settings:
            raise ValueError(f"method {entry.name!r} has a split, which has no effect with folds; leave one out")
        if not made.folds and cohort != "phantom":
            try:
                require_split(cohort, entry.config()["split"])
            except ValueError as error:
                raise ValueError(f"method {entry.name!r}: {error}") from error


def _require_same_conventions(entries: Sequence[Entry]) -> None:
    """Refuse methods whose results could not be compared, which would otherwise only show after all trainings."""
    first: dict[str, Any] = {}
    for entry in entries:
        try:
            found = asdict(Conventions(**entry.config()["conventions"]))
        except (TypeError, ValueError) as error:
            raise ValueError(f"method {entry.name!r}: {error}") from error
        first = first or found
        if differing := [key for key, value in found.items() if value != first[key]]:
            key = differing[0]
            raise ValueError(
                f"convention {key} is {found[key]!r} for {entry.name!r}, but {first[key]!r} for {entries[0].name!r}; "
                f"set 'conventions#{key}' in the list's settings"
            )
