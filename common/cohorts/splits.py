"""Splits: which cases are for training, validation and test; patients are never divided, unless a published split does.

Published splits are in ``data/brats_splits.csv`` (columns cohort, split, case, part). Their numbers of training,
validation and test cases are: BraTS 2015, 242 / 12 / 20 (RobustSeg); 2018, three folds of 199 / 29 / 57 (RFNet,
M2FTrans, and M3AE, which uses fold3); 2020, 219 / 50 / 100 (RFNet and later papers); 2021, 876 / 125 / 250; and 2023
GLI, 875 / 125 / 251 (``imfuse``, the split of IM-Fuse, Pipoli et al., MICCAI 2025). The folds of 2018 are three random
draws, not a cross-validation: their test cases overlap. In BraTS 2015 a patient's time points may be in several parts;
in 2023 they are in one.

The open glioma cases have our own splits by patient: ``fixed`` of 39 cases (25 / 5 / 9); ``fixed50`` of all 50 cases of
49 patients (36 / 5 / 9), with the same validation and test cases; and the cross-validation ``fold0`` to ``fold4`` of
all 50 (40 / 0 / 10 each), in which both sources are spread evenly and nothing is selected on validation cases.
``fixed53`` adds three cases for training to ``fixed50``; ``member0`` to ``member4`` are a cross-validation of its 39
training cases, with the same five validation cases outside; ``cv53_0`` to ``cv53_4`` one of all 53 cases, without
validation. ``inner0`` and ``inner1`` divide the 40 training cases of
``fold0`` and ``fold1`` again (32 / 0 / 8), so that variants of a method can be chosen without the folds' test cases.

MAG-MS gives only the numbers for MSD Task01 (388 / 72 / 24, as UNETR) and iSEG-2017 (6 / 1 / 3, as HyperDense-Net). In
these splits (`COUNTS`) the cases of each part are drawn at random.

Several data sets become one by `join`: each case keeps its source, which says what its label values mean. Patients are
divided within each source, so that every part has the sources in the same proportions.
"""

import csv
import logging
import os
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path

from common.cohorts.cohort import Cohort
from common.cohorts.contents import copies
from common.cohorts.examination import differing_files
from common.cohorts.registry import COHORTS, cohort_of, names_of, owners, patient_of
from common.cohorts.scan import Item, find_cases
from common.io.tables import by_case, read_table
from common.text import shortened

logger = logging.getLogger(__name__)
PARTS = ("training", "validation", "test")
FRACTIONS = (0.7, 0.1, 0.2)  # of the patients in each of `PARTS`; validation and test get at least one
SPLITS_FILE = Path(__file__).parent / "data" / "brats_splits.csv"
COUNTS = {"iseg2017": {"mag_ms": (6, 1, 3)}, "msd_task01": {"mag_ms": (388, 72, 24)}}
"""Cohort -> split -> number of patients in each of `PARTS`, for papers that publish only the numbers."""
CROSS_VALIDATION = re.compile(r"cv(\d+)of(\d+)")
"""Names of cross-validation splits, which exist for any cohort: ``cv1of3`` is the first of three folds."""
ALL_TEST = "all_test"
"""Name of the split, which exists for any cohort, that uses all labelled cases for evaluation and none for training."""
Parts = dict[str, list[Item]]
"""Part (`PARTS`) -> its items."""


def split_cases(
    cohort: Cohort,
    dataset_dir: str | os.PathLike,
    split: str | None = None,
    seed: int = 0,
    patients: str | os.PathLike | None = None,
) -> Parts:
    """Scan a folder and divide its labelled cases into training, validation and test.

    Returns the parts, with absolute paths. Cases that are in no part are logged.

    Args:
        dataset_dir: the folder as downloaded; see `find_cases`.
        split: name of a published split, drawn at random if only its numbers are published (`COUNTS`). ``full`` trains
            on every labelled case and tests on the unlabelled ones; ``all_test`` tests on every labelled case, for an
            evaluation without training (``calibrate_on`` has to be null); None or ``seeded`` shuffles the patients, so
            that no patient is in two parts, and divides them by `FRACTIONS`; ``cv1of3`` shuffles them, tests on the
            first third and validates on a tenth of the others.
        patients: CSV file that says whose cases these are (columns ``case``, ``patient``), where their names do not.
    """
    items = find_cases(dataset_dir, cohort)
    if patients is not None:
        _name_patients(items, patients, dataset_dir)
    items = one_patient_a_copy(items, dataset_dir)
    if mixed := [f"{item['case']}: {found}" for item in items if (found := differing_files(item))]:
        logger.warning(f"{dataset_dir}: files of one case may be of two: {shortened(mixed, 3)}.")
    refuse_other_names(items, cohort, dataset_dir)
    parts = divide(items, cohort, dataset_dir, split, seed)
    used = {item["case"] for part in parts.values() for item in part}
    unused = [item["case"] for item in items if item["case"] not in used]
    if unused:
        logger.warning(f"{len(unused)} cases are in no part of split {split or 'seeded'}: {shortened(unused)}.")
    return parts


