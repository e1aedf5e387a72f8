"""Datalists: JSON files, readable by MONAI too, that say which cases are for training, validation and test.

Published splits are in ``data/brats_splits.csv`` (columns cohort, split, case, part). Their numbers of training,
validation and test cases are: BraTS 2015, 242 / 12 / 20 (RobustSeg); 2018, three folds of 199 / 29 / 57 (RFNet,
M2FTrans, and M3AE, which uses fold3); 2020, 219 / 50 / 100 (RFNet and later papers); 2021, 876 / 125 / 250; and 2023
GLI, 875 / 125 / 251 (``imfuse``, the split of IM-Fuse, Pipoli et al., MICCAI 2025). The folds of 2018 are three random
draws, not a cross-validation: their test cases overlap. In BraTS 2015 a patient's time points may be in several parts;
in 2023 they are in one.

The open glioma cases have our own splits by patient: ``fixed`` of 39 cases (25 / 5 / 9); ``fixed50`` of all 50 cases of
49 patients (36 / 5 / 9), with the same validation and test cases; and the cross-validation ``fold0`` to ``fold4`` of
all 50 (40 / 0 / 10 each), in which both sources are spread evenly and nothing is selected on validation cases.
``inner0`` and ``inner1`` divide the 40 training cases of ``fold0`` and ``fold1`` again (32 / 0 / 8), so that variants
of a method can be chosen without the folds' test cases.

MAG-MS gives only the numbers for MSD Task01 (388 / 72 / 24, as UNETR) and iSEG-2017 (6 / 1 / 3, as HyperDense-Net). In
these splits (`COUNTS`) the cases of each part are drawn at random.
"""

import csv
import json
import logging
import os
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator

from common.cohorts.cohort import Cohort
from common.cohorts.fitting import refuse_other_names
from common.cohorts.patients import patient_of, read_patients
from common.cohorts.scan import Item, find_cases
from common.io.documents import read_json
from common.io.files import replacing
from common.modalities import canonical
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
CASE = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,199}")
"""Pattern of case names, which become names of files and folders."""
Parts = dict[str, list[Item]]
"""Part (`PARTS`) -> its items."""


def _case(name: str) -> str:
    if not CASE.fullmatch(name):
        raise ValueError(
            f"{name!r}; expected a valid folder name: text of up to 200 characters, without slashes or control "
            "characters, that does not begin with a dot"
        )
    return name


class _Case(BaseModel):
    """An item of a datalist; it may have other keys, too."""

    model_config = ConfigDict(extra="allow")

    case: Annotated[str, AfterValidator(_case)]
    image: list[str]
    modalities: list[Annotated[str, AfterValidator(canonical)]]
    label: str = ""
    channels: list[int] = []
    patient: str = ""
    source: str = ""

    @model_validator(mode="after")
    def _require_one_file_per_modality(self) -> Self:
        given = [getattr(self, key) for key in ("modalities", "channels") if key in self.model_fields_set]
        if not self.image or any(len(values) != len(self.image) for values in given):
            raise ValueError(
                f"{len(self.image)} images for modalities {self.modalities}; expected at least one image, and one for "
                "each modality; likewise channels, if they are given"
            )
        if len(set(self.modalities)) < len(self.modalities):
            raise ValueError(f"lists a modality twice: {self.modalities}; list each once, and leave absent ones out")
        return self


class _Datalist(BaseModel):
    cohort: str | None = None
    training: list[_Case] = []
    validation: list[_Case] = []
    test: list[_Case] = []


def split_cases(
    cohort: Cohort,
    dataset_dir: str | os.PathLike,
    split: str | None = None,
    seed: int = 0,
    patients: str | os.PathLike | None = None,
) -> Parts:
    """Scan a folder and divide its labelled cases into training, validation and test.

    Returns the parts, with absolute paths. Cases that are in no part are logged. Raises FileNotFoundError if the folder
    does not exist or has no image; ValueError if the cohort has no such split, listed cases or their labels are
    missing, there are no patients to split or not as many as published, file names are ambiguous, or all labelled cases
    are of another cohort.

    Args:
        dataset_dir: the folder as downloaded; see `find_cases`.
        split: name of a published split, drawn at random if only its numbers are published (`COUNTS`). ``full`` trains
            on every labelled case and tests on the unlabelled ones; ``all_test`` tests on every labelled case, for an
            evaluation without training (``calibrate_on`` has to be null); None or ``seeded`` shuffles the patients, so
            that no patient is in two parts, and divides them by `FRACTIONS`; ``cv1of3`` shuffles them, tests on the
            first third and validates on a tenth of the others.
        patients: CSV file that says whose cases these are (`read_patients`), where their names do not.
    """
    items = find_cases(dataset_dir, cohort)
    if patients is not None:
        _name_patients(items, patients, dataset_dir)
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
    if split in (None, "seeded", "full", ALL_TEST) or CROSS_VALIDATION.fullmatch(split):
        _require_labels(items, cohort, dataset_dir, "evaluation" if split == ALL_TEST else "training")
    if split in (None, "seeded"):
        return _seeded(items, dataset_dir, seed)
    if split in ("full", ALL_TEST):
        return _whole(items, split)
    if CROSS_VALIDATION.fullmatch(split):
        return _fold(items, dataset_dir, seed, split)
    if split in COUNTS.get(cohort.name, {}):
        return _counted(items, dataset_dir, seed, split, COUNTS[cohort.name][split])
    return _published(items, cohort.name, split, dataset_dir)


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
        **({} if split in ("full", ALL_TEST) or split in published_splits(cohort.name) else {"seed": seed}),
        "numTraining": len(parts["training"]),
        **_with_paths(parts, lambda path: Path(path).relative_to(base).as_posix()),
    }


