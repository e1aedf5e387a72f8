"""Tiny stand-ins for cohorts that may not be redistributed, with official file names and label values, but fake images.

A dry run trains on them, so that users without the cohort's data can check that all of its tables can be produced. The
images show no patient, and numbers computed from them mean nothing.
"""

import csv
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from zlib import crc32

import itk
import nibabel as nib
import numpy as np

from common.cohorts.brats import MSD_CHANNELS
from common.cohorts.cohort import Cohort
from common.cohorts.datalist import COUNTS, CROSS_VALIDATION, PARTS, published_splits, write_datalist
from common.cohorts.missing import published_masks
from common.cohorts.patients import patient
from common.cohorts.phantom.cohort import generate
from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import PHANTOM
from common.cohorts.scan import find_cases
from common.io.files import replacing
from common.modalities import subset_name

CASES = {"training": 4, "validation": 1, "test": 2}
"""Number of cases in each part; a cross-validation fold trains on all cases that it neither validates nor tests on."""
SHAPE, SPACING = (40, 40, 26), 6.0  # size in voxels, and the voxel size in mm
Volumes = tuple[dict[str, np.ndarray], np.ndarray]
"""Images by modality, and the label map in the cohort's values."""


def write_stand_in(cohort: Cohort, folder: str | Path, split: str | None) -> Path:
    """Write a few cases with the file names of the cohort's publishers, and a datalist of them.

    The cases are the first ones of each part of a published split; each fold of a cross-validation tests on others.
    Returns the folder of the split, with ``datalist.json`` and, if the cohort has published masks of that split,
    ``<setting>.csv``. An existing one is left unchanged. Each split gets a subfolder of ``folder``; for their names see
    `common.cohorts.datalist.split_cases`.
    """
    if cohort.name == PHANTOM.name:
        return generate(Path(folder, cohort.name), subjects=9)
    if (write := _WRITERS.get(_publication(cohort))) is None:
        raise ValueError(f"No stand-in for cohort {cohort.name}; expected one of {', '.join(_WRITERS)}.")
    root = Path(folder, split or "seeded")
    if (root / "datalist.json").is_file():
        return root
    parts = _names(cohort, split)
    names = [name for part in PARTS for name in parts[part]]
    for number, name in enumerate(names, start=crc32(cohort.name.encode())):  # no two cohorts share an image
        images, label = _DRAWN.get(cohort.name, _tumour)(cohort, number)
        write(root, name, images, label)
    _write_masks(cohort, root, parts["training"])
    found = {item["case"]: item for item in find_cases(root, cohort)}
    made = {part: [_relative(found[name], root) for name in parts[part]] for part in PARTS}
    note = "a stand-in with fake images, for a dry run: numbers computed from it mean nothing"
    write_datalist({"name": cohort.name, "description": note, "cohort": cohort.name, **made}, root / "datalist.json")
    return root


def _names(cohort: Cohort, split: str | None) -> dict[str, list[str]]:
    """Return the names of a few cases of each part; a patient's time points are in one."""
    published = published_splits(cohort.name)
    if split in published:
        return {part: published[split][part][:count] for part, count in CASES.items()}
    if published:
        listed = [[case] for case in sorted({c for parts in published.values() for p in PARTS for c in parts[p]})]
    else:
        pattern, first, *times = _NAMES[_publication(cohort)]
        listed = [[pattern.format(number, time) for time in times or ("",)] for number in range(first, first + 25)]
    counts = dict(zip(PARTS, COUNTS.get(cohort.name, {}).get(split, CASES.values()), strict=True))
    counts = {part: min(count, CASES[part]) for part, count in counts.items()}
    found = CROSS_VALIDATION.fullmatch(split or "")
    fold, folds = map(int, found.groups()) if found else (1, 1)
    tested = counts["test"]
    listed = listed[: folds * tested if folds > 1 else sum(counts.values())]
    test = listed[(fold - 1) * tested : fold * tested]
    others = [names for names in listed if names not in test]
    validation = others[: counts["validation"]]
    parts = {"training": others[len(validation) :], "validation": validation, "test": test}
    return {part: [name for names in patients for name in names] for part, patients in parts.items()}


