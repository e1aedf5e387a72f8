"""Whether names and label values are those of the cohort that was asked for, before anything is trained."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
from refusals import refused

from common.cohorts import COHORTS, get_cohort, prepare
from common.cohorts.datalist import PARTS, divide, published_splits
from common.cohorts.patients import patient, patient_of
from common.cohorts.scan import find_cases

DATA_SETS = [name for name in COHORTS if "_cavity_" not in name and name not in ("phantom", "myops2020", "iseg2017")]
OPEN = [name for name in DATA_SETS if name not in ("brats2019", "brats2018", "brats2020", "msd_task01", "glioma")]


@pytest.mark.parametrize("data", OPEN)
def test_a_data_set_is_refused_or_doubted_by_every_cohort_that_would_read_it_otherwise(stand_in, caplog, data):
    """More than 200 wrong pairings of data set and cohort; a data set's own cohort accepts it without a word."""
    silent = []
    for cohort in DATA_SETS:
        caplog.clear()
        try:
            prepare(cohort, stand_in(data))
            silent += [] if "would read" in caplog.text else [cohort]
        except (ValueError, FileNotFoundError):
            pass
    assert data in silent
    assert [cohort for cohort in silent if not alike(data, cohort)] == []


@pytest.mark.parametrize("data", ["brats_ped", "brats2024_gli", "ucsf_pdgm", "lumiere"])
@pytest.mark.parametrize("cohort", ["brats2015", "brats2020", "brats2023", "open_glioma", "msd_task01", "upenn_gbm"])
def test_renamed_cases_are_judged_by_their_values(stand_in, tmp_path, caplog, data, cohort):
    root = stand_in(data)
    for part in json.loads((root / "datalist.json").read_text())["training"]:
        for token, path in zip(("t1", "t1c", "t2", "flair", "segm"), [*part["image"], part["label"]], strict=True):
            name = f"own_{part['case'][-12:]}"
            (tmp_path / name).mkdir(exist_ok=True)
            shutil.copy(root / path, tmp_path / name / f"{name}_{token}.nii.gz")
    try:
        prepare(cohort, tmp_path)
        said = [record.message for record in caplog.records if "differently" in record.message]
    except ValueError as error:
        said = [str(error)]
    assert said or alike(data, cohort)


def alike(data: str, cohort: str) -> bool:
    """Return whether a cohort reads all values of a data set as the data set's own cohort does."""
    own, other = get_cohort(data).labels, get_cohort(cohort).labels
    return all(own.class_of(value) == other.class_of(value) for value in own.known - set(own.synonyms))


def test_published_names_are_those_of_their_cohort():
    for name, cohort in COHORTS.items():
        for split in published_splits(name).values():
            assert all(cohort.has_name(case) for part in split.values() for case in part)


@pytest.mark.parametrize("name", DATA_SETS)
def test_no_patient_is_in_two_parts(stand_in, name):
    cohort = get_cohort(name)
    items = find_cases(stand_in(name), cohort)
    for split in (None, "cv1of5", "cv2of5", "cv3of5", "cv4of5", "cv5of5"):
        parts = divide(items, cohort, name, split)
        patients = [{patient_of(item) for item in parts[part]} for part in PARTS]
        assert sum(map(len, patients)) == len(set.union(*patients))
        assert all(parts[part] for part in PARTS)


def _masks(original, root, most):
    """Copy a stand-in under names of no publisher, with masks of the whole tumour as labels of its first cases."""
    for number, folder in enumerate(sorted(original.glob("BraTS2021_*"))[:most]):
        copy = shutil.copytree(folder, root / f"own{number}")
        for path in copy.iterdir():
            path = path.rename(copy / path.name.replace(folder.name, copy.name))
            if path.name.endswith("_seg.nii.gz"):
                label = nib.load(path)
                nib.save(nib.Nifti1Image((np.asarray(label.dataobj) > 0).astype(np.uint8), label.affine), path)
    return root


@pytest.mark.parametrize("cohort", ["brats2021", "open_glioma", "brats_ped", "msd_task01"])
def test_masks_of_one_value_are_refused(stand_in, tmp_path, cohort):
    root = _masks(stand_in("brats2021"), tmp_path / "data", None)
    with refused(ValueError, "have no values but 0 and 1", "masks of a whole tumour", "Expected labels with"):
        prepare(cohort, root)