def in_words(parts: Parts) -> str:
    """Return, as text, the numbers of cases, patients and follow-ups, and of cases by source if there are several."""
    items = [item for part in PARTS for item in parts[part]]
    people = len({patient_of(item) for item in items})
    cases = ", ".join(f"{len(parts[part])} {part}" for part in PARTS)
    sources = Counter(item["source"] for item in items if item.get("source"))
    named = "; " + ", ".join(f"{count} of {name}" for name, count in sources.items()) if sources else ""
    return f"{cases}; {people} patients, {len(items) - people} follow-ups{named}"


def write_datalist(datalist: dict[str, Any], path: str | os.PathLike) -> None:
    """Write a datalist as JSON atomically: the file appears complete or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(datalist, indent=2) + "\n")


def load_datalist(path: str | os.PathLike, dataset_dir: str | os.PathLike, cohort: str | None = None) -> Parts:
    """Return the parts of a datalist file with absolute paths.

    MONAI's ``load_decathlon_datalist`` can read the file, too, but turns any text that names an existing folder, such
    as a ``case``, into a path, and refuses an empty test list; so it is not used here. Raises FileNotFoundError if the
    datalist or a file that it lists does not exist; ValueError if it is not a datalist, is of another cohort, or lists
    a case twice.

    The paths in it are relative to ``dataset_dir``. If it names a cohort, this has to be ``cohort``; None accepts any.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such datalist. Make it with `python -m tools datalist`.")
    datalist = read_json(path, _Datalist, "Make the datalist with `python -m tools datalist`.")
    if cohort and datalist.cohort not in (None, cohort):
        raise ValueError(
            f"{path}: a datalist of cohort {datalist.cohort}, but {cohort} was requested, whose label values may "
            "have other meanings. Choose the cohort (key `cohort`) that the files belong to."
        )
    parts = {part: [item.model_dump(exclude_unset=True) for item in getattr(datalist, part)] for part in PARTS}
    _refuse_repeated(parts, path)
    base = os.path.abspath(dataset_dir)
    parts = _with_paths(parts, lambda p: os.path.normpath(os.path.join(base, p)))
    for item in [item for items in parts.values() for item in items]:
        for file in [*item["image"], *([item["label"]] if "label" in item else [])]:
            if not os.path.isfile(file):
                raise FileNotFoundError(
                    f"{path}: lists {file} for case {item['case']}, which does not exist. Leave absent modalities out "
                    f"of the list, or pass the dataset_dir that its paths are relative to (now {base})."
                )
    return parts


def published_splits(cohort: str) -> dict[str, dict[str, list[str]]]:
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
    known = (*published_splits(cohort), *COUNTS.get(cohort, {}), "full", "seeded", "cv1of5", ALL_TEST)
    drawn = CROSS_VALIDATION.fullmatch(str(split))
    if drawn and not (1 <= int(drawn[1]) <= int(drawn[2]) and int(drawn[2]) > 1):
        raise ValueError(f"Unknown split {split!r}; expected cv1of3, cv2of3, ... with two or more folds.")
    if split is not None and split not in known and not drawn:
        raise ValueError(f"Unknown split {split!r} of {cohort}; expected one of {', '.join(known)}.")


def require_folds(cohort: str, folds: Sequence[str]) -> None:
    """Refuse splits that are not the complete set of folds of one cross-validation; the data need not be present."""
    for fold in folds:
        require_split(cohort, fold)
    drawn, splits = [CROSS_VALIDATION.fullmatch(fold) for fold in folds], published_splits(cohort)
    if all(drawn):
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


def _published(items: list[Item], cohort: str, split: str, dataset_dir: str | os.PathLike) -> Parts:
    require_split(cohort, split)
    splits = published_splits(cohort)
    on_disk = {item["case"].lower(): item for item in items}  # releases differ in case: Brats18_, BraTS18_
    listed = [case for part in splits[split].values() for case in part]
    _refuse_missing("missing", [c for c in listed if c.lower() not in on_disk], listed, split, dataset_dir)
    unlabelled = [case for case in listed if "label" not in on_disk[case.lower()]]
    _refuse_missing("without a label", unlabelled, listed, split, dataset_dir)
    return {part: [on_disk[case.lower()] for case in cases] for part, cases in splits[split].items()}


def _refuse_missing(what: str, cases: list[str], listed: list[str], split: str, dataset_dir: str | os.PathLike) -> None:
    if cases:
        raise ValueError(
            f"{dataset_dir}: {len(cases)} of the {len(listed)} cases of split {split} are {what}, e.g. "
            f"{shortened(cases)}. Pass the folder with the complete official download, or split the cases you have "
            "with split `seeded`."
        )