def divide(
    items: list[Item], cohort: Cohort, dataset_dir: str | os.PathLike, split: str | None = None, seed: int = 0
) -> Parts:
    """Divide items into the parts of a split, as `split_cases` does; ``dataset_dir`` is named in errors."""
    split, counts = split or "seeded", COUNTS.get(cohort.name, {}).get(split)
    require_split(cohort.name, split)
    fold = CROSS_VALIDATION.fullmatch(split)
    if split not in ("seeded", "full", ALL_TEST) and not fold and not counts:
        return _published(items, cohort.name, split, dataset_dir)
    labelled = [item for item in items if "label" in item]
    if not labelled:
        use = "evaluation" if split == ALL_TEST else "training"
        raise ValueError(
            f"{dataset_dir}: none of its {len(items)} cases has a label; {use} needs labelled cases. The files of "
            f"{cohort.name} are named as its publishers name them, or end with _seg. Rename them, or choose the cohort "
            "that they belong to: `mmb check COHORT FOLDER` names the files that are ignored."
        )
    if split == ALL_TEST:
        return {"training": [], "validation": [], "test": labelled}
    if split == "full":
        return {"training": labelled, "validation": [], "test": [item for item in items if "label" not in item]}
    patients = sorted({patient_of(item) for item in labelled})
    _require_enough(len(patients), split, counts, dataset_dir, len(items))
    random.Random(seed).shuffle(patients)
    if fold:
        test = patients[int(fold[1]) - 1 :: int(fold[2])]
        others = [name for name in patients if name not in test]
        names = {"training": others, "validation": others[: max(1, round(len(others) / 10))], "test": test}
    else:
        held_out = [max(1, round(fraction * len(patients))) for fraction in FRACTIONS[1:]]
        counts = counts or (len(patients) - sum(held_out), held_out[0], held_out[1])
        bounds = pairwise(accumulate(counts, initial=0))
        names = {part: patients[start:stop] for part, (start, stop) in zip(PARTS, bounds, strict=True)}
    part_of = {name: part for part in PARTS for name in names[part]}
    return {part: [item for item in labelled if part_of[patient_of(item)] == part] for part in PARTS}


def official_splits(cohort: str) -> dict[str, dict[str, list[str]]]:
    """Return the published splits of a cohort: name -> part -> cases; empty if it has none."""
    splits: dict[str, dict[str, list[str]]] = {}
    with SPLITS_FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            if row["cohort"] == cohort:
                parts = splits.setdefault(row["split"], {part: [] for part in PARTS})
                parts["training" if row["part"] == "train" else row["part"]].append(row["case"])
    return splits


def require_split(cohort: str, split: str | None) -> None:
    """Refuse a split that a cohort does not have; the cohort's data need not be present."""
    known = (*official_splits(cohort), *COUNTS.get(cohort, {}), "full", "seeded", "cv1of5", ALL_TEST)
    drawn = CROSS_VALIDATION.fullmatch(str(split))
    if drawn and not (1 <= int(drawn[1]) <= int(drawn[2]) and int(drawn[2]) > 1):
        raise ValueError(f"Unknown split {split!r}; expected cv1of3, cv2of3, ... with two or more folds.")
    if split is not None and split not in known and not drawn:
        raise ValueError(f"Unknown split {split!r} of {cohort}; expected one of {', '.join(known)}.")


def refuse_other_names(items: Iterable[Item], cohort: Cohort, source: str | os.PathLike) -> None:
    """Refuse labelled cases that are named like those of other cohorts; ``source`` is their folder or datalist.

    A label that is read with another cohort's values trains the wrong classes, and nothing shows it: with
    ``brats2023``, the enhancing tumour of a paediatric label would be necrosis. A cohort for data of any origin accepts
    such cases if their labels have the same values. Nothing is refused where a file, or a user's description, tells the
    values' meanings.
    """
    for item in (item for item in items if not item.get("label_values")):
        own = cohort_of(item, cohort)
        known = [other for other in owners(item["case"], item["image"][0]) if other.modalities == own.modalities]
        alike = own.case_names is None and any(other.labels.meanings == own.labels.meanings for other in known)
        if "label" in item and known and own not in known and not alike and own.name in COHORTS:
            raise ValueError(
                f"{source}: {item['case']} is named like a case of {names_of(known)}, but {own.name} was requested. "
                "Its label values may have other meanings. Choose the cohort (key `cohort`) that the files belong to."
            )