def _write_masks(cohort: Cohort, root: Path, training: Sequence[str]) -> None:
    """Write the published masks of these cases; the first case is complete, so that each modality occurs."""
    for setting, masks in published_masks(cohort.name).items():
        if set(training) <= set(masks):
            with replacing(root / f"{setting}.csv") as temporary, open(temporary, "w", newline="") as file:
                rows = csv.writer(file)
                rows.writerow(["case", "modalities"])
                rows.writerow([training[0], subset_name(cohort.modalities)])
                rows.writerows([case, "+".join(masks[case])] for case in training[1:])


def _relative(item: Mapping[str, object], root: Path) -> dict[str, object]:
    paths = {"image": [Path(path).relative_to(root).as_posix() for path in item["image"]]}
    return {**item, **paths, "label": Path(item["label"]).relative_to(root).as_posix()}


def _tumour(cohort: Cohort, number: int) -> Volumes:
    """Return a coarse phantom; classes of the core that does not enhance share it, and a cavity lies elsewhere."""
    phantom, drawn = _phantom(number % 5)  # five for all cases, each of which has its own noise
    rng = np.random.default_rng(number)
    images = {
        name: np.where(image > 0, image + rng.integers(9, size=SHAPE, dtype=np.int16), 0)
        for name, image in phantom.items()
    }
    values, label = cohort.labels.meanings, np.zeros_like(drawn)
    for name, value in {"ED": 2, "ET": 4}.items():
        label[drawn == value] = values[name]
    core = [name for name in ("NET", "CC", "NCR") if name in values]
    for name, voxels in zip(core, np.array_split(np.argwhere(drawn == 1), len(core)), strict=True):
        label[tuple(voxels.T)] = values[name]
    if "RC" in values:
        label[tuple(np.argwhere((drawn == 0) & (images["t1"] > 0))[:40].T)] = values["RC"]
    return images, label


@cache
def _phantom(number: int) -> Volumes:
    return simulate(number, SHAPE, SPACING)


def _brain(cohort: Cohort, number: int) -> Volumes:
    """Return T1 and T2 of a coarse phantom whose tissues are thirds of the T1 intensities."""
    images, _ = simulate(number, SHAPE, SPACING)
    inside = images["t1"] > 0
    third = np.digitize(images["t1"], np.quantile(images["t1"][inside], [1 / 3, 2 / 3]))
    label = np.where(inside, np.array([cohort.labels.values[name] for name in ("CSF", "GM", "WM")])[third], 0)
    return {name: images[name] for name in cohort.modalities}, label.astype(np.uint8)


def _heart(cohort: Cohort, number: int) -> Volumes:
    """Return three slices with two pools of blood, one of them in a ring of myocardium with oedema and scar."""
    rng, values = np.random.default_rng(number), cohort.labels.values
    x, y, _ = np.indices((64, 64, 3)) - np.array([32, 32, 1]).reshape(3, 1, 1, 1) + rng.integers(-4, 5, (3, 1, 1, 1))
    left, right, angle = np.hypot(x, y), np.hypot(x + 18, y), np.arctan2(y, x)
    label = np.zeros(x.shape, np.int16)
    label[right < 10] = values["RVB"]
    label[left < 13] = values["normal"]
    label[(left < 13) & (angle > 1)] = values["oedema"]
    label[(left < 13) & (angle > 2)] = values["scar"]
    label[left < 8] = values["LVB"]
    tissues = np.unique(label)
    signals = {name: rng.integers(100, 900, len(tissues)) for name in cohort.modalities}
    noise = rng.normal(0, 20, label.shape)
    return {name: (s[np.searchsorted(tissues, label)] + noise).astype(np.int16) for name, s in signals.items()}, label


def _write_each(
    image: str, tokens: Mapping[str, str], label: str | None = None, others: Mapping[str, str] | None = None
) -> Callable[[Path, str, dict, np.ndarray], None]:
    """Return a function that writes each volume of a case to a file.

    Args:
        image: pattern of the images' paths, with ``{case}``, ``{patient}`` and ``{time}`` (what follows the patient in
            the case's name), and ``{token}``.
        tokens: modality -> token, where they differ.
        label: pattern of the label's path; None: that of the images with the token ``seg``.
        others: pattern of the path of a file that is no label of this case -> the modality whose voxels it has, or
            ``brain`` for a mask of the brain.
    """

    def write(root: Path, case: str, images: dict[str, np.ndarray], voxels: np.ndarray) -> None:
        names = {"case": case, "patient": patient(case), "time": case.removeprefix(patient(case) + "_")}
        for name, volume in images.items():
            _save(volume, root / image.format(**names, token=tokens.get(name, name)))
        _save(voxels, root / (label or image).format(**names, token="seg"))
        for pattern, name in (others or {}).items():
            volume = (images["t1"] > 0).astype(np.uint8) if name == "brain" else images[name]
            _save(volume, root / pattern.format(**names))

    return write


