"""A few cases of each data set in its publisher's folders and under its file names: empty files, or coarse phantoms."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np

from common.cohorts import get_cohort
from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import patient
from common.modalities import GLIOMA

SHAPE, SPACING = (40, 40, 26), 6.0


class Layout(NamedTuple):
    """How a publisher names files; ``{p}`` is a case's patient, ``{t}`` the rest of its name."""

    case: str  # pattern of a case's name, of the patient's number
    image: str  # path of an image, with ``{token}``
    label: str
    tokens: str = "t1 t1ce t2 flair"  # of T1, T1c, T2 and FLAIR
    times: tuple[str, ...] = ("",)  # what follows the patient in the names of each patient's cases
    others: tuple[str, ...] = ()  # files that are neither image nor label


def _since_2023(kind: str, *times: str) -> Layout:
    tokens, case = "t1n t1c t2w t2f", f"BraTS-{kind}-{{:05d}}"
    return Layout(case, "{case}/{case}-{token}", "{case}/{case}-seg", tokens, tuple(f"-{time}" for time in times))


_UNDERSCORES = ("{case}/{case}_{token}", "{case}/{case}_seg")
_LUMIERE = "{p}/{t}/DeepBraTumIA-segmentation/"
LAYOUTS = {
    "brats2018": Layout("Brats18_TCIA08_{:03d}_1", "HGG/{case}/{case}_{token}", "HGG/{case}/{case}_seg"),
    "brats2019": Layout("BraTS19_CBICA_{:03d}_1", *_UNDERSCORES),
    "brats2020": Layout("BraTS20_Training_{:03d}", *_UNDERSCORES),
    "brats2021": Layout("BraTS2021_{:05d}", *_UNDERSCORES),
    "brats2023": _since_2023("GLI", "000", "001"),
    "brats2024_gli": _since_2023("GLI", "100", "101"),
    "brats_africa": _since_2023("SSA", "000"),
    "brats_men": _since_2023("MEN", "000"),
    "brats_met": _since_2023("MET", "000"),
    "brats2025_met": _since_2023("MET", "000", "001"),
    "brats_ped": _since_2023("PED", "000"),
    "brats2023_ped": _since_2023("PED", "000"),
    "open_glioma": _since_2023("SSA", "000"),
    "ucsf_pdgm": Layout(
        *("UCSF-PDGM-{:04d}", "{case}_nifti/{case}_{token}", "{case}_nifti/{case}_tumor_segmentation"),
        *("T1 T1c T2 FLAIR", ("", "_FU003d")),
        ("{case}_nifti/{case}_brain_segmentation", "{case}_nifti/{case}_T1_bias", "{case}_nifti/{case}_ADC"),
    ),
    "upenn_gbm": Layout(
        *("UPENN-GBM-{:05d}", "images_structural/{case}/{case}_{token}", "images_segm/{case}_segm"),
        *("T1 T1GD T2 FLAIR", ("_11", "_21")),
        ("automated_segm/{case}_automated_approx_segm", "images_structural_unstripped/{case}/{case}_T1_unstripped"),
    ),
    "mu_glioma_post": Layout(
        *("PatientID_{:04d}", "{p}/{t}/{case}_brain_{token}", "{p}/{t}/{case}_tumorMask"),
        *("t1n t1c t2w t2f", ("_Timepoint_1", "_Timepoint_2")),
    ),
    "ucsd_ptgbm": Layout(
        *("UCSD-PTGBM-{:04d}", "{case}/{case}_{token}", "{case}/{case}_BraTS_tumor_seg", "T1pre T1post T2 FLAIR"),
        *(("_01", "_02"), ("{case}/{case}_total_cellular_tumor_seg",)),
    ),
    "rhuh_gbm": Layout(*("RHUH-{:04d}", "{p}/{t}/{case}_{token}", "{p}/{t}/{case}_segmentations"), times=("_0", "_2")),
    "tcga_glioma": Layout(
        *("TCGA-02-{:04d}", "{case}/{case}_1996.08.23_{token}"),
        *("{case}/{case}_1996.08.23_GlistrBoost_ManuallyCorrected", "t1 t1Gd t2 flair"),
        others=("{case}/{case}_1996.08.23_GlistrBoost",),
    ),
    "lumiere": Layout(
        *("Patient-{:03d}", _LUMIERE + "atlas/skull_strip/{token}_skull_strip"),
        *(_LUMIERE + "atlas/segmentation/seg_mask", "t1 ct1 t2 flair", ("_week-000-1", "_week-044")),
        (_LUMIERE + "native/segmentation/ct1_seg_mask", "{p}/{t}/CT1"),
    ),
}


def cases_of(name: str, patients: int) -> list[str]:
    """Return the names of the first cases of a data set, sorted."""
    layout = LAYOUTS[name]
    return sorted(layout.case.format(number) + time for number in range(1, patients + 1) for time in layout.times)


def paths_of(name: str, case: str) -> tuple[list[str], str, list[str]]:
    """Return the paths of a case's four images, its label, and of other files."""
    layout, person = LAYOUTS[name], patient(case)
    known = {"case": case, "p": person, "t": case.removeprefix(f"{person}_")}
    images = [layout.image.format(**known, token=token) + ".nii.gz" for token in layout.tokens.split()]
    return images, layout.label.format(**known) + ".nii.gz", [o.format(**known) + ".nii.gz" for o in layout.others]


def touch(root: Path, *names: str) -> Path:
    """Make empty files."""
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def touch_cases(root: Path, name: str, patients: int = 6) -> Path:
    """Make the empty files of a data set."""
    for case in cases_of(name, patients):
        images, label, others = paths_of(name, case)
        touch(root, *images, label, *others)
    return root


def write_cases(root: Path, name: str, patients: int = 6) -> Path:
    """Write a data set of phantoms; each has every label value."""
    values = get_cohort(name).labels.meanings
    for number, case in enumerate(cases_of(name, patients)):
        images, drawn = _phantom(number % 3)
        rng, label = np.random.default_rng([number, *name.encode()]), np.zeros_like(drawn)
        label[drawn == 2], label[drawn == 4] = values["ED"], values["ET"]
        core = [value for key, value in values.items() if key not in ("ED", "ET")]
        for value, voxels in zip(core, np.array_split(np.argwhere(drawn == 1), len(core)), strict=True):
            label[tuple(voxels.T)] = value
        paths, label_path, _ = paths_of(name, case)
        noisy = [np.where(images[m] > 0, images[m] + rng.integers(9, size=SHAPE, dtype=np.int16), 0) for m in GLIOMA]
        for path, voxels in zip([*paths, label_path], [*noisy, label], strict=True):
            save(voxels, root / path)
    return root


def save(voxels: np.ndarray, path: Path, spacing: Sequence[float] = (SPACING,) * 3) -> None:
    """Write a NIfTI file whose axes are left, posterior and superior."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-spacing[0], -spacing[1], spacing[2], 1])), path)


@cache
def _phantom(number: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    return simulate(number, SHAPE, SPACING)
