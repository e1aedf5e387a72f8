"""The check of a data set, before it is trained on."""

import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.cohorts import COHORTS, get_cohort
from common.cohorts.check import Judge, Load, check_folder
from common.cohorts.cohort import Cohort
from common.cohorts.contents import CHECKED, content
from common.cohorts.registry import PHANTOM, cohort_of, owners, patient_of
from common.cohorts.scan import find_cases, named_after
from common.cohorts.splits import refuse_other_names
from common.io.files import replacing
from common.text import printable, shortened

ENDING, MOST_TIMES = 6, 5  # characters of an ending that may be a date, and cases of a patient


def print_check(name: str, dataset_dir: str | os.PathLike, judge: Judge | None = None, load: Load = None) -> bool:
    """Print the table of `check_folder`, what label values mean, and all problems; return True if there are none."""
    cohort = get_cohort(name)
    table, items = check_folder(cohort, dataset_dir, judge, load), find_cases(dataset_dir, cohort)
    bad = table[table["problems"] != ""]
    counts = f"{len(table)} cases, {len(bad)} with problems"
    if unlabelled := (table["label_values"] == "").sum():
        counts += f", {unlabelled} without a readable label"
    used = {Path(path) for item in items for path in item["image"]}
    if ignored := sum(role is None and path not in used for path, role in named_after(dataset_dir, cohort).items()):
        counts += f"; image files ignored because of their names: {ignored}"
    labels = [{float(value) for value in text.split()} - {0} for text in table["label_values"] if text]
    count = Counter(value for label in labels for value in label)
    doubts = []
    whole_values = {value for value in count if value.is_integer()}  # no cohort has others
    described = next((item for item in items if "label_values" in item), {})
    meanings = cohort_of(described, cohort).labels
    if not whole_values <= meanings.known:
        named = [other for item in items for other in owners(item["case"])]
        fit = [other for other in named or COHORTS.values() if whole_values <= other.labels.known]
        sequences = {name for item in items for name in item["modalities"]}
        doubts.append(_best_fit(fit, whole_values, sequences) if fit else "No cohort has all of these label values.")
    try:
        refuse_other_names(items, cohort, dataset_dir)
    except ValueError as error:
        doubts.append(str(error))
    print(printable(table.drop(columns="problems").to_string(index=False, na_rep="")))
    for value in sorted(whole_values):
        print(f"cases with label value {value:g} ({meanings.class_of(value) or 'not defined'}): {count[value]}")
    for names in follow_ups(item["case"] for item in items if patient_of(item) == item["case"]):
        asked = f"{shortened(names)}: are these of one patient? They count as several"
        print(printable(f"{asked}; `mmb datalist --patients` joins them."))
    print(printable("\n".join([counts, *(bad["case"] + ": " + bad["problems"]), *doubts])))
    return bad.empty and not doubts


def _best_fit(cohorts: Iterable[Cohort], values: set[float], sequences: set[str]) -> str:
    """Return which cohort fits label values and sequences best, and why; each allows all of the values.

    The best one has the fewest further values, and then the fewest sequences that only it or only the data have.
    """

    def rank(cohort: Cohort) -> tuple[int, int, bool]:
        return len(cohort.labels.known - values), len({*cohort.modalities} ^ sequences), cohort is PHANTOM

    best, *others = sorted({cohort.name: cohort for cohort in cohorts}.values(), key=rank)
    meanings = sorted((value, name) for name, value in best.labels.meanings.items())
    fit = ", ".join(f"{value} {name}" for value, name in meanings)
    unseen = ", ".join(str(value) for value, _ in meanings if value not in values)
    rest = f" (not found: {unseen})" if unseen else " and no others"
    text = f"All labels fit {best.name} best: its values are {fit}{rest}"
    text += f"; {len(others)} other cohorts allow them." if others else "."
    unlike = [other.name for other in others if other.labels.known == best.labels.known]
    unlike = [name for name in unlike if COHORTS[name].labels.meanings != best.labels.meanings]
    return text + (f" {' and '.join(unlike)} give the same values other meanings." if unlike else "")


def follow_ups(cases: Iterable[str]) -> list[list[str]]:
    """Return groups of few cases of no publisher that differ in a short ending behind a number, as P01_1 and P01_2."""
    groups: dict[str, list[str]] = {}
    for case in sorted(case for case in {*cases} if not owners(case)):
        ending = re.split("[_. -]", case)[-1]
        first = case[: -len(ending) - 1] if len(ending) <= ENDING else ""
        groups.setdefault(first if any(map(str.isdigit, first)) else case, []).append(case)
    return [names for names in groups.values() if 1 < len(names) <= MOST_TIMES]


def write_checked(items: Iterable[Mapping[str, Any]], folder: str | os.PathLike) -> Path:
    """Write into a folder of cases which of them were checked, by their files' content; return the path."""
    path = Path(folder, CHECKED)
    with replacing(path) as temporary:
        temporary.write_text(json.dumps({item["case"]: content(item)[:-1] for item in items}, indent=1))
    return path
