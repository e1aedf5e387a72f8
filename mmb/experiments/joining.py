"""Several data sets as one, with the label values and the patients of each."""

import csv
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.cohorts import get_cohort
from common.cohorts.cohort import Cohort
from common.cohorts.datalist import with_paths
from common.cohorts.registry import patient_of
from common.cohorts.scan import Item, find_cases
from common.cohorts.splits import ALL_TEST, CROSS_VALIDATION, PARTS, Parts, divide, official_splits, refuse_other_names
from common.text import shortened


def join(
    folders: Mapping[str, str | os.PathLike],
    cohort: Cohort,
    split: str | None = None,
    seed: int = 0,
    known_as: str | os.PathLike | None = None,
) -> tuple[Parts, Path]:
    """Divide the cases of several data sets; return the parts, with absolute paths, and the folder that holds all.

    Items have the keys ``source``, the name of the data set, and ``patient``.

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
    items = [item for own in sources.values() for item in own]
    if twice := [case for case, count in Counter(item["case"] for item in items).items() if count > 1]:
        named = " and of ".join(item["source"] for item in items if item["case"] == twice[0])
        raise ValueError(
            f"{twice[0]} is a case of {named}; expected different names. Rename its folder and files in one of them, "
            "or leave one of the data sets out."
        )
    if known_as is not None:
        _unite_patients(items, known_as)
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
    """Return cohort -> folder from words such as ``ucsf_pdgm=data/UCSF-PDGM``."""
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
            f"{folder}: none of its {len(items)} cases has a label with the names of {name}. Choose the cohort that "
            "the files belong to."
        )
    return [{**item, "source": name, "patient": patient_of(item)} for item in items]


def _unite_patients(items: Sequence[Item], path: str | os.PathLike) -> None:
    """Give the cases that a row of the file names the same patient."""
    named = {_plain(name): item for item in items for name in (item["case"], item["patient"])}
    united = False
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in csv.reader(file):
            patients = sorted({named[_plain(cell)]["patient"] for cell in row if _plain(cell) in named})
            united = united or len(patients) > 1
            for item in items:
                if item["patient"] in patients[1:]:
                    item["patient"] = patients[0]
    if not united:
        raise ValueError(
            f"{path}: no row names patients of two data sets, e.g. {shortened(sorted({i['patient'] for i in items}))}; "
            "expected the names of their cases or patients in the same row."
        )


def _plain(name: str) -> str:
    """Return a name in lower case, without the zeros before its numbers."""
    return re.sub(r"\d+", lambda number: str(int(number[0])), name.strip().lower())


def as_datalist(
    parts: Parts, cohort: Cohort, dataset_dir: str | os.PathLike, split: str | None = None, seed: int = 0
) -> dict[str, Any]:
    """Return parts with absolute paths as the content of a datalist file, with paths relative to ``dataset_dir``.

    Items get the key ``patient``, unless a published split has a patient in two parts.
    """
    groups = [{patient_of(item) for item in parts[part]} for part in PARTS]
    if sum(map(len, groups)) == len(set.union(*groups)):
        parts = {part: [{**item, "patient": patient_of(item)} for item in parts[part]] for part in PARTS}
    split = split or "seeded"
    base = Path(os.path.abspath(dataset_dir))
    return {
        "name": f"{cohort.name}, split {split}",
        "cohort": cohort.name,
        "modalities": list(cohort.modalities),
        "labels": dict(cohort.labels.values),
        "split": split,
        **({} if split in ("full", ALL_TEST) or split in official_splits(cohort.name) else {"seed": seed}),
        "numTraining": len(parts["training"]),
        **with_paths(parts, lambda path: Path(path).relative_to(base).as_posix()),
    }


def in_words(parts: Parts) -> str:
    """Return, as text, the numbers of cases, patients and follow-ups, and of cases by source if there are several."""
    items = [item for part in PARTS for item in parts[part]]
    people = len({patient_of(item) for item in items})
    cases = ", ".join(f"{len(parts[part])} {part}" for part in PARTS)
    sources = Counter(item["source"] for item in items if item.get("source"))
    named = "; " + ", ".join(f"{count} of {name}" for name, count in sources.items()) if sources else ""
    return f"{cases}; {people} patients, {len(items) - people} follow-ups{named}"
