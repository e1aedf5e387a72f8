"""Where data comes from: the cohorts by name, and their cases as datalist items."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common.cohorts import brats
from common.cohorts.brats import Item, find_cases, shortened
from common.cohorts.cohort import Cohort
from common.cohorts.datalist import ALL_TEST, PARTS, Parts, load_datalist, split_cases
from common.cohorts.iseg import ISEG
from common.cohorts.missing import counts_of, mask_cases, require_complete
from common.cohorts.myops import MYOPS
from common.cohorts.phantom.cohort import PHANTOM
from common.cohorts.phantom.cohort import generate as generate_phantom
from common.io.settings import optional
from common.modalities import resolve_subset, subset_name

__all__ = [
    "COHORTS",
    "Cohort",
    "cases",
    "counts_of",
    "generate_phantom",
    "get_cohort",
    "mask_cases",
    "prepare",
    "require_complete",
    "take",
]

COHORTS: dict[str, Cohort] = {PHANTOM.name: PHANTOM, **brats.COHORTS, MYOPS.name: MYOPS, ISEG.name: ISEG}


def get_cohort(name: str) -> Cohort:
    """Return a cohort by name.

    Raises:
        ValueError: there is none of that name; the message lists those that there are.
    """
    if name not in COHORTS:
        raise ValueError(f"Unknown cohort {name!r}; expected one of {', '.join(COHORTS)} (key `cohort`).")
    return COHORTS[name]


def prepare(
    cohort: str,
    dataset_dir: str | Path,
    split: str | None = None,
    datalist: str | Path | None = None,
    seed: int = 0,
) -> Parts:
    """Return the cases to train, validate and test on, with absolute paths.

    Args:
        cohort: its name.
        dataset_dir: the cohort's folder as downloaded, or as `generate_phantom` wrote it.
        split: see `split_cases`; the phantom has one of its own, which only ``all_test`` replaces. A datalist has its
            own in any case.
        datalist: JSON file to take instead of scanning and splitting.
        seed: of a seeded split.

    Returns:
        ``training``, ``validation`` and ``test``: items with ``case``, ``image``, ``modalities`` and ``label``.

    Raises:
        FileNotFoundError: the folder, the datalist or a listed file is not there.
        ValueError: unknown cohort or split, a datalist of another cohort, or files that cannot be told apart.
    """
    definition = get_cohort(cohort)
    if datalist is None and definition is PHANTOM and split != ALL_TEST:
        if optional(split) is not None:
            raise ValueError(
                f"split {split!r} would not act: the phantom has one of its own; expected null or {ALL_TEST}."
            )
        datalist = Path(dataset_dir) / "datalist.json"
    if datalist is None:
        return split_cases(definition, dataset_dir, split, seed)
    return load_datalist(datalist, dataset_dir, cohort)


def take(parts: Parts, names: str | Sequence[str] | None, at_least: int = 0) -> list[Item]:
    """Return the items of one part, or of several one after the other; of None none.

    Raises:
        ValueError: there is no such part, or there are fewer items than ``at_least``.
    """
    names = optional(names) or []
    names = [names] if isinstance(names, str) else names
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise ValueError(f"Unknown part {unknown[0]!r} of a cohort; expected {', '.join(PARTS)}.")
    items = [item for name in names for item in parts[name]]
    if len(items) < at_least:
        raise ValueError(
            f"{len(items)} cases in {' and '.join(names)}; at least {at_least} are needed. Add cases to the datalist, "
            "choose another split, or take a smaller batch."
        )
    return items


def cases(cohort: str, dataset_dir: str | Path, modalities: Sequence[str] | None = None) -> list[Item]:
    """Return the cases in a folder, labelled or not, e.g. for inference; of a generated phantom its test cases.

    Args:
        cohort: its name.
        dataset_dir: one subject's folder or a folder of subjects; see `find_cases`.
        modalities: each case has to have at least one of these; None: of all.

    Raises:
        FileNotFoundError: the folder does not exist or holds no image.
        ValueError: unknown cohort or modality, files that cannot be told apart, or cases without any of the modalities.
    """
    folder, definition = Path(dataset_dir), get_cohort(cohort)
    if definition is PHANTOM and (folder / "datalist.json").is_file():
        items = prepare(cohort, dataset_dir)["test"]
    else:
        items = find_cases(folder, definition)
    wanted = resolve_subset(modalities, definition.modalities)
    without = [item["case"] for item in items if not set(wanted) & set(item["modalities"])]
    if without:
        raise ValueError(
            f"{folder}: {len(without)} cases have none of the requested modalities ({subset_name(wanted)}): "
            f"{shortened(without)}. At least one is needed; request others, or move these cases away."
        )
    return items
