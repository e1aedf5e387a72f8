"""Incomplete training data: each subject lacks certain modalities, the same ones in every epoch.

A subject's missing modalities are removed from its datalist item, so their files are never opened. Source: PASSION (Shi
et al., ACM MM 2024), "imperfect data training". ``data/passion_masks.csv`` has the masks that its authors drew for
their training cases of BraTS 2018 (split fold1) and 2020 (split fixed), from their repository (Jun-Jie-Shi/PASSION,
Apache-2.0). The digits in a setting's name (``mr2468``) are ten times the missing rates of T1, T1c, FLAIR and T2.
"""

import csv
import logging
import os
import re
from collections.abc import Iterable, Sequence
from math import prod
from pathlib import Path

import numpy as np
import pandas as pd

from common.cohorts.registry import patient_of
from common.cohorts.scan import Item
from common.io.tables import by_case, read_table
from common.modalities import resolve_subset, subset_name, subsets
from common.text import shortened

logger = logging.getLogger(__name__)
MASKS_FILE = Path(__file__).parent / "data" / "passion_masks.csv"
PASSION_MASKS = (
    *("t2", "t1c", "t1", "flair"),
    *("t1c+t2", "t1c+t1", "flair+t1", "t1+t2", "flair+t2", "flair+t1c"),
    *("flair+t1c+t1", "flair+t1+t2", "flair+t1c+t2", "t1c+t1+t2", "flair+t1c+t1+t2"),
)
"""What each ``mask_id`` in the files of PASSION's authors stands for."""
Masks = dict[str, tuple[str, ...]]
"""Case -> the modalities that it has, in the cohort's order."""


def mask_cases(
    items: Sequence[Item],
    modalities: Sequence[str],
    missing_rates: Sequence[float] | None = None,
    masks: str | os.PathLike | None = None,
    cohort: str | None = None,
    seed: int = 1037,
) -> list[Item]:
    """Return training items without the modalities that each of them should lack, and log the resulting missing rates.

    Args:
        items: the training cases of a datalist.
        missing_rates: one missing rate for each modality; see `draw_masks`. A patient's cases lack the same ones. None
            or zeros leave the items unchanged.
        masks: instead of rates, a published setting of the cohort (``mr2468``), or a CSV file with the columns ``case``
            and ``modalities`` (those that the case has, e.g. ``t1+flair``) and a row for every training case. PASSION's
            own files are read too (columns ``data_name`` and ``mask_id``).
        cohort: name of the cohort; required for published masks.
    """
    if missing_rates is not None:
        _check_rates(missing_rates, modalities)
    drawn = missing_rates if any(missing_rates or ()) else None
    if drawn and masks is not None:
        raise ValueError(f"missing_rates {list(drawn)} and masks {masks}: set one of these keys to null.")
    names = [item["case"] for item in items]
    if drawn:
        of_patients = draw_masks({patient_of(item) for item in items}, drawn, modalities, seed)
        present = {item["case"]: of_patients[patient_of(item)] for item in items}
    elif masks is not None:
        present = read_masks(masks, names, modalities, cohort)
    else:
        return list(items)
    masked = [_masked(item, present[item["case"]]) for item in items]
    rates = (
        f"{modality} {sum(modality not in item['modalities'] for item in masked) / len(masked):.3f}"
        for modality in modalities
    )
    logger.info(f"missing rates of the {len(masked)} training cases: {', '.join(rates)}")
    return masked


def counts_of(items: Iterable[Item], modalities: Sequence[str]) -> list[int]:
    """Return how many items have each modality, in the order of ``modalities``; warn if none has a modality."""
    given = [item["modalities"] for item in items]
    counts = [sum(modality in names for names in given) for modality in modalities]
    for modality in (name for name, count in zip(modalities, counts, strict=True) if not count):
        logger.warning(f"None of {len(given)} training cases has {modality}; the network will not learn to use it.")
    return counts


def require_complete(items: Sequence[Item], modalities: Sequence[str], method: str) -> list[Item]:
    """Return training cases if all have every modality; otherwise raise a ValueError that names the method."""
    lacking = [item["case"] for item in items if not set(modalities) <= set(item["modalities"])]
    if lacking:
        raise ValueError(
            f"{len(lacking)} of {len(items)} training cases lack a modality, e.g. {shortened(lacking)}, but {method} "
            f"needs all of {', '.join(modalities)} for training. Leave these cases out of the datalist, or train with "
            "PASSION."
        )
    return list(items)


