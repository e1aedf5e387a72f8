"""Folders as publishers ship them and as users arrange them. Files are empty, because scanning must not open them."""

import logging
from pathlib import Path

import pytest
from refusals import refused

from common.cohorts import COHORTS, cases, get_cohort
from common.cohorts.fitting import doubt_patients
from common.cohorts.patients import patient, patient_of
from common.cohorts.scan import find_cases

ALL = ["t1", "t1c", "t2", "flair"]


def touch(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def scan(root: Path, cohort: str = "brats2020") -> list[dict]:
    return find_cases(root, get_cohort(cohort))


def names(item: dict, key: str = "image") -> list[str] | str:
    return [Path(p).name for p in item[key]] if key == "image" else Path(item[key]).name


@pytest.mark.parametrize(
    ("cohort", "values", "core"),
    [
        ("brats2015", {"NCR": 1, "ED": 2, "NET": 3, "ET": 4}, ("NCR", "NET", "ET")),
        *((f"brats20{year}", {"NCR": 1, "ED": 2, "ET": 4}, ("NCR", "ET")) for year in (18, 19, 20, 21)),
        ("brats2023", {"NCR": 1, "ED": 2, "ET": 3}, ("NCR", "ET")),
        ("open_glioma", {"NCR": 1, "ED": 2, "ET": 3}, ("NCR", "ET")),
        ("msd_task01", {"ED": 1, "NCR": 2, "ET": 3}, ("NCR", "ET")),
    ],
)
def test_cohorts_have_their_own_label_values(cohort, values, core):
    assert COHORTS[cohort].labels.values == values
    assert COHORTS[cohort].labels.regions["TC"] == core
    assert COHORTS[cohort].modalities == tuple(ALL)


@pytest.mark.parametrize(
    ("cohort", "case", "pattern", "tokens"),
    [
        ("brats2018", "HGG/Brats18_TCIA08_280_1", "{}_{}.nii.gz", ["t1", "t1ce", "t2", "flair", "seg"]),
        ("brats2018", "LGG/Brats18_2013_28_1", "{}_{}.nii.gz", ["t1", "t1ce", "t2", "flair", "seg"]),
        ("brats2019", "Training/LGG/BraTS19_TCIA09_141_1", "{}_{}.nii", ["t1", "t1ce", "t2", "flair", "seg"]),
        ("brats2021", "BraTS2021_00495", "{}_{}.nii.gz", ["t1", "t1ce", "t2", "flair", "seg"]),
        ("brats2023", "BraTS-GLI-00001-000", "{}-{}.nii.gz", ["t1n", "t1c", "t2w", "t2f", "seg"]),
        ("brats2023", "BraTS-SSA-00002-000", "{}-{}.nii.gz", ["t1n", "t1c", "t2w", "t2f", "seg"]),
    ],
)
def test_official_names(tmp_path, cohort, case, pattern, tokens):
    name = Path(case).name
    files = [pattern.format(name, token) for token in tokens]
    touch(tmp_path, *(f"{case}/{file}" for file in files), "name_mapping.csv")

    (item,) = scan(tmp_path, cohort)

    assert item["case"] == name
    assert item["modalities"] == ALL
    assert names(item) == files[:4]
    assert names(item, "label") == files[4]
    assert all(Path(path).is_absolute() and Path(path).exists() for path in [*item["image"], item["label"]])


def test_brats2015_has_a_folder_for_each_sequence(tmp_path):
    for case, first in (("HGG/brats_2013_pat0001_1", 54512), ("LGG/brats_tcia_pat101_0001", 35000)):
        stems = [f"VSD.Brain.XX.O.MR_{m}.{first + i}" for i, m in enumerate(("Flair", "T1", "T1c", "T2"))]
        stems.append(f"VSD.Brain_3more.XX.O.OT.{first + 5}")
        touch(tmp_path, *(f"{case}/{stem}/{stem}.mha" for stem in stems))

    first, second = scan(tmp_path, "brats2015")

    assert (first["case"], second["case"]) == ("HGG_brats_2013_pat0001_1", "LGG_brats_tcia_pat101_0001")
    assert first["modalities"] == ALL
    expected = ("T1.54513", "T1c.54514", "T2.54515", "Flair.54512")
    assert names(first) == [f"VSD.Brain.XX.O.MR_{name}.mha" for name in expected]
    assert names(first, "label") == "VSD.Brain_3more.XX.O.OT.54517.mha"
    (alone,) = scan(tmp_path / "HGG" / "brats_2013_pat0001_1", "brats2015")
    assert alone == first


def test_msd_files_hold_four_channels(tmp_path):
    touch(tmp_path, "imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz", "imagesTs/BRATS_485.nii.gz")
    touch(tmp_path, "imagesTr/._BRATS_001.nii.gz", "dataset.json")

    labelled, unlabelled = scan(tmp_path, "msd_task01")

    assert labelled["case"] == "BRATS_001"
    assert labelled["image"] == [str(tmp_path / "imagesTr" / "BRATS_001.nii.gz")] * 4
    # the channels of the files are FLAIR, T1w, T1gd, T2w
    assert labelled["modalities"] == ALL
    assert labelled["channels"] == [1, 2, 3, 0]
    assert labelled["label"] == str(tmp_path / "labelsTr" / "BRATS_001.nii.gz")
    assert unlabelled["case"] == "BRATS_485"
    assert "label" not in unlabelled


def test_one_msd_subject_is_named_after_its_file(tmp_path):
    touch(tmp_path, "imagesTr/BRATS_007.nii.gz", "labelsTr/BRATS_007.nii.gz")
    for folder in (tmp_path, tmp_path / "imagesTr"):
        assert [item["case"] for item in scan(folder, "msd_task01")] == ["BRATS_007"]


@pytest.mark.parametrize(
    ("files", "modalities"),
    [
        (["x_t1ce.nii.gz", "x_flair.nii.gz"], ["t1c", "flair"]),
        (["FLAIR.nii.gz", "T1POST.nii.gz"], ["t1c", "flair"]),
        (["scan-T2w.nii"], ["t2"]),
        (["sub.x.T1Gd.mha", "sub.x.T1w.mha"], ["t1", "t1c"]),
        (["sub-01_T1w.nii.gz", "sub-01_ce-GAD_T1w.nii.gz", "sub-01_acq-tse_run-2_T2w.nii.gz"], ["t1", "t1c", "t2"]),
        (["sub-01_ses-2_ce-gad_desc-brain_T1w.nii.gz", "sub-01_ses-2_ce-gad_FLAIR.nii.gz"], ["t1c", "flair"]),
        (["T1/series_7.nii.gz", "T2/series_9.nii.gz"], ["t1", "t2"]),
    ],
)
def test_any_subset_of_one_subject_is_one_case(tmp_path, files, modalities):
    subject = touch(tmp_path / "patient19", *files)
    (item,) = scan(subject)
    assert item["case"] == "patient19"
    assert item["modalities"] == modalities
    assert "label" not in item
    assert scan(tmp_path) == [item]


def test_subjects_side_by_side_are_told_apart_by_name(tmp_path, caplog):
    touch(tmp_path, "a_t1.nii.gz", "a_t2.nii.gz", "a_seg.nii.gz", "b_t1.nii.gz", "b_flair.nii.gz")
    first, second = scan(tmp_path)
    assert (first["case"], first["modalities"], names(first, "label")) == ("a", ["t1", "t2"], "a_seg.nii.gz")
    assert (second["case"], second["modalities"], "label" in second) == ("b", ["t1", "flair"], False)
    assert "2 cases side by side: a, b" in caplog.text


def test_labels_among_the_derivatives_of_bids(tmp_path):
    """They lie in a folder named like the subject's own; images there still count as other cases."""
    anat = "sub-01/ses-1/anat/sub-01_ses-1"
    touch(tmp_path, f"{anat}_T1w.nii.gz", f"{anat}_ce-GAD_T1w.nii.gz", "sub-02/anat/sub-02_FLAIR.nii.gz")
    touch(tmp_path, f"derivatives/manual/{anat}_space-T1w_dseg.nii.gz")
    first, second = scan(tmp_path)
    assert (first["modalities"], names(first, "label")) == (["t1", "t1c"], "sub-01_ses-1_space-T1w_dseg.nii.gz")
    assert second["modalities"] == ["flair"]
    assert "label" not in second


def test_subjects_of_bids_side_by_side(tmp_path):
    touch(tmp_path, "sub-01_T1w.nii.gz", "sub-01_ce-GAD_T1w.nii.gz", "sub-01_acq-3D_FLAIR.nii.gz", "sub-01_seg.nii.gz")
    touch(tmp_path, "sub-02_ses-1_ce-GAD_T1w.nii.gz", "sub-02_ses-2_ce-GAD_T1w.nii.gz", "sub-01_ce-GAD_T1w.json")
    first, *others = scan(tmp_path)
    assert (first["case"], first["modalities"], names(first, "label")) == (
        "sub-01",
        ["t1", "t1c", "flair"],
        "sub-01_seg.nii.gz",
    )
    assert [(item["case"], item["modalities"]) for item in others] == [
        ("sub-02_ses-1", ["t1c"]),
        ("sub-02_ses-2", ["t1c"]),
    ]


def test_files_of_different_names_are_one_case_with_a_warning(tmp_path, caplog):
    touch(tmp_path, "003_t1.nii.gz", "007_flair.nii.gz")
    (item,) = scan(tmp_path)
    assert item["modalities"] == ["t1", "flair"]
    assert "treated as one case" in caplog.text
    assert "003_t1.nii.gz, 007_flair.nii.gz" in caplog.text


def test_folders_with_the_same_doubt_are_named_once(tmp_path, caplog):
    touch(tmp_path, *(f"P{n}/{t}.nii.gz" for n in range(9) for t in ("Ax_T1", "Sag_T2_TSE")))
    assert len(scan(tmp_path)) == 9
    (record,) = caplog.records
    assert "P0: treated as one case, though file names begin differently" in record.message
    assert record.message.endswith("The same holds for other folders (8).")


def test_folders_of_one_name_are_named_by_their_path(tmp_path):
    touch(tmp_path, *(f"sub-0{n}/anat/sub-0{n}_{m}.nii.gz" for n in (1, 2) for m in ("T1w", "FLAIR")))
    assert [item["case"] for item in scan(tmp_path)] == ["sub-01_anat", "sub-02_anat"]


TWICE = "BraTS20_Training_001/BraTS20_Training_001_t1.nii"


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        *[
            ((*more, one, other), [f"/{one} and", f"/{other}: two files for the {role} of case", "Move one away"])
            for role, one, other, *more in (
                ("t1", "x_t1.nii.gz", "x_t1n.nii.gz"),
                ("t1", "x_t1.nii", "x_t1.nii.gz"),
                ("t1", "x_t1.nii.gz", "x_brain_t1.nii.gz"),
                ("t1", "T1.nii.gz", "x_T1.nii.gz"),
                ("t1", "subject_t1.nii.gz", "old_t1.nii.gz"),
                ("t1", "sub-1_run-1_T1w.nii", "sub-1_run-2_T1w.nii"),
                ("label", "x_seg.nii.gz", "y_seg.nii.gz", "x_t1.nii.gz"),
            )
        ],
        ((f"a/{TWICE}", f"b/{TWICE}"), ["a/BraTS20_Training_001", "b/BraTS20_Training_001: two cases named"]),
        (("imagesTr/BRATS_001.nii.gz", "labelsTr/BRATS_001.nii.gz"), ["cohort msd_task01"]),
        (
            ("good/x_t1.nii.gz", "bad/series_1.nii.gz", "bad/series_2.nii.gz"),
            ["bad: no modality", "series_1.nii.gz, series_2.nii.gz", "known names", "t1ce"],
        ),
        (("a_t1.nii.gz", "b_t1.nii.gz", "c_seg.nii.gz"), ["c_seg.nii.gz: a label without images"]),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, files, facts):
    subject = touch(tmp_path / "subject", *files)
    with refused(ValueError, *facts):
        scan(subject)


