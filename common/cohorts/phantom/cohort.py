"""The phantom cohort: synthetic glioma patients with BraTS names and geometry, for demos and tests.

Real BraTS may not be redistributed, so this is what a bare run trains on. `common.cohorts.phantom.simulation` draws the
patients. No conclusion about patients, nor about one method being better than another, may rest on it.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import nibabel as nib
import numpy as np
from tqdm import tqdm

from common.cohorts.cohort import Cohort
from common.cohorts.datalist import write_datalist
from common.cohorts.phantom.simulation import LABELS, MODALITIES, SHAPE, SPACING, simulate
from common.modalities import tumour_labels

PHANTOM = Cohort("phantom", MODALITIES, tumour_labels(**LABELS))

DESCRIPTION = "synthetic phantom, not a patient"
README = """\
Phantom cohort: synthetic images, for demos and tests only.

No patient was scanned: anatomy, tumours and images are drawn from random numbers (seed {seed}) and the signal equations
of the MR sequences. Use them to try the software out. Do not draw clinical or scientific conclusions from them.

Files are named as in BraTS up to 2021; labels are 1 necrotic core, 2 oedema, 4 enhancing tumour.
datalist.json holds the split.
"""


def generate(dataset_dir: str | Path, subjects: int = 36, seed: int = 2023) -> Path:
    """Write the cohort: NIfTI files with BraTS names, ``datalist.json`` with the split, and a README.

    The folder appears only when it is complete, so an interrupted or a parallel call leaves no half of it.

    Args:
        dataset_dir: the folder to make; one that has a ``datalist.json`` is left as it is.
        subjects: 2/3 of them for training, 1/9 for validation, 2/9 for test. One in eight has no enhancing tumour.
        seed: of the whole cohort.

    Returns:
        ``dataset_dir``, absolute.

    Raises:
        ValueError: fewer subjects than the three parts of the split need.
        FileExistsError: the folder holds something else.
        OSError: the folder cannot be written (PermissionError where that is the reason).
    """
    folder = Path(dataset_dir).expanduser().resolve()
    if (folder / "datalist.json").exists():
        return folder
    if subjects < 3:
        raise ValueError(f"subjects is {subjects}; training, validation and test need at least 3.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists and has no datalist.json, so it is no data set and the phantom is not written over it. "
            "Choose a dataset_dir that does not exist yet, or make a datalist for the data that is there."
        )
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{folder.name}-") as temporary:
            draft = Path(temporary, folder.name)
            draft.mkdir()
            _write_cohort(draft, subjects, seed)
            _move(draft, folder)
    except OSError as error:
        reason = f"The phantom cannot be written to {folder}: {error.strerror}. Choose another dataset_dir."
        raise OSError(error.errno, reason) from error
    return folder


def _move(draft: Path, folder: Path) -> None:
    """Put a finished folder in its place, unless another process was faster."""
    try:
        os.replace(draft, folder)
    except OSError:
        if not (folder / "datalist.json").exists():
            raise


def _write_cohort(folder: Path, subjects: int, seed: int) -> None:
    items = []
    for number in tqdm(range(1, subjects + 1), desc="Drawing the phantom cohort", unit="subject"):
        images, label = simulate(1000 * seed + number, enhancing=number % 8 != 6)
        items.append(_write_subject(folder, f"Phantom_{number:03d}", images, label))
    validation, test = max(1, round(subjects / 9)), max(1, round(2 * subjects / 9))
    training = subjects - validation - test
    datalist = {
        "name": PHANTOM.name,
        "description": DESCRIPTION,
        "cohort": PHANTOM.name,
        "modalities": PHANTOM.modalities,
        "labels": PHANTOM.labels.values,
        "split": PHANTOM.name,
        "seed": seed,
        "numTraining": training,
        "training": items[:training],
        "validation": items[training : training + validation],
        "test": items[training + validation :],
    }
    (folder / "README.txt").write_text(README.format(seed=seed), encoding="utf-8")
    write_datalist(datalist, folder / "datalist.json")


def _write_subject(folder: Path, case: str, images: dict[str, np.ndarray], label: np.ndarray) -> dict[str, object]:
    """Write the files of one subject and return its item of the datalist."""
    (folder / case).mkdir()
    paths = {name: f"{case}/{case}_{'t1ce' if name == 't1c' else name}.nii.gz" for name in (*images, "seg")}
    affine = np.diag([-SPACING, -SPACING, SPACING, 1])
    affine[1, 3] = (SHAPE[1] - 1) * SPACING
    for name, voxels in (images | {"seg": label}).items():
        image = nib.Nifti1Image(voxels, affine)
        image.header["descrip"] = DESCRIPTION
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / paths[name])
    return {
        "case": case,
        "image": [paths[name] for name in PHANTOM.modalities],
        "modalities": PHANTOM.modalities,
        "label": paths["seg"],
    }
