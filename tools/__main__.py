"""The verbs of ``python -m tools``."""

from __future__ import annotations

import logging
import os
import sys

import fire
import torch

from common.cohorts import get_cohort
from common.cohorts.check import check_folder
from common.cohorts.datalist import PARTS, make_datalist, write_datalist
from common.io import published, read_checkpoint, write_checkpoint


def datalist(cohort: str, dataset_dir: str, output: str, split: str | None = None, seed: int = 0) -> None:
    """Write a datalist JSON for a cohort's folder.

    Args:
        cohort: brats2015, brats2018, brats2019, brats2020, brats2021, brats2023 (and later) or msd_task01.
        dataset_dir: the folder as downloaded.
        output: the JSON file to write; its paths are relative to dataset_dir.
        split: a published one (brats2018: fold1, fold2, fold3), full, or seeded, the default.
        seed: of a seeded split.
    """
    made = make_datalist(get_cohort(cohort), dataset_dir, split, seed)
    write_datalist(made, output)
    print(f"{output}: " + ", ".join(f"{len(made[part])} {part}" for part in PARTS))


def check(cohort: str, dataset_dir: str) -> None:
    """Print what a data folder holds as a table, one row per case, then the problems; exit with 1 if there are any.

    Args:
        cohort: brats2015, brats2018, brats2019, brats2020, brats2021, brats2023 (and later) or msd_task01.
        dataset_dir: the folder as downloaded, or one subject's.
    """
    table = check_folder(get_cohort(cohort), dataset_dir)
    bad = table[table["problems"] != ""]
    print(table.drop(columns="problems").to_string(index=False, na_rep=""))
    print("\n".join([f"{len(table)} cases, {len(bad)} with problems", *(bad["case"] + ": " + bad["problems"])]))
    if len(bad):
        sys.exit(1)


def import_m3ae(checkpoint: str, output: str) -> None:
    """Turn a checkpoint that M3AE's authors published (a plain state dict) into weights for this bundle.

    Args:
        checkpoint: their file; it is read with weights_only=True.
        output: the file to write, for ckpt_path.
    """
    state = read_checkpoint(checkpoint)
    weights = published.import_m3ae(state.get("state_dict", state))
    write_checkpoint(weights, output)
    print(f"{output}: {len(weights)} tensors")


def half(checkpoint: str, output: str) -> None:
    """Write weights in half precision, for shipping: half the size, loaded into float32 networks as they are.

    Args:
        checkpoint: a plain state dict, e.g. finetuned.pt.
        output: the file to write, e.g. models/model.pt.
    """
    state = read_checkpoint(checkpoint)
    if not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise ValueError(
            f"{checkpoint}: a file to resume from, not weights; expected a plain state dict (finetuned.pt)."
        )
    write_checkpoint({key: value.half() for key, value in state.items()}, output)
    print(f"{output}: {len(state)} tensors, {os.path.getsize(output) / 1e6:.1f} MB")


def main() -> None:
    """Run a verb; what is wrong with the user's files is said in one line, without a traceback."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s")
    try:
        fire.Fire({"datalist": datalist, "check": check, "import_m3ae": import_m3ae, "half": half}, name="tools")
    except (ValueError, OSError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