def draw_masks(cases: Iterable[str], rates: Sequence[float], modalities: Sequence[str], seed: int = 1037) -> Masks:
    """Draw which modalities each case has, as PASSION's authors did; the order of the cases does not matter.

    ``rates`` are the fractions of cases that lack each modality, in the order of ``modalities``. Let p be the
    probability of a non-empty subset if modalities are missing independently. The subset is assigned to ``int(N p)`` of
    the N cases, chosen at random, and to at least one (if p is not 0 and N is large enough). About as many cases are
    left over as would have no modality. Each of these draws every modality by its rate, and again until it has at least
    one. So every subset occurs, and the rates are met up to the fraction of cases left over.
    """
    rng, names = np.random.default_rng(seed), sorted(cases)
    rate = dict(zip(modalities, rates, strict=True))
    chances = {
        subset: prod(1 - rate[modality] if modality in subset else rate[modality] for modality in modalities)
        for subset in subsets(modalities)
    }
    counts = {subset: max(1, int(len(names) * chance)) if chance else 0 for subset, chance in chances.items()}
    if sum(counts.values()) > len(names):
        counts = {subset: int(len(names) * chance) for subset, chance in chances.items()}
    dealt = [subset for subset, count in counts.items() for _ in range(count)]
    dealt += [()] * (len(names) - len(dealt))
    masks = {name: dealt[place] for name, place in zip(names, rng.permutation(len(names)), strict=True)}
    for name in names:
        while not masks[name]:
            masks[name] = tuple(modality for modality in modalities if rng.random() >= rate[modality])
    return masks


def published_masks(cohort: str) -> dict[str, Masks]:
    """Return the published masks of a cohort: setting -> case -> modalities; empty if it has none."""
    settings: dict[str, Masks] = {}
    with MASKS_FILE.open(newline="") as file:
        for row in csv.DictReader(file):
            if row.pop("cohort") == cohort:
                case = row.pop("case")
                for setting, names in row.items():
                    if names:
                        settings.setdefault(setting, {})[case] = tuple(names.split("+"))
    return settings


def read_masks(
    masks: str | os.PathLike, cases: Sequence[str], modalities: Sequence[str], cohort: str | None = None
) -> Masks:
    """Return the modalities of each case from a published setting or a CSV file; see `mask_cases`."""
    published = published_masks(cohort) if cohort else {}
    if masks in published:
        source, listed = f"masks {masks} of {cohort}", published[masks]
    elif os.path.isfile(masks):
        source, listed = str(masks), _read_csv(masks, modalities)
    else:
        of = f"cohort {cohort}" if cohort else "this cohort"
        settings = f"one of {cohort}'s settings ({', '.join(published)})" if published else f"a setting ({of} has none)"
        raise FileNotFoundError(f"masks {str(masks)!r}: expected {settings} or a CSV file (key `masks`).")
    wanted = {case.lower(): case for case in cases}  # releases differ in case: Brats18_, BraTS18_
    given = {case.lower(): names for case, names in listed.items()}
    for what, names in (
        ("are not among the training cases", [case for case in listed if case.lower() not in wanted]),
        ("are training cases that it does not list", [wanted[key] for key in wanted if key not in given]),
    ):
        if names:
            raise ValueError(
                f"{source}: {len(names)} cases {what}: {shortened(names)}. Each training case needs one row; choose "
                "the masks that belong to the split (keys `masks`, `split`)."
            )
    return {case: given[key] for key, case in wanted.items()}


def _read_csv(path: str | os.PathLike, modalities: Sequence[str]) -> Masks:
    table = read_table(path)
    if {"data_name", "mask_id"} <= {*table}:
        table = _of_passion(table, path)
    if not {"case", "modalities"} <= {*table}:
        raise ValueError(
            f"{path}: columns {', '.join(table)}; expected case and modalities (e.g. t1+flair), or data_name and "
            "mask_id as in PASSION's files."
        )
    listed: Masks = {}
    for case, names in by_case(table, "modalities", path).items():
        try:
            listed[case] = resolve_subset(names, modalities)
        except ValueError as error:
            raise ValueError(f"{path}: case {case}: {error} Expected names joined by +, e.g. t1+flair.") from error
    return listed


def _of_passion(table: pd.DataFrame, path: str | os.PathLike) -> pd.DataFrame:
    """Return PASSION's table with the columns ``case`` and ``modalities``."""
    if unknown := sorted({*table["mask_id"]} - {*map(str, range(len(PASSION_MASKS)))}):
        raise ValueError(f"{path}: mask_id {shortened(unknown)}; expected 0 to {len(PASSION_MASKS) - 1}.")
    cases = table["data_name"].str.replace(r"^[HL]GG?_(?=BraTS)", "", regex=True, flags=re.IGNORECASE)
    return pd.DataFrame({"case": cases, "modalities": table["mask_id"].map(int).map(PASSION_MASKS.__getitem__)})


def _masked(item: Item, present: Sequence[str]) -> Item:
    """Return an item with only those of its modalities that its mask keeps."""
    kept = [number for number, name in enumerate(item["modalities"]) if name in present]
    if not kept:
        raise ValueError(
            f"{item['case']}: its mask leaves {subset_name(present)}, but the case has only "
            f"{subset_name(item['modalities'])}; at least one modality must remain. Change its mask (key `masks`), or "
            "leave the case out."
        )
    parallel = [key for key in ("image", "modalities", "channels") if key in item]
    return {**item, **{key: [item[key][number] for number in kept] for key in parallel}}


def _check_rates(rates: Sequence[float], modalities: Sequence[str]) -> None:
    numbers = isinstance(rates, Sequence) and all(isinstance(rate, int | float) and 0 <= rate <= 1 for rate in rates)
    if not numbers or len(rates) != len(modalities) or min(rates) == 1:
        raise ValueError(
            f"missing_rates {rates!r}: expected {len(modalities)} numbers from 0 to 1, not all of them 1, for "
            f"{', '.join(modalities)} in this order."
        )