def one_patient_a_copy(items: Sequence[Item], dataset_dir: str | os.PathLike) -> list[Item]:
    """Return the items, where cases that share an image have the same ``patient``, with a warning."""
    patients = {item["case"]: patient_of(item) for item in items}
    for copy in copies(items):
        one, other = patients[copy.case], patients[copy.other]
        if one != other:
            logger.warning(f"{dataset_dir}: {copy.path} is a copy of {copy.other_path}: taken as the same patient.")
            patients = {case: other if name == one else name for case, name in patients.items()}
    return [
        {**item, "patient": patients[item["case"]]} if patients[item["case"]] != patient_of(item) else item
        for item in items
    ]


def refuse_shared_patients(parts: Mapping[str, Sequence[Item]], source: str | os.PathLike) -> None:
    """Refuse parts that share an image, or a copy of one, or a patient by the key ``patient`` of their items.

    Patients that only names show to be the same cause a warning, since the published split of BraTS 2015 divides
    patients.
    """
    first: dict[str, tuple[str, Item]] = {}
    part_of = {item["case"]: part for part, items in parts.items() for item in items}
    for copy in copies(item for items in parts.values() for item in items):
        if part_of[copy.case] != part_of[copy.other]:
            raise ValueError(
                f"{source}: {copy.case} in {part_of[copy.case]} and {copy.other} in {part_of[copy.other]} have one "
                f"image: {copy.path} is a copy of {copy.other_path}. Put all cases of a patient into one part."
            )
    warned = False
    for part, item in ((part, item) for part, items in parts.items() for item in items):
        for name in (f"patient {patient_of(item)}", *(f"image {path}" for path in item["image"])):
            other_part, other = first.setdefault(name, (part, item))
            if other_part == part:
                continue
            said = f"{source}: {name} is in two parts: {other['case']} in {other_part}, {item['case']} in {part}."
            if "patient" in item or name.startswith("image"):
                raise ValueError(f"{said} Put all cases of a patient into one part.")
            if not warned:
                logger.warning(said)
            warned = True


def _published(items: list[Item], cohort: str, split: str, dataset_dir: str | os.PathLike) -> Parts:
    splits = official_splits(cohort)
    on_disk = {item["case"].lower(): item for item in items}  # releases differ in case: Brats18_, BraTS18_
    listed = [case for part in splits[split].values() for case in part]
    missing = [case for case in listed if case.lower() not in on_disk]
    unlabelled = [case for case in listed if "label" not in on_disk.get(case.lower(), {})]
    if lacking := missing or unlabelled:
        raise ValueError(
            f"{dataset_dir}: {len(lacking)} of the {len(listed)} cases of split {split} are "
            f"{'missing' if missing else 'without a label'}, e.g. {shortened(lacking)}. Pass the folder with the "
            "complete official download, or split the cases you have with split `seeded`."
        )
    return {part: [on_disk[case.lower()] for case in cases] for part, cases in splits[split].items()}


def _require_enough(
    patients: int, split: str, counts: Sequence[int] | None, dataset_dir: str | os.PathLike, cases: int
) -> None:
    """Refuse numbers of labelled patients that a split cannot divide; ``counts`` are those of a published one."""
    if counts and patients != sum(counts):
        raise ValueError(
            f"{dataset_dir}: {patients} patients with a label; split {split} has {sum(counts)} "
            f"({' / '.join(map(str, counts))}). Pass the folder with the complete official download, or split the "
            "cases you have with split `seeded`."
        )
    if fold := CROSS_VALIDATION.fullmatch(split):
        if patients < 4 or patients <= int(fold[2]):
            raise ValueError(
                f"{dataset_dir}: split {split} of {patients} patients with a label; expected four or more, and more "
                "than folds."
            )
    elif patients < len(PARTS):
        raise ValueError(
            f"{dataset_dir}: patients with a label: {patients} (of {cases} cases); expected at least 3, to train, "
            "validate and test. Split `full` trains on all; `all_test`, with `calibrate_on` null, tests weights on all."
        )


def _name_patients(items: Sequence[Item], path: str | os.PathLike, dataset_dir: str | os.PathLike) -> None:
    """Give each item that a CSV file with the columns ``case`` and ``patient`` lists the key ``patient``."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file. Expected a CSV file with the columns case and patient.")
    table = read_table(path)
    if not {"case", "patient"} <= {*table} or (table[["case", "patient"]] == "").any(axis=None):
        raise ValueError(f"{path}: columns {', '.join(table)}; expected case and patient, with a name in every row.")
    names = by_case(table, "patient", path)
    if unknown := sorted(names.keys() - {item["case"] for item in items}):
        raise ValueError(
            f"{path}: {len(unknown)} of its {len(names)} cases are not in {dataset_dir}, e.g. {shortened(unknown)}. "
            "Cases are named after their folders: `mmb check` prints the names."
        )
    for item in items:
        if item["case"] in names:
            item["patient"] = names[item["case"]]