def test_unknown_names_are_warned_about(tmp_path, caplog):
    touch(tmp_path / "p", "T1.nii.gz", "GOLD_STANDARD.nii.gz", "x_T1_brain.nii.gz", "notes.txt")
    (item,) = scan(tmp_path)
    assert names(item) == ["T1.nii.gz"]
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "GOLD_STANDARD.nii.gz" in record.message
    assert "x_T1_brain.nii.gz" in record.message
    assert "notes" not in record.message


def test_missing_and_empty_folders_and_unknown_cohorts_are_refused(tmp_path):
    touch(tmp_path, "readme.txt")
    for folder, fact in ((tmp_path / "nowhere", "nowhere: no such folder"), (tmp_path, "no image")):
        with refused(FileNotFoundError, fact):
            scan(folder)
    with refused(ValueError, "'brats'; expected one of", "phantom", "brats2015", "msd_task01"):
        get_cohort("brats")


def test_relative_folders_give_absolute_paths_and_names(tmp_path, monkeypatch):
    monkeypatch.chdir(touch(tmp_path / "patient", "t1.nii"))
    (item,) = scan(Path("."))
    assert item == {"case": "patient", "image": [str(tmp_path / "patient" / "t1.nii")], "modalities": ["t1"]}
    assert cases("brats2021", ".") == [item]


