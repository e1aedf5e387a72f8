"""Measure how well `predict` tells T1 from T1c by their content, on the brains of open_glioma and beneath heads.

Run: PYTHONPATH=.:tests python tests/bench/bench_told_apart.py DATASET_DIR

Every case is judged by a network that was not trained on its patient. Once its T1 and T1c have names that do not tell
which is which: this is right, refused or wrong. Once all four sequences have their right names: a warning is false.
Then the same again with a head simulated around each brain, which is stripped as `predict` does. It takes about ten
minutes for the networks, and half a minute of one CPU core for each case.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

import fire
import nibabel as nib
import numpy as np
import pandas as pd
import torch
from heads import with_heads
from tqdm import tqdm

from clinic.choice import contradictions
from clinic.study.reading import confirmed, read_folder
from common.cohorts import get_cohort, sequence_check
from common.cohorts.datalist import split_cases
from common.modalities import GLIOMA
from tools.maintenance.sequence_check import FOLDS, describe, networks_of_others

COHORT = get_cohort("open_glioma")
CPU = torch.device("cpu")


def outcome(images: Mapping[str, nib.Nifti1Image]) -> str:
    """Return right, refused or wrong: what is said of T1 and T1c ``(X, Y, Z)`` whose names do not tell them apart."""
    with TemporaryDirectory() as folder:
        for number, name in enumerate(("t1", "t1c"), start=1):
            nib.save(images[name], Path(folder, f"{number} T1.nii"))
        try:
            found = read_folder(folder, COHORT).images
        except ValueError:
            return "refused"
    return "right" if np.array_equal(found["t1"].dataobj, images["t1"].dataobj) else "wrong"


def warned(images: Mapping[str, nib.Nifti1Image]) -> bool:
    """Return whether it is said that images ``(X, Y, Z)`` with their right names do not show what they are."""
    with TemporaryDirectory() as folder:
        for name, image in images.items():
            nib.save(image, Path(folder, f"x_{name}.nii"))
        study, *_ = confirmed(read_folder(folder, COHORT), None, CPU, "auto")
        return any(contradictions(study.used))


def main(dataset_dir: str) -> None:
    """Print a table of the outcomes, and the cases that are not right or are warned of."""
    networks = networks_of_others(dataset_dir, *describe(dataset_dir))
    items = {item["case"]: item for part in split_cases(COHORT, dataset_dir, f"cv1of{FOLDS}").values() for item in part}
    rows = []
    for case, network in tqdm(networks.items(), unit="case"):
        files = dict(zip(items[case]["modalities"], items[case]["image"], strict=True))
        read = {name: nib.load(files[name]) for name in GLIOMA}
        brains = {name: np.asarray(image.dataobj) for name, image in read.items()}
        for what, volumes in (("brains", brains), ("heads", with_heads(brains, spacing=1.0))):
            images = {name: nib.Nifti1Image(volume, read[name].affine) for name, volume in volumes.items()}
            with patch.object(sequence_check, "_network", lambda network=network: network):
                rows.append({"case": case, "images": what, "outcome": outcome(images), "warned": warned(images)})
    table = pd.DataFrame(rows)
    print(table[(table.outcome != "right") | table.warned].to_string(index=False))
    print(table.groupby("images").agg(
        right=("outcome", lambda said: (said == "right").sum()),
        refused=("outcome", lambda said: (said == "refused").sum()),
        wrong=("outcome", lambda said: (said == "wrong").sum()),
        warned=("warned", "sum"),
    ).to_string())  # fmt: skip


if __name__ == "__main__":
    fire.Fire(main)
