"""Checks of whether a folder's cases belong to the given cohort, by their names and by the values in their labels.

A label that is read with another cohort's values trains the wrong classes, and nothing shows it: with ``brats2023``,
the enhancing tumour of a paediatric label would be necrosis. So names and values are compared with all cohorts before
anything is trained.
"""

import logging
import os
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from pathlib import Path

from common.cohorts.cohort import Cohort
from common.cohorts.patients import FEW_TIMES, patient_of
from common.cohorts.registry import COHORTS, cohort_of, get_cohort
from common.cohorts.scan import Item
from common.cohorts.voxels import Values, label_values, same_images
from common.text import shortened

logger = logging.getLogger(__name__)

FEW = 3
"""Number of labels from which on it is no accident that all lack every value but one."""


def owners(case: str) -> list[Cohort]:
    """Return the cohorts whose publishers give cases such names; cohorts that share cases are all returned."""
    return [cohort for cohort in COHORTS.values() if cohort.has_name(case)]


def refuse_other_names(items: Iterable[Item], cohort: Cohort, source: str | os.PathLike) -> None:
    """Refuse labelled cases that are named like those of other cohorts; ``source`` is their folder or datalist.

    A cohort without names of its own, for data of any origin, accepts them if their labels have the same values. Raises
    ValueError if there are such cases; the message names the cohorts that fit.
    """
    for item in items:
        known, own = owners(item["case"]), cohort_of(item, cohort)
        alike = own.case_names is None and any(other.labels.meanings == own.labels.meanings for other in known)
        if "label" in item and known and own not in known and not alike:
            raise ValueError(
                f"{source}: {item['case']} is named like a case of {_either(known)}, but {own.name} was requested, "
                "whose label values may have other meanings. Choose the cohort (key `cohort`) that the files belong to."
            )


def refuse_other_values(items: Sequence[Item], cohort: Cohort, source: str | os.PathLike) -> None:
    """Read the values in all labels, and refuse those that a cohort does not know.

    Logs a warning if the values may have another meaning: if a class never occurs although the values of another cohort
    fit, if the case names are no publisher's and other cohorts would read the values differently, or if one or two
    labels have no values but 0 and 1. Raises ValueError if three or more labels have no others, if a label has an
    unknown value, or if one cannot be read. For an unknown value the message names the cohorts that fit.
    """
    labelled = [item for item in items if "label" in item]
    found = label_values(labelled)
    groups: dict[str, list[Item]] = {}
    for item in labelled:
        groups.setdefault(cohort_of(item, cohort).name, []).append(item)
    for name, group in groups.items():
        own, values = get_cohort(name), {item["label"]: found[item["label"]] for item in group}
        for item in group:
            try:
                own.labels.check(values[item["label"]], item["label"])
            except ValueError as error:
                known = fitting(group, values.values())
                fit = f"All labels in {source} fit {_either(known)}." if known else f"No cohort fits all of {source}."
                raise ValueError(f"{error} {fit}") from None
        occurring = set(chain.from_iterable(values.values())) - {0}
        if occurring == {1} and len(own.labels.values) > 1:
            meanings = ", ".join(f"{value} {name}" for name, value in own.labels.meanings.items())
            doubt = (
                f"{source}: its labels ({len(group)}) have no values but 0 and 1, so they look like masks of a whole "
                f"tumour or of a brain, while 1 means {own.labels.class_of(1)} in {own.name}. Expected labels with "
                f"the values {meanings}."
            )
            if len(group) >= FEW:
                raise ValueError(doubt)
            logger.warning(doubt)
        else:
            _warn_of_doubts(group, values, own, source)


def refuse_shared_patients(parts: Mapping[str, Sequence[Item]], source: str | os.PathLike) -> None:
    """Refuse splits with a patient or an image in two parts; warn of images that occur twice.

    Raises ValueError if two parts share an image, or if items in two parts have the same key ``patient``. Patients that
    only names show to be the same cause a warning, since the published splits of BraTS 2015 divide patients.
    """
    part_of = {item["case"]: part for part, items in parts.items() for item in items}
    patients: dict[str, Item] = {}
    for item in chain.from_iterable(parts.values()):
        other = patients.setdefault(patient_of(item), item)
        if part_of[other["case"]] != part_of[item["case"]]:
            said = (
                f"{source}: patient {patient_of(item)} is in two parts: {other['case']} in {part_of[other['case']]}, "
                f"{item['case']} in {part_of[item['case']]}."
            )
            if "patient" in item:
                raise ValueError(f"{said} Put all cases of a patient into one part.")
            logger.warning(said)  # a published split of BraTS 2015 may do this
            break
    pairs = same_images(list(chain.from_iterable(parts.values())))
    apart = [(one, other) for one, other in pairs if part_of[one["case"]] != part_of[other["case"]]]
    if apart:
        one, other = apart[0]
        raise ValueError(
            f"{source}: {one['case']} in {part_of[one['case']]} and {other['case']} in {part_of[other['case']]} share "
            f"an image ({len(apart)} such pairs). Remove one of them, or make a datalist in which they are one patient "
            "(`python -m tools datalist ... --patients FILE.csv`)."
        )
    if pairs:
        names = shortened(f"{one['case']} and {other['case']}" for one, other in pairs)
        logger.warning(f"{source}: cases that share an image, so that they count twice: {names}.")