BIDS = ("T1w", "ce-gd_T1w", "T2w", "FLAIR")
LAYOUTS = {
    # how publishers arrange data sets that are no cohorts here: pattern of images, sequences, pattern of labels, cases
    "Erasmus Glioma Database": ("{0}/{t}/NIFTI", ("T1", "T1GD", "T2", "FLAIR"), "{0}/MASK/NIFTI", ["EGD-0001"]),
    "dates as folders": ("{0}/{1}/{t}", ALL, "{0}/{1}/seg", ["C3L-00016_10-13-2000", "C3L-00016_11-19-2001"]),
    "dates in names": ("{0}_{1}/{0}_{1}_{t}", ALL, "{0}_{1}/{0}_{1}_Segm", ["W1_1997.11.05", "W1_1998.02.01"]),
    "words as folders": ("{0}/{1}/{t}", ALL, "{0}/{1}/seg", ["P1_preop", "P1_postop", "P1_follow-up 2"]),
    "UCSF-BMSR": ("{0}/{0}_{t}", ("T1pre", "T1post", "T2", "FLAIR"), "{0}/{0}_seg", ["100101A", "100101B"]),
    "two words": ("{0}/{t}", ("T1_pre", "T1_post", "T2", "T2_FLAIR"), "{0}/seg", ["a1"]),
    "images and masks": ("images/{0}_{t}", ALL, "masks/{0}", ["a1", "a2"]),
    "sequences as folders": ("{t}/{0}_{t}", ALL, "seg/{0}_seg", ["a1", "a2"]),
    "sequences as folders, cases as files": ("{t}/{0}", ALL, "labels/{0}", ["a1", "a2"]),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layouts_of_other_publishers(tmp_path, name):
    images, tokens, label, expected = LAYOUTS[name]
    for case in expected:
        parts = case.split("_", 1)
        files = [*(images.format(*parts, t=t) for t in tokens), label.format(*parts)]
        touch(tmp_path, *(f"{file}.nii.gz" for file in files))
    found = scan(tmp_path)
    assert [item["case"] for item in found] == sorted(expected)
    assert all(item["modalities"] == ALL and "label" in item for item in found)
    people = {patient(item["case"]) for item in found}
    assert people == {case.split("_")[0].rstrip("AB") for case in expected}


FOUR = (*ALL, "seg")
TIMES = {
    # folders: pattern of files, names of time points; all are two patients, P1 and P2, seen twice
    "dates": ("{c}/{d}/{t}.nii.gz", ["2019_01_02", "2019_07_11"]),
    "days first": ("{c}/{d}/{c}_{d}_{t}.nii.gz", ["25-01-2019", "31.07.2019"]),
    "words and dates": ("{c}/{d}/{t}.nii.gz", ["MRI_2020-01-01", "MRI_2021-02-01"]),
    "months of years": ("{c}/{d}/{t}.nii.gz", ["2020-01", "2021-05"]),
    "years": ("{c}/{d}/{t}.nii.gz", ["2020", "2021"]),
    "six digits": ("{c}/{d}/{t}.nii.gz", ["190102", "190711"]),
    "dates and times": ("{c}/{d}/{t}.nii.gz", ["2010-01-01_10-00-00", "20110101T1100"]),
    "studies of TCIA": ("{c}/{d}/{t}.nii.gz", ["10-13-2000-MR BRAIN WOW CONTRAST-60055", "11-19-2001-MR-1"]),
    "numbers": ("{c}/{d}/{t}.nii.gz", ["1", "2"]),
    "numbers of QIN": ("{c}/{d}/{t}.nii.gz", ["1.1", "1.2"]),
    "T1 and T2, which are no sequences here": ("{c}/{d}/{t}.nii.gz", ["T1", "T2"]),
    "before and after": ("{c}/{d}/{t}.nii.gz", ["pre", "post"]),
    "XNAT": ("{c}/{c}_{d}/scans/3-{t}/resources/NIFTI/files/{t}.nii.gz", ["MR1", "MR2"]),
    "months": ("{c}/{d}/{t}.nii.gz", ["3m", "12 months"]),
    "above the patients": ("{d}/{c}/{c}_{t}.nii.gz", ["session1", "session2"]),
    "dates above": ("{d}/{c}/{t}.nii.gz", ["2019-01-01", "2020-01-01"]),
    "side by side": ("{c}_{d}_{t}.nii.gz", ["pre", "post"]),
    "side by side in the patient's folder": ("{c}/{d}_{t}.nii.gz", ["preop", "postop"]),
    "deep": ("{c}/{d}/NIFTI/{t}.nii.gz", ["20190101", "20200101"]),
}


@pytest.mark.parametrize("name", TIMES)
def test_time_points_are_of_one_patient(tmp_path, name):
    pattern, times = TIMES[name]
    touch(tmp_path, *(pattern.format(c=c, d=d, t=t) for c in ("P1", "P2") for d in times for t in FOUR))
    found = scan(tmp_path)
    assert [(item["modalities"], "label" in item) for item in found] == [(ALL, True)] * 4
    assert sorted(patient_of(item) for item in found) == ["P1", "P1", "P2", "P2"]


@pytest.mark.parametrize(
    "files", ["{c}_{d}/{t}.nii.gz", "{c}/{c}{d}/{t}.nii.gz", "{c}/{c}-x{d}-y/{t}.nii.gz", "{c}_{d}_{t}.nii.gz"]
)
@pytest.mark.parametrize("times", [("1", "2"), ("a", "b")])
def test_names_that_may_be_time_points_are_doubted(tmp_path, caplog, files, times):
    touch(tmp_path, *(files.format(c=c, d=d, t=t) for c in ("P1", "P2") for d in times for t in FOUR))
    found = scan(tmp_path)
    assert len({patient_of(item) for item in found}) == 4
    doubt_patients(found, tmp_path)
    assert "counts as a separate patient" in caplog.text
    assert "--patients FILE.csv" in caplog.text


@pytest.mark.parametrize(
    ("folders", "doubted"),
    [(["a8/1a", "a8/2b", "b7/3c", "c9/4e", "d0/5f"], "1a and 2b"),
     ([*(f"Training/P{n}" for n in range(12)), "Validation/P3"], "Training_P3 and Validation_P3"),
     (["pat01", "PAT01_FU1", "pat02"], "PAT01 and pat01"), (["P1", "P1b", "P2"], "P1 and P1b"),
     (["UKE-12-V1", "UKE-12-V2", "UKE-13-V1", "UKE-14-V1", "UKE-15-V1"], "UKE-12-V1 and UKE-12-V2")],
)  # fmt: skip
def test_folders_that_may_be_of_one_patient_are_doubted(tmp_path, caplog, folders, doubted):
    touch(tmp_path, *(f"{folder}/{t}.nii.gz" for folder in folders for t in FOUR))
    doubt_patients(scan(tmp_path), tmp_path)
    assert f"each of {doubted} counts as a separate patient" in caplog.text


def test_usual_names_are_not_doubted(tmp_path, caplog):
    touch(tmp_path, *(f"own_case_{n}/own_case_{n}_{t}.nii.gz" for n in range(12) for t in FOUR))
    for part, number in (("a", 1), ("a", 2), ("b", 3), ("b", 4)):
        touch(tmp_path, f"{part}/BraTS-GLI-0000{number}-000/BraTS-GLI-0000{number}-000-t1n.nii.gz")
    doubt_patients(scan(tmp_path, "brats2023"), tmp_path)
    assert not caplog.records


@pytest.mark.parametrize("before", ["", "P1_"])
def test_t1_after_contrast_and_t1_after_surgery(tmp_path, before):
    touch(tmp_path / "P1", *(f"{before}{t}.nii.gz" for t in ("pre_T1", "post_T1", "T2", "FLAIR", "seg")))
    (item,) = scan(tmp_path)
    assert dict(zip(item["modalities"], names(item), strict=True))["t1c"] == f"{before}post_T1.nii.gz"
    assert (item["modalities"], "label" in item) == (ALL, True)


def test_one_sequence_at_two_time_points(tmp_path):
    touch(tmp_path / "P1", *(f"P1_{d}_{t}.nii.gz" for d in ("pre", "post") for t in ("T1", "seg")))
    assert [(item["modalities"], "label" in item) for item in scan(tmp_path)] == [(["t1"], True)] * 2


LABELS = {
    # pattern of the images of P1 and P2, pattern of their labels
    "a folder in that of the case": ("{c}/{t}.nii.gz", "{c}/manual/seg.nii.gz"),
    "folders of the same names": ("images/{c}/{t}.nii.gz", "labels/{c}/seg.nii.gz"),
    "folders of the same names and dates": ("im/{c}/2019-01-01/{t}.nii.gz", "lab/{c}/2019-01-01/seg.nii.gz"),
    "names that end with mask": ("Images/{c}_{t}.nii.gz", "Masks/{c}_mask.nii.gz"),
    "BIDS, without the session": ("sub-{c}/ses-preop/anat/sub-{c}_ses-preop_{t}.nii.gz",
                                  "derivatives/tumor_masks/sub-{c}/anat/sub-{c}_space_T1_label-tumor.nii.gz"),
    "BIDS, a mask of lesions": ("sub-{c}/anat/sub-{c}_{t}.nii.gz",
                                "derivatives/manual/sub-{c}/anat/sub-{c}_label-lesion_mask.nii.gz"),
    "BIDS, raw data beside": ("rawdata/sub-{c}/anat/sub-{c}_{t}.nii.gz",
                              "derivatives/x/sub-{c}/anat/sub-{c}_dseg.nii.gz"),
    "the case's name last": ("{c}/{t}_{c}.nii.gz", "{c}/SEG_{c}.nii.gz"),
    "GTV": ("{c}/{c}_{t}.nii.gz", "{c}/{c}_gtv.nii.gz"),
    "the tumour": ("images/{c}/{c}_{t}.nii.gz", "segmentations/{c}_tumor.nii.gz"),
    "a numbered folder": ("SUBJECTS/{c}/1_{t}/NIFTI.nii.gz", "SUBJECTS/{c}/5_MASK/NIFTI.nii.gz"),
    "a numbered folder and one of files": ("{c}/1_{t}/NIFTI/{t}.nii.gz", "{c}/5_MASK/NIFTI/MASK.nii.gz"),
    "dates as names of labels": ("{c}/2019-01-01/{t}.nii.gz", "{c}/masks/2019-01-01.nii.gz"),
    "time points as names of labels": ("img/{c}/2/{t}.nii.gz", "seg/{c}/2.nii.gz"),
    "names with spaces": ("{c}/{c} {t}.NII.GZ", "{c}/{c} seg.NII.GZ"),
}  # fmt: skip


@pytest.mark.parametrize("name", LABELS)
def test_labels_go_to_their_cases(tmp_path, name):
    images, label = LABELS[name]
    for c in ("P1", "P2"):
        touch(tmp_path, *(images.format(c=c, t=t) for t in ALL), label.format(c=c))
    found = scan(tmp_path)
    assert [item["modalities"] for item in found] == [ALL] * 2
    for item, c in zip(found, ("P1", "P2"), strict=True):
        assert all(c in Path(path).relative_to(tmp_path).as_posix() for path in [*item["image"], item["label"]])


@pytest.mark.parametrize(
    "stray", ["X/seg.nii.gz", "labels/P3/seg.nii.gz", "derivatives/x/sub-03/anat/sub-03_dseg.nii.gz"]
)
def test_a_label_of_no_case_is_given_to_none(tmp_path, stray):
    touch(tmp_path, *(f"sub-{c}/anat/{t}.nii.gz" for c in ("01", "02") for t in ALL), stray)
    with refused(ValueError, "labels without images of the same name"):
        scan(tmp_path)


def test_a_case_in_the_folder_of_another_is_of_the_same_patient(tmp_path, caplog):
    touch(tmp_path, *(f"P1/{place}{t}.nii.gz" for place in ("", "old/") for t in FOUR))
    assert [patient_of(item) for item in scan(tmp_path)] == ["P1", "P1"]
    assert "old: taken as a case of its own, of the same patient" in caplog.text


def test_plain_names_go_before_words(tmp_path, caplog):
    touch(tmp_path / "P1", "T1.nii.gz", "T1_brain.nii.gz", "T1_post.nii.gz", "T2_reg.nii.gz", "T2_map.nii.gz")
    (item,) = scan(tmp_path)
    assert (item["modalities"], names(item)) == (["t1", "t1c", "t2"], ["T1.nii.gz", "T1_post.nii.gz", "T2_reg.nii.gz"])
    assert "2 image files are ignored" in caplog.text


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [("P1.zip", b"", "1 file not read (.zip): unpack it"), ("a/T1.mgz", b"", "(.mgz): convert it to NIfTI"),
     ("a/1-01.dcm", bytes(128) + b"DICM", "Convert its DICOM files to NIfTI")],
)  # fmt: skip
def test_what_is_there_instead_of_images_is_said(tmp_path, file, content, said):
    (touch(tmp_path, file) / file).write_bytes(content)
    with refused(FileNotFoundError, "no image", said):
        scan(tmp_path)