def test_too_few_masks_of_one_value_to_be_sure(stand_in, tmp_path, caplog):
    prepare("brats2021", _masks(stand_in("brats2021"), tmp_path / "data", 2), split="full")
    assert "labels (2) have no values but 0 and 1" in caplog.text


@pytest.mark.parametrize(
    ("case", "expected"),
    [
        ("UCSF-PDGM-0429_FU003d", "UCSF-PDGM-0429"),
        ("UPENN-GBM-00001_21", "UPENN-GBM-00001"),
        ("PatientID_0003_Timepoint_2", "PatientID_0003"),
        ("Patient-001_week-000-2", "Patient-001"),
        ("UCSD-PTGBM-0002_02", "UCSD-PTGBM-0002"),
        ("RHUH-0001_2", "RHUH-0001"),
        ("BraTS-GLI-00005-101", "BraTS-GLI-00005"),
        ("BraTS-SSA-00121-000", "BraTS-SSA-00115"),  # the same patient under another number
        ("brats_tcia_pat105_0002", "brats_tcia_pat105"),
        ("HGG_brats_2013_pat0001_1", "HGG_brats_2013_pat0001"),
        ("BraTS20_Training_001", "BraTS20_Training_001"),
        ("sub-01_ses-02", "sub-01"),
        ("sub-01_ses-02_anat", "sub-01"),
        ("clinic7_visit3", "clinic7"),
        ("own_case_7", "own_case_7"),
        ("BraTS-MEN-RT-0001-1", "BraTS-MEN-RT-0001"),
        ("derivatives_brains_sub-01_ses-02_anat", "sub-01"),
        ("own_20010523", "own"),
        ("own_2001_05_23", "own"),
        ("own_23.05.2001", "own"),
        ("own_MR1", "own"),
        ("Patient 01 FU1", "Patient 01"),
        ("PAT01.2019-02-01", "PAT01"),
        ("own_MR0001", "own_MR0001"),  # a record's number
        ("own_pre", "own"),
        ("own_20019923", "own_20019923"),  # no date
        ("Brats18_2013_10_1", "Brats18_2013_10_1"),
    ],
)
def test_patients(case, expected):
    assert patient(case) == expected


def test_an_image_under_two_names_is_named_and_refused_in_two_parts(stand_in, tmp_path, caplog):
    root = shutil.copytree(stand_in("brats2021"), tmp_path / "data")
    datalist = json.loads((root / "datalist.json").read_text())
    first, second = datalist["training"][:2]
    t2 = nib.load(root / first["image"][2])
    nib.save(nib.Nifti1Image(np.asarray(t2.dataobj).astype(np.float64), t2.affine), root / second["image"][2])
    prepare("brats2021", root, datalist=root / "datalist.json")
    assert f"share an image, so that they count twice: {first['case']} and {second['case']}" in caplog.text
    datalist["test"].append(datalist["training"].pop(0))
    (root / "apart.json").write_text(json.dumps(datalist))
    with refused(ValueError, f"{second['case']} in training", f"{first['case']} in test", "an image", "--patients"):
        prepare("brats2021", root, datalist=root / "apart.json")


def test_several_volumes_in_one_file_are_refused(stand_in, tmp_path):
    root = shutil.copytree(stand_in("brats2021"), tmp_path / "data")
    path = next(root.glob("*/*_flair.nii.gz"))
    image = nib.load(path)
    nib.save(nib.Nifti1Image(np.stack([np.asarray(image.dataobj)] * 4, axis=-1), image.affine), path)
    with refused(ValueError, f"{path.name}: 4 volumes in one file; expected one volume", "choose cohort msd_task01"):
        prepare("brats2021", root)


def test_a_patient_of_a_datalist_in_two_parts_is_refused(stand_in, tmp_path):
    root = shutil.copytree(stand_in("brats2021"), tmp_path / "data")
    datalist = json.loads((root / "datalist.json").read_text())
    for part in ("training", "test"):
        datalist[part][0]["patient"] = "one"
    (root / "datalist.json").write_text(json.dumps(datalist))
    with refused(ValueError, "patient one is in two parts", "Put all cases of a patient into one part"):
        prepare("brats2021", root, datalist=root / "datalist.json")


def test_labels_are_read_once(stand_in, monkeypatch):
    prepare("brats2021", stand_in("brats2021"))
    monkeypatch.setattr("common.cohorts.voxels.read_volume", lambda path: pytest.fail(f"{path} is read again"))
    prepare("brats2021", stand_in("brats2021"))