def _write_brats2015(root: Path, case: str, images: dict[str, np.ndarray], label: np.ndarray) -> None:
    """Write files as in BraTS 2015: a folder for the grade, in it one for the case, in it one for each sequence."""
    grade, name = case.split("_", 1)
    tokens = {"flair": "Flair", "t1": "T1", "t1c": "T1c", "t2": "T2"}
    stems = {key: f"VSD.Brain.XX.O.MR_{token}.{54512 + n}" for n, (key, token) in enumerate(tokens.items())}
    for key, voxels in (images | {"label": label}).items():
        stem = stems.get(key, "VSD.Brain_3more.XX.O.OT.54517")
        path = root / grade / name / stem / f"{stem}.mha"
        path.parent.mkdir(parents=True, exist_ok=True)
        image = itk.image_from_array(np.ascontiguousarray(voxels.transpose(2, 1, 0)))
        image.SetSpacing([SPACING] * 3)
        itk.imwrite(image, str(path))


def _write_msd(root: Path, case: str, images: dict[str, np.ndarray], label: np.ndarray) -> None:
    """Write files as in the Decathlon: the four sequences are channels of one file."""
    _save(np.stack([images[name] for name in MSD_CHANNELS], axis=-1), root / "imagesTr" / f"{case}.nii.gz")
    _save(label, root / "labelsTr" / f"{case}.nii.gz")


def _write_iseg(root: Path, case: str, images: dict[str, np.ndarray], label: np.ndarray) -> None:
    """Write files as in iSEG-2017: big-endian Analyze 7.5 with a fourth dimension of size one."""
    folder = root / "iSeg-2017-Training"
    folder.mkdir(parents=True, exist_ok=True)
    for token, voxels in {"T1": images["t1"], "T2": images["t2"], "label": label}.items():
        image = nib.AnalyzeImage(voxels[..., None], None, nib.AnalyzeHeader(endianness=">"))
        image.header.set_zooms((SPACING, SPACING, SPACING, 1))
        nib.save(image, folder / f"{case}-{token}.hdr")


def _write_myops(root: Path, case: str, images: dict[str, np.ndarray], label: np.ndarray) -> None:
    """Write files as in MyoPS 2020: images in one folder, labels in another."""
    for name, token in {"bssfp": "C0", "lge": "DE", "t2": "T2"}.items():
        _save(images[name], root / "train25" / f"{case}_{token}.nii.gz", (1.5, 1.5, 10))
    _save(label, root / "train25_myops_gd" / f"{case}_gd.nii.gz", (1.5, 1.5, 10))


def _save(voxels: np.ndarray, path: Path, spacing: Sequence[float] = (SPACING,) * 3) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-spacing[0], -spacing[1], spacing[2], 1])), path)


def _publication(cohort: Cohort) -> str:
    """Return the cohort whose files these are, without what is done with the cavity."""
    return cohort.name.split("_cavity_")[0]


