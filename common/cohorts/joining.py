"""Several data sets as one datalist: each case keeps its source, which says what its label values mean.

Patients are divided within each source, so that every part has the sources in the same proportions.
"""

import csv
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.cohorts.cohort import Cohort
from common.cohorts.datalist import ALL_TEST, CROSS_VALIDATION, PARTS, Parts, divide
from common.cohorts.fitting import refuse_other_names
from common.cohorts.patients import patient_of
from common.cohorts.registry import get_cohort
from common.cohorts.scan import Item, find_cases
from common.text import shortened


def join(
    folders: Mapping[str, str | os.PathLike],
    cohort: Cohort,
    split: str | None = None,
    seed: int = 0,
    known_as: str | os.PathLike | None = None,
) -> tuple[Parts, Path]:
    """Divide the cases of several data sets; return the parts, with absolute paths, and the folder that holds all.

    Items have the keys ``source``, the name of the data set, and ``patient``. Raises FileNotFoundError if a folder or
    ``known_as`` does not exist; ValueError if a source's class has no counterpart, two sources have a case of the same
    name, the split is none of those below, or no row of ``known_as`` names two patients; see also `split_cases`.

    Args:
        folders: cohort of each data set -> its folder as downloaded.
        cohort: cohort of the datalist; every class of a source needs a counterpart among its classes.
        split: ``seeded`` (the default), ``cv1of5`` and the like, ``full`` or ``all_test``; see `split_cases`.
        known_as: CSV file, such as a publisher's, with a row per patient. All cases and patients named in a row are one
            patient, whatever the columns are called. Leading zeros are ignored (``UCSF-PDGM-004`` is ``UCSF-PDGM-4``).
    """
    if split is not None and split not in ("seeded", "full", ALL_TEST) and not CROSS_VALIDATION.fullmatch(split):
        raise ValueError(
            f"split {split!r}: several data sets have no published split; expected seeded, cv1of5, full or {ALL_TEST}."
        )
    sources = {name: _cases(name, folder, cohort) for name, folder in folders.items()}
    _refuse_same_names(sources)
    if known_as is not None:
        _unite_patients([item for items in sources.values() for item in items], known_as)
    parts: Parts = {part: [] for part in PARTS}
    part_of: dict[str, str] = {}
    for name, items in sources.items():
        labelled = [item for item in items if "label" in item]
        new = [item for item in labelled if item["patient"] not in part_of]  # the others follow an earlier source
        drawn = divide(new, get_cohort(name), folders[name], split, seed) if new else {}
        part_of |= {item["patient"]: part for part, chosen in drawn.items() for item in chosen}
        for item in labelled:
            parts[part_of[item["patient"]]].append(item)
    base = Path(os.path.commonpath([os.path.abspath(folder) for folder in folders.values()]))
    return parts, base


def folders_of(sources: Sequence[str]) -> dict[str, str]:
    """Return cohort -> folder from words such as ``ucsf_pdgm=data/UCSF-PDGM``.

    Raises ValueError if there are fewer than two, one has another form, or a cohort is given twice.
    """
    if len(sources) < 2:
        raise ValueError(f"{len(sources)} data sets to join; expected two or more, each as COHORT=FOLDER.")
    folders: dict[str, str] = {}
    for source in sources:
        name, equals, folder = source.partition("=")
        if not (name and equals and folder):
            raise ValueError(f"{source!r}: expected COHORT=FOLDER, e.g. ucsf_pdgm=data/UCSF-PDGM.")
        if name in folders:
            raise ValueError(f"{source!r}: {name} is given twice; put its cases into one folder.")
        folders[name] = folder
    return folders


def _cases(name: str, folder: str | os.PathLike, cohort: Cohort) -> list[Item]:
    """Return the cases of a source, with the keys ``source`` and ``patient``."""
    source = get_cohort(name)
    if source.modalities != cohort.modalities:
        raise ValueError(
            f"{name} has {', '.join(source.modalities)}; {cohort.name} needs {', '.join(cohort.modalities)}."
        )
    try:
        cohort.labels.require_counterparts(source.labels)
    except ValueError as error:
        raise ValueError(f"{name} cannot be joined to {cohort.name}: {error}") from None
    items = find_cases(folder, source)
    refuse_other_names(items, source, folder)
    if not any("label" in item for item in items):
        raise ValueError(
            f"{folder}: none of its {len(items)} cases has a label with one of the names of {name} "
            f"({', '.join(source.label_names)}). Choose the cohort that the files belong to: `python -m tools check "
            "COHORT FOLDER` names it."
        )
    return [{**item, "source": name, "patient": patient_of(item)} for item in items]


def _refuse_same_names(sources: Mapping[str, Sequence[Item]]) -> None:
    first: dict[str, str] = {}
    for name, items in sources.items():
        for item in items:
            other = first.setdefault(item["case"], name)
            if other != name:
                raise ValueError(
                    f"{item['case']} is a case of {other} and of {name}; expected different names. Rename its folder "
                    "and files in one of them, or leave one of the data sets out."
                )


def _unite_patients(items: Iterable[Item], path: str | os.PathLike) -> None:
    """Give the cases that a row of the file names the same patient."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected a CSV file with a row for each patient.")
    named: dict[str, str] = {}
    for item in items:
        named[_plain(item["case"])] = named[_plain(item["patient"])] = item["patient"]
    same: dict[str, str] = {}

    def root(name: str) -> str:
        while name in same:
            name = same[name]
        return name

    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file):
            patients = sorted({root(named[_plain(cell)]) for cell in row if _plain(cell) in named})
            same |= {other: patients[0] for other in patients[1:]}
    if not same:
        raise ValueError(
            f"{path}: no row names patients of two data sets, e.g. {shortened(sorted(set(named.values())))}; expected "
            "the names of their cases or patients in the same row."
        )
    for item in items:
        item["patient"] = root(item["patient"])


def _plain(name: str) -> str:
    """Return a name in lower case, without the zeros before its numbers."""
    return re.sub(r"\d+", lambda number: str(int(number[0])), name.strip().lower())