def doubt_patients(items: Iterable[Item], source: str | os.PathLike) -> None:
    """Warn if names or folders look like time points of one patient, but count as different patients.

    They may share the folder above, or the name but for upper and lower case, its end or its start.
    """
    own = [item for item in items if "patient" not in item and not owners(item["case"])]
    people = {patient_of(item): Path(item["image"][0]).parent for item in own}
    above = {name: place.parent.name for name, place in people.items()}
    repeated = {name: place.name for name, place in people.items() if name.endswith(f"_{place.name}")}
    without_end, without_letter, without_start = (
        {name: match[1] for name in people if (match := re.fullmatch(part, name, re.IGNORECASE))}
        for part in (r"(.+)[_. -][^_. -]+", r"(.*\d)[a-z]", r"[^_. -]+[_. -](.+)")
    )
    parts = (without_end, without_letter)
    longer = {name: base for part in parts for name, base in part.items() if base in people}  # P1_b beside P1
    spelled = {name: name.casefold() for name in people}
    groupings = [(above, False), (spelled, True), (without_end, False), (without_letter, False)]
    groupings += [(without_start, False), (repeated, True), (longer | {base: base for base in longer.values()}, True)]
    for common, conclusive in groupings:
        minimum = 1 if conclusive or len(set(common.values())) > FEW else 2  # a single group may be all cases
        groups: dict[str, list[str]] = {}
        for name in sorted(common):
            groups.setdefault(common[name], []).append(name)
        alike = [group for group in groups.values() if len(group) > 1]
        if len(alike) >= minimum and max(map(len, alike)) <= FEW_TIMES:
            logger.warning(
                f"{source}: each of {' and '.join(alike[0][:2])} counts as a separate patient. If they are one "
                "patient's, list the patient of each case: `python -m tools datalist ... --patients FILE.csv`."
            )
            return


def fitting(items: Collection[Item], values: Iterable[Values]) -> list[Cohort]:
    """Return the cohorts that know all values of some labels; if the names are some cohorts', only of these."""
    found = set(chain.from_iterable(values))
    known = [own for item in items for own in owners(item["case"])]
    return [cohort for cohort in known or COHORTS.values() if found <= cohort.labels.known]


def _warn_of_doubts(
    items: Sequence[Item], values: Mapping[str, Values], own: Cohort, source: str | os.PathLike
) -> None:
    """Warn if labels with these values may be of another cohort, which would read them otherwise."""
    found = set(chain.from_iterable(values.values())) - {0}
    meant = [own.labels.class_of(value) for value in found]
    others = [one for one in fitting(items, values.values()) if [*map(one.labels.class_of, found)] != meant]
    absent = {name: value for name, value in own.labels.values.items() if name not in meant}
    complete = [cohort for cohort in others if set(cohort.labels.values.values()) <= found]
    unnamed = own.case_names is not None and not any(owners(item["case"]) for item in items)
    if others and absent:
        named = ", ".join(f"{value} ({name})" for name, value in absent.items())
        logger.warning(
            f"{source}: no label has the value {named} of {own.name}. {_either(others)} would read the values "
            f"{sorted(found)} differently: make sure that the files belong to {own.name}."
        )
    elif unnamed and complete:
        meanings = ", ".join(f"{value} {name}" for name, value in own.labels.meanings.items())
        logger.warning(
            f"{source}: no case is named like those of {own.name}, and {_either(complete)} would read the label values "
            f"{sorted(found)} differently: make sure that they mean {meanings}."
        )


def _either(cohorts: Iterable[Cohort]) -> str:
    return " or ".join(dict.fromkeys(cohort.name for cohort in cohorts))