_UNDERSCORES = _write_each("{case}/{case}_{token}.nii.gz", {"t1c": "t1ce"})
_HYPHENS = _write_each("{case}/{case}-{token}.nii.gz", {"t1": "t1n", "t2": "t2w", "flair": "t2f"})
_UPPER = {"t1": "T1", "t1c": "T1c", "t2": "T2", "flair": "FLAIR"}
_LUMIERE = "{patient}/{time}/DeepBraTumIA-segmentation/"
_WRITERS = dict.fromkeys(("brats2018", "brats2019", "brats2020", "brats2021", "open_glioma", "glioma"), _UNDERSCORES)
_WRITERS |= dict.fromkeys(("brats2023", "brats2024_gli", "brats_africa", "brats_men", "brats_met"), _HYPHENS)
_WRITERS |= dict.fromkeys(("brats2025_met", "brats_ped", "brats2023_ped"), _HYPHENS)
_WRITERS |= {"brats2015": _write_brats2015, "msd_task01": _write_msd, "iseg2017": _write_iseg}
_WRITERS |= {
    "myops2020": _write_myops,
    "ucsf_pdgm": _write_each(
        *("{case}_nifti/{case}_{token}.nii.gz", _UPPER, "{case}_nifti/{case}_tumor_segmentation.nii.gz"),
        {"{case}_nifti/{case}_brain_segmentation.nii.gz": "brain", "{case}_nifti/{case}_T1_bias.nii.gz": "t1"},
    ),
    "upenn_gbm": _write_each(
        "images_structural/{case}/{case}_{token}.nii.gz",
        _UPPER | {"t1c": "T1GD"},
        "images_segm/{case}_segm.nii.gz",
        {
            "automated_segm/{case}_automated_approx_segm.nii.gz": "brain",
            "images_structural_unstripped/{case}/{case}_T1_unstripped.nii.gz": "t1",
        },
    ),
    "mu_glioma_post": _write_each(
        "{patient}/{time}/{case}_brain_{token}.nii.gz",
        {"t1": "t1n", "t2": "t2w", "flair": "t2f"},
        "{patient}/{time}/{case}_tumorMask.nii.gz",
    ),
    "ucsd_ptgbm": _write_each(
        "{case}/{case}_{token}.nii.gz",
        _UPPER | {"t1": "T1pre", "t1c": "T1post"},
        "{case}/{case}_BraTS_tumor_seg.nii.gz",
        {"{case}/{case}_total_cellular_tumor_seg.nii.gz": "brain"},
    ),
    "rhuh_gbm": _write_each(
        "{patient}/{time}/{case}_{token}.nii.gz", {"t1c": "t1ce"}, "{patient}/{time}/{case}_segmentations.nii.gz"
    ),
    "tcga_glioma": _write_each(
        "{case}/{case}_1996.08.23_{token}.nii.gz",
        {"t1c": "t1Gd"},
        "{case}/{case}_1996.08.23_GlistrBoost_ManuallyCorrected.nii.gz",
        {"{case}/{case}_1996.08.23_GlistrBoost.nii.gz": "brain"},
    ),
    "lumiere": _write_each(
        _LUMIERE + "atlas/skull_strip/{token}_skull_strip.nii.gz",
        {"t1c": "ct1"},
        _LUMIERE + "atlas/segmentation/seg_mask.nii.gz",
        {_LUMIERE + "native/segmentation/ct1_seg_mask.nii.gz": "brain", "{patient}/{time}/CT1.nii.gz": "t1c"},
    ),
}
_DRAWN = {"iseg2017": _brain, "myops2020": _heart}
_NAMES = {
    "brats2019": ("BraTS19_CBICA_{:03d}_1", 1),
    "msd_task01": ("BRATS_{:03d}", 1),
    "iseg2017": ("subject-{}", 1),
    "myops2020": ("myops_training_{}", 101),
    "brats2024_gli": ("BraTS-GLI-{:05d}-{}", 5, "100", "101"),
    "brats_africa": ("BraTS-SSA-{:05d}-000", 2),
    "brats_men": ("BraTS-MEN-{:05d}-000", 4),
    "brats_met": ("BraTS-MET-{:05d}-000", 2),
    "brats2025_met": ("BraTS-MET-{:05d}-{}", 2, "000", "001"),
    "brats_ped": ("BraTS-PED-{:05d}-000", 1),
    "brats2023_ped": ("BraTS-PED-{:05d}-000", 1),
    "ucsf_pdgm": ("UCSF-PDGM-{:04d}{}", 429, "", "_FU003d"),
    "upenn_gbm": ("UPENN-GBM-{:05d}_{}", 1, "11", "21"),
    "mu_glioma_post": ("PatientID_{:04d}_Timepoint_{}", 3, "1", "2"),
    "ucsd_ptgbm": ("UCSD-PTGBM-{:04d}_{}", 2, "01", "02"),
    "rhuh_gbm": ("RHUH-{:04d}_{}", 1, "0", "2"),
    "tcga_glioma": ("TCGA-02-{:04d}", 6),
    "lumiere": ("Patient-{:03d}_{}", 1, "week-000-1", "week-044"),
    "glioma": ("case_{:03d}", 1),
}
"""Pattern of case names, the first number and the time points, for cohorts without a published list of cases."""
