"""Where data comes from: the cohorts by name, and their cases as datalist items."""

from __future__ import annotations

from pathlib import Path

from common.cohorts import brats, phantom
from common.cohorts.brats import Item, find_cases
from common.cohorts.cohort import Cohort
from common.cohorts.datalist import Parts, load_datalist, split_cases
from common.cohorts.phantom import PHANTOM

COHORTS: dict[str, Cohort] = {PHANTOM.name: PHANTOM, **brats.COHORTS}


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
        cohort: its name; ``phantom`` is generated into ``dataset_dir`` if it is not there.
        dataset_dir: the cohort's folder as downloaded.
        split: see `split_cases`; the phantom has one of its own.
        datalist: JSON file to take instead of scanning and splitting.
        seed: of a seeded split.

    Returns:
        ``training``, ``validation`` and ``test``: items with ``case``, ``image``, ``modalities`` and ``label``.

    Raises:
        FileNotFoundError: the folder, the datalist or a listed file is not there.
        ValueError: unknown cohort or split, a datalist of another cohort, or files that cannot be told apart.
    """
    definition = get_cohort(cohort)
    if datalist is None and definition is PHANTOM:
        dataset_dir = phantom.generate(dataset_dir)
        datalist = dataset_dir / "datalist.json"
    if datalist is None:
        return split_cases(definition, dataset_dir, split, seed)
    return load_datalist(datalist, dataset_dir, cohort)


def cases(cohort: str, dataset_dir: str | Path) -> list[Item]:
    """Return the cases in a folder, labelled or not, e.g. for inference; of a generated phantom its test cases.

    Args:
        cohort: its name; ``phantom`` is generated if ``dataset_dir`` does not exist.
        dataset_dir: one subject's folder or a folder of subjects; see `find_cases`.

    Raises:
        FileNotFoundError: the folder does not exist or holds no image.
        ValueError: unknown cohort, or files that cannot be told apart.
    """
    folder = Path(dataset_dir)
    if cohort == PHANTOM.name and (not folder.exists() or (folder / "datalist.json").is_file()):
        return prepare(cohort, dataset_dir)["test"]
    return find_cases(folder, get_cohort(cohort))