def _require_labels(items: list[Item], cohort: Cohort, dataset_dir: str | os.PathLike, use: str) -> None:
    if not any("label" in item for item in items):
        raise ValueError(
            f"{dataset_dir}: none of its {len(items)} cases has a label; {use} needs labelled cases. The names of "
            f"labels in {cohort.name} end with _{(end := cohort.label_names[0])}, not with _brain_{end} or the like: "
            "rename them, or choose the cohort that the files belong to. `python -m tools check COHORT FOLDER` names "
            "the files that are ignored."
        )


def _whole(items: list[Item], split: str) -> Parts:
    labelled, others = ([item for item in items if ("label" in item) is wanted] for wanted in (True, False))
    if split == ALL_TEST:
        return {"training": [], "validation": [], "test": labelled}
    return {"training": labelled, "validation": [], "test": others}


def _seeded(items: list[Item], dataset_dir: str | os.PathLike, seed: int) -> Parts:
    count = len(_labelled_patients(items))
    if count < len(PARTS):
        raise ValueError(
            f"{dataset_dir}: {count} patients with a label among {len(items)} cases; expected at least 3, to "
            "train, validate and test. Use split `full` to train on all."
        )
    validation, test = (max(1, round(fraction * count)) for fraction in FRACTIONS[1:])
    return _shuffled(items, seed, (count - validation - test, validation, test))


def _counted(items: list[Item], dataset_dir: str | os.PathLike, seed: int, split: str, counts: Sequence[int]) -> Parts:
    found = len(_labelled_patients(items))
    if found != sum(counts):
        raise ValueError(
            f"{dataset_dir}: {found} patients with a label; split {split} has {sum(counts)} "
            f"({' / '.join(map(str, counts))}). Pass the folder with the complete official download, or split the "
            "cases you have with split `seeded`."
        )
    return _shuffled(items, seed, counts)


def _shuffled(items: list[Item], seed: int, counts: Sequence[int]) -> Parts:
    patients = _labelled_patients(items)
    random.Random(seed).shuffle(patients)
    bounds = pairwise(accumulate(counts, initial=0))
    part_of = {name: part for part, (start, stop) in zip(PARTS, bounds, strict=True) for name in patients[start:stop]}
    return _by_patient(items, part_of)


def _by_patient(items: list[Item], part_of: Mapping[str, str]) -> Parts:
    labelled = [item for item in items if "label" in item]
    return {part: [item for item in labelled if part_of[patient_of(item)] == part] for part in PARTS}


def _fold(items: list[Item], dataset_dir: str | os.PathLike, seed: int, split: str) -> Parts:
    fold, folds = map(int, CROSS_VALIDATION.fullmatch(split).groups())
    patients = _labelled_patients(items)
    if not 1 <= fold <= folds or not 2 <= folds < len(patients) or len(patients) < 4:
        raise ValueError(
            f"{dataset_dir}: split {split} of {len(patients)} patients with a label; expected cv1of3, cv2of3, ... with "
            "two or more folds, four or more patients, and more patients than folds."
        )
    random.Random(seed).shuffle(patients)
    test = patients[fold - 1 :: folds]
    others = [name for name in patients if name not in test]
    validation = others[: max(1, round(len(others) / 10))]
    parts = {"training": others, "validation": validation, "test": test}
    return _by_patient(items, {name: part for part, names in parts.items() for name in names})


def _labelled_patients(items: list[Item]) -> list[str]:
    return sorted({patient_of(item) for item in items if "label" in item})


def _name_patients(items: list[Item], path: str | os.PathLike, dataset_dir: str | os.PathLike) -> None:
    """Give each item that a CSV file lists the key ``patient``."""
    names = read_patients(path)
    unknown = sorted(set(names) - {item["case"] for item in items})
    if unknown:
        raise ValueError(
            f"{path}: {len(unknown)} of its {len(names)} cases are not in {dataset_dir}, e.g. {shortened(unknown)}. "
            "Cases are named after their folders: `python -m tools check` prints the names."
        )
    for item in items:
        if item["case"] in names:
            item["patient"] = names[item["case"]]


def _refuse_repeated(parts: Parts, path: str | os.PathLike) -> None:
    """Refuse a case that is listed twice, since in two parts it would be both trained and tested on."""
    place: dict[str, str] = {}
    for part, items in parts.items():
        for item in items:
            if item["case"] in place:
                raise ValueError(
                    f"{path}: case {item['case']} is listed in {place[item['case']]} and in {part}; list each case "
                    "once."
                )
            place[item["case"]] = part


def _with_paths(parts: Parts, change: Callable[[str], str]) -> Parts:
    """Return the parts with ``change`` applied to every path."""

    def changed(item: Item) -> Item:
        label = {"label": change(item["label"])} if "label" in item else {}
        return {**item, "image": [change(path) for path in item["image"]], **label}

    return {part: [changed(item) for item in items] for part, items in parts.items()}
