"""The cases of a cohort as datalist items: the parts to train, validate and test on, or all cases in a folder."""

from collections.abc import Sequence
from pathlib import Path

from common.cohorts.datalist import load_datalist
from common.cohorts.registry import PHANTOM, get_cohort
from common.cohorts.scan import Item, find_cases
from common.cohorts.splits import ALL_TEST, PARTS, Parts, refuse_other_names, refuse_shared_patients, split_cases
from common.modalities import resolve_subset, subset_name
from common.text import shortened


def prepare(
    cohort: str, dataset_dir: str | Path, split: str | None = None, datalist: str | Path | None = None, seed: int = 0
) -> Parts:
    """Return the cases to train, validate and test on, with absolute paths.

    Returns ``training``, ``validation`` and ``test``: items with ``case``, ``image``, ``modalities`` and ``label``. No
    image is opened.

    Args:
        dataset_dir: the cohort's folder as downloaded, or as `generate_phantom` wrote it.
        split: name of a split; see `split_cases`. The phantom has its own split, which only ``all_test`` replaces. With
            ``datalist`` it is ignored.
        datalist: JSON file to read instead of scanning and splitting the folder.
    """
    definition = get_cohort(cohort)
    if split is not None and not isinstance(split, str):
        raise ValueError(f"split {split!r}: expected the name of a split, as text (key `split`).")
    if datalist is None and definition is PHANTOM and split != ALL_TEST:
        if split is not None:
            raise ValueError(
                f"split {split!r} has no effect: the phantom has its own split; expected null or {ALL_TEST}."
            )
        datalist = Path(dataset_dir) / "datalist.json"
    if datalist is None:
        parts = split_cases(definition, dataset_dir, split, seed)
    else:
        parts = load_datalist(datalist, dataset_dir, cohort)
        if definition is not PHANTOM:
            refuse_other_names([item for part in PARTS for item in parts[part]], definition, datalist)
    if definition is not PHANTOM:
        refuse_shared_patients(parts, datalist or dataset_dir)
    return parts


def take(parts: Parts, names: str | Sequence[str] | None, at_least: int = 0) -> list[Item]:
    """Return the items of one or several parts, one part after the other; None gives an empty list."""
    names = names or []
    names = [names] if isinstance(names, str) else names
    unknown = [name for name in names if name not in parts]
    if unknown:
        raise ValueError(f"Unknown part {unknown[0]!r} of a cohort; expected one of {', '.join(PARTS)}.")
    items = [item for name in names for item in parts[name]]
    if len(items) < at_least:
        raise ValueError(
            f"{len(items)} cases in {' and '.join(names)}; expected at least {at_least}. Add cases to the datalist, "
            "choose another split, or use a smaller batch."
        )
    return items


def cases(cohort: str, dataset_dir: str | Path, modalities: Sequence[str] | None = None) -> list[Item]:
    """Return the cases in a folder, labelled or not, e.g. for inference; for a generated phantom, its test cases.

    ``dataset_dir`` is one subject's folder or a folder of subjects (see `find_cases`). Each case has to have at least
    one of ``modalities``; None stands for all of the cohort's.
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
            f"{folder}: {len(without)} of {len(items)} cases have none of the requested modalities "
            f"({subset_name(wanted)}): {shortened(without)}. Request at least one modality that they "
            "have, or move these cases away."
        )
    return items