def test_images_in_derivatives_keep_their_label_and_patient(tmp_path):
    touch(tmp_path, *(f"sub-01/anat/sub-01_{t}.nii.gz" for t in BIDS))
    stripped = "derivatives/stripped/sub-01/anat/sub-01"
    touch(tmp_path, *(f"{stripped}_desc-brain_{t}.nii.gz" for t in BIDS), f"{stripped}_dseg.nii.gz")
    found = scan(tmp_path)
    assert [(item["case"], "label" in item) for item in found] == [
        ("derivatives_stripped_sub-01_anat", True),
        ("sub-01_anat", False),
    ]
    assert {patient(item["case"]) for item in found} == {"sub-01"}


def test_a_mask_of_the_brain_is_no_label(tmp_path):
    touch(tmp_path, *(f"a/a_{t}.nii.gz" for t in ALL), "a/mask/a_brain.nii.gz", "a/a_bet_mask.nii.gz")
    assert "label" not in scan(tmp_path)[0]


def test_nnunet_s_raw_format_is_refused_since_names_do_not_say_the_sequence(tmp_path):
    touch(tmp_path, *(f"imagesTr/BraTS_001_000{n}.nii.gz" for n in range(4)), "labelsTr/BraTS_001.nii.gz")
    with refused(ValueError, "BraTS_001_0000.nii.gz", "look like nnU-Net's raw format", "as its publishers ship it"):
        scan(tmp_path)
