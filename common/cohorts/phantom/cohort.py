"""The phantom cohort: synthetic glioma patients with BraTS names and geometry, for demos and tests.

Real BraTS data may not be redistributed, so the default configs train on this cohort. The patients are drawn by
`common.cohorts.phantom.simulation`. Results on it support no conclusion about patients or about the merit of methods.
"""

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from tqdm import tqdm

from common import text
from common.cohorts.brats import PHANTOM
from common.cohorts.datalist import write_datalist
from common.cohorts.phantom.simulation import SHAPE, SPACING, simulate
from common.io.files import require_writable

README = """\
Phantom cohort: synthetic images, for demos and tests only.

No patient was scanned: anatomy, tumours and images are drawn from random numbers (seed {seed}) and the signal equations
of the MR sequences. Use them to try the software out. Do not draw clinical or scientific conclusions from them.

Files are named as in BraTS up to 2021; labels are 1 necrotic core, 2 oedema, 4 enhancing tumour.
"""
SPLIT = "datalist.json holds the split.\n"


def generate(dataset_dir: str | Path, subjects: int = 36, seed: int = 2023, with_split: bool = True) -> Path:
    """Write the cohort: NIfTI files with BraTS names, ``datalist.json`` with the split, and a README.

    The folder appears only when it is complete, so an interrupted or concurrent call never leaves a partial one.
    Returns the absolute path of ``dataset_dir``. Raises ValueError if there are fewer subjects than the three parts of
    the split need; FileExistsError if the folder holds anything else; PermissionError if the folder cannot be written.

    A folder that has a ``datalist.json`` is left unchanged; without a split there is none. Of the subjects 2/3 are for
    training, 1/9 for validation, 2/9 for test; one in eight has no enhancing tumour.
    """
    folder = Path(dataset_dir).expanduser().resolve()
    if (folder / "datalist.json").exists():
        return folder
    if subjects < (least := 3 if with_split else 1):
        parts = ", for training, validation and test" if with_split else ""
        raise ValueError(f"subjects {subjects}: expected at least {least}{parts}.")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(
            f"{folder} exists but has no datalist.json, so it is not a data set; the phantom does not overwrite it. "
            "Choose a dataset_dir that does not exist yet, or make a datalist for the data in this folder."
        )
    with TemporaryDirectory(prefix=".", dir=require_writable(folder.parent)) as temporary:
        draft = Path(temporary, folder.name)
        draft.mkdir()
        _write_cohort(draft, subjects, seed, with_split)
        try:
            os.replace(draft, folder)
        except OSError:
            if not (folder / "datalist.json").exists():  # else another process has written it meanwhile
                raise
    return folder


def draw(number: int, seed: int) -> tuple[str, dict[str, np.ndarray], np.ndarray]:
    """Return the name, the images and the label map (see `simulate`) of a subject; numbers start at 1."""
    images, label = simulate(1000 * seed + number, enhancing=number % 8 != 6)
    return f"Phantom_{number:03d}", images, label


def _write_cohort(folder: Path, subjects: int, seed: int, with_split: bool) -> None:
    items = []
    for number in tqdm(range(1, subjects + 1), desc="Drawing the phantom cohort", unit="subject"):
        items.append(_write_subject(folder, *draw(number, seed)))
    readme = README.format(seed=seed) + (SPLIT if with_split else "")
    (folder / "README.txt").write_text(readme, encoding="utf-8")
    if not with_split:
        return
    validation, test = max(1, round(subjects / 9)), max(1, round(2 * subjects / 9))
    training = subjects - validation - test
    datalist = {
        "name": PHANTOM.name,
        "description": text.PHANTOM,
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
    write_datalist(datalist, folder / "datalist.json")


def _write_subject(folder: Path, case: str, images: dict[str, np.ndarray], label: np.ndarray) -> dict[str, object]:
    """Write the files of one subject and return its item of the datalist."""
    (folder / case).mkdir()
    paths = {name: f"{case}/{case}_{'t1ce' if name == 't1c' else name}.nii.gz" for name in (*images, "seg")}
    affine = np.diag([-SPACING, -SPACING, SPACING, 1])
    affine[1, 3] = (SHAPE[1] - 1) * SPACING
    for name, voxels in (images | {"seg": label}).items():
        image = nib.Nifti1Image(voxels, affine)
        image.header["descrip"] = text.PHANTOM
        image.header.set_xyzt_units("mm")
        nib.save(image, folder / paths[name])
    return {
        "case": case,
        "image": [paths[name] for name in PHANTOM.modalities],
        "modalities": PHANTOM.modalities,
        "label": paths["seg"],
    }
