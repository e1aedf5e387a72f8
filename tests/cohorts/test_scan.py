"""Folders as publishers ship them and as users arrange them. Images are empty, because scanning must not open them."""

from pathlib import Path

import pytest
from layouts import LAYOUTS, cases_of, paths_of, touch, touch_cases
from refusals import refused

from common.cohorts import COHORTS, cases, get_cohort
from common.cohorts.names import split_name
from common.cohorts.registry import patient, patient_of
from common.cohorts.scan import find_cases, named_after

ALL = ["t1", "t1c", "t2", "flair"]
FOUR = (*ALL, "seg")


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
        ("brats_ped", {"ET": 1, "NET": 2, "CC": 3, "ED": 4}, ("NET", "CC", "ET")),
        ("lumiere", {"ET": 1, "NCR": 2, "ED": 3}, ("NCR", "ET")),
        ("open_glioma", {"NCR": 1, "ED": 2, "ET": 3}, ("NCR", "ET")),
        ("msd_task01", {"ED": 1, "NCR": 2, "ET": 3}, ("NCR", "ET")),
    ],
)
def test_cohorts_have_their_own_label_values(cohort, values, core):
    assert COHORTS[cohort].labels.values == values
    assert set(COHORTS[cohort].labels.regions["TC"]) == set(core)
    assert COHORTS[cohort].modalities == tuple(ALL)


@pytest.mark.parametrize("name", LAYOUTS)
def test_publishers_names(tmp_path, name):
    """The label that was corrected by hand is taken; other masks, maps and unstripped images are not."""
    touch_cases(tmp_path, name, patients=2)
    found = scan(tmp_path, name)
    assert [item["case"] for item in found] == cases_of(name, patients=2)
    for item in found:
        images, label, _ = paths_of(name, item["case"])
        assert item["modalities"] == ALL
        assert [*item["image"], item["label"]] == [str(tmp_path / path) for path in (*images, label)]
    assert len({patient_of(item) for item in found}) == 2


def test_a_folder_of_one_case_and_an_uncompressed_one(tmp_path):
    case = "BraTS19_TCIA09_141_1"
    touch(tmp_path, *(f"Training/LGG/{case}/{case}_{token}.nii" for token in FOUR), "Training/name_mapping.csv")
    (item,) = scan(tmp_path, "brats2019")
    assert (item["case"], names(item, "label")) == (case, f"{case}_seg.nii")
    assert scan(tmp_path / "Training" / "LGG" / case, "brats2019") == [item]


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
    touch(tmp_path, "imagesTr/._BRATS_001.nii.gz")
    (tmp_path / "dataset.json").write_text('{"modality": {"0": "FLAIR"}, "labels": {"1": "edema"}}')

    labelled, unlabelled = scan(tmp_path, "msd_task01")

    assert labelled["case"] == "BRATS_001"
    assert labelled["image"] == [str(tmp_path / "imagesTr" / "BRATS_001.nii.gz")] * 4
    # the channels of the files are FLAIR, T1w, T1gd, T2w
    assert (labelled["modalities"], labelled["channels"]) == (ALL, [1, 2, 3, 0])
    assert labelled["label"] == str(tmp_path / "labelsTr" / "BRATS_001.nii.gz")
    assert unlabelled["case"] == "BRATS_485"
    assert "label" not in unlabelled
    assert [item["case"] for item in scan(tmp_path / "imagesTs", "msd_task01")] == ["BRATS_485"]


@pytest.mark.parametrize(
    ("files", "modalities"),
    [
        (["x_t1ce.nii.gz", "x_flair.nii.gz"], ["t1c", "flair"]),
        (["FLAIR.nii.gz", "T1POST.nii.gz"], ["t1c", "flair"]),
        (["scan-T2w.nii"], ["t2"]),
        (["sub.x.T1Gd.mha", "sub.x.T1w.mha"], ["t1", "t1c"]),
        (["sub-01_T1w.nii.gz", "sub-01_ce-GAD_T1w.nii.gz", "sub-01_acq-tse_run-2_T2w.nii.gz"], ["t1", "t1c", "t2"]),
        (["sub-01_ses-2_ce-gad_desc-brain_T1w.nii.gz", "sub-01_ses-2_ce-gad_FLAIR.nii.gz"], ["t1c", "flair"]),
        (["003_t1.nii.gz", "007_flair.NII.GZ"], ["t1", "flair"]),
        (["x_t1.nii.gz", "x_T1_brain.nii.gz", "x_T1_xyz_KM.nii.gz", "x_t1c.nii.gz"], ["t1", "t1c"]),  # no endings
        (["x_CE_T1.nii.gz", "x_flair.nii.gz"], ["flair"]),  # by its ending alone it would be a T1 without agent
    ],
)
def test_any_subset_of_one_subject_is_one_case(tmp_path, files, modalities):
    (item,) = scan(touch(tmp_path / "patient19", *files))
    assert (item["case"], item["modalities"]) == ("patient19", modalities)
    assert "label" not in item
    assert scan(tmp_path) == [item]


def test_subjects_side_by_side_are_told_apart_by_name(tmp_path):
    touch(tmp_path, "a_t1.nii.gz", "a_t2.nii.gz", "a_seg.nii.gz", "b_t1.nii.gz", "b_flair.nii.gz")
    first, second = scan(tmp_path)
    assert (first["case"], first["modalities"], names(first, "label")) == ("a", ["t1", "t2"], "a_seg.nii.gz")
    assert (second["case"], second["modalities"], "label" in second) == ("b", ["t1", "flair"], False)


def test_folders_of_bids(tmp_path, caplog):
    """Cases are named by the folders that lead to them; labels lie among the derivatives."""
    anat = "sub-01/ses-1/anat/sub-01_ses-1"
    touch(tmp_path, f"{anat}_T1w.nii.gz", f"{anat}_ce-GAD_T1w.nii.gz", "sub-02/anat/sub-02_FLAIR.nii.gz")
    touch(tmp_path, f"derivatives/manual/{anat}_space-T1w_dseg.nii.gz")
    first, second = scan(tmp_path)
    assert (first["case"], second["case"]) == ("sub-01_ses-1_anat", "sub-02_anat")
    assert (first["modalities"], names(first, "label")) == (["t1", "t1c"], "sub-01_ses-1_space-T1w_dseg.nii.gz")
    assert [patient_of(first), patient_of(second)] == ["sub-01", "sub-02"]
    assert "label" not in second
    assert not caplog.records


TWICE = "BraTS20_Training_001/BraTS20_Training_001_t1.nii"


@pytest.mark.parametrize(
    ("files", "facts"),
    [
        *[
            ((*more, one, other), [f"/{one} and", f"/{other}: two files for the {role} of case", "Move one away"])
            for role, one, other, *more in (
                ("t1", "x_t1.nii.gz", "x_t1n.nii.gz"),
                ("t1", "sub-1_run-1_T1w.nii", "sub-1_run-2_T1w.nii"),
                ("label", "x_seg.nii.gz", "y_seg.nii.gz", "x_t1.nii.gz"),
            )
        ],
        *[
            (files, ["these names do not tell one case from several", "a folder of its own"])
            for files in (
                ("x_t1.nii.gz", "x_brain_t1.nii.gz"),
                ("T1.nii.gz", "x_T1.nii.gz"),
                ("subject_t1.nii.gz", "old_t1.nii.gz"),
                ("pre_T1.nii.gz", "post_T1.nii.gz", "T2.nii.gz"),
                ("P1_pre_T1.nii.gz", "P1_post_T1.nii.gz", "P1_T2.nii.gz"),
            )
        ],
        ((f"a/{TWICE}", f"b/{TWICE}"), ["two files for the t1 of case BraTS20_Training_001"]),
        (("a/b/x_t1.nii", "a_b/x_t1.nii"), ["subject/a/b and", "subject/a_b: two cases named a_b"]),
        (("imagesTr/x_0000.nii.gz", "labelsTr/x.nii.gz"), ["no modality recognised: x_0000.nii.gz", "known names"]),
    ],
)
def test_what_is_ambiguous_is_refused(tmp_path, files, facts):
    subject = touch(tmp_path / "subject", *files)
    with refused(ValueError, *facts):
        scan(subject)


def test_unknown_names_and_labels_of_no_case_are_warned_about(tmp_path, caplog):
    touch(tmp_path / "p", "T1.nii.gz", "GOLD_STANDARD.nii.gz", "x_T1_brain.nii.gz", "notes.txt", "bet/b_mask.nii.gz")
    touch(tmp_path / "q", "T1.nii.gz")
    touch(tmp_path / "labels", "r_seg.nii.gz")
    assert [(item["case"], names(item), "label" in item) for item in scan(tmp_path)] == [
        ("p", ["T1.nii.gz"], False),
        ("q", ["T1.nii.gz"], False),
    ]
    (record,) = caplog.records
    assert "4 image files are ignored" in record.message
    for name in ("GOLD_STANDARD", "x_T1_brain", "b_mask", "r_seg"):
        assert f"{name}.nii.gz" in record.message
    roles = named_after(tmp_path, get_cohort("brats2020"))
    assert [roles[tmp_path / name] for name in ("p/T1.nii.gz", "p/x_T1_brain.nii.gz")] == ["t1", None]


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


@pytest.mark.parametrize(
    ("pattern", "times", "told"),
    [
        ("{c}/{d}/{t}.nii.gz", ["2019_01_02", "2019_07_11"], True),
        ("{c}/{d}/{c}_{d}_{t}.nii.gz", ["25-01-2019", "31.07.2019"], True),
        ("{c}/{d}/{t}.nii.gz", ["preop", "follow-up 2"], True),
        ("{c}_{d}_{t}.nii.gz", ["pre", "post"], True),
        ("{c}/{c}_{d}_{t}.nii.gz", ["preop", "postop"], True),
        ("{c}/{d}/{t}.nii.gz", ["1", "2"], False),
        ("{c}/{d}/{t}.nii.gz", ["T1", "T2"], False),
    ],
)
def test_time_points_are_of_one_patient_or_asked_about(tmp_path, caplog, pattern, times, told):
    touch(tmp_path, *(pattern.format(c=c, d=d, t=t) for c in ("P1", "P2") for d in times for t in FOUR))
    found = scan(tmp_path)
    assert [(item["modalities"], "label" in item) for item in found] == [(ALL, True)] * 4
    assert ({patient_of(item) for item in found} in ({"P1", "P2"}, {"P1_P1", "P2_P2"})) == told
    assert ("--patients FILE.csv" in caplog.text) == (not told)


@pytest.mark.parametrize(
    ("images", "label"),
    [
        ("{c}/{t}.nii.gz", "{c}/manual/seg.nii.gz"),
        ("images/{c}_{t}.nii.gz", "labels/{c}_seg.nii.gz"),
        ("images/{c}/{c}_{t}.nii.gz", "segmentations/{c}_tumor.nii.gz"),
        ("{c}/{c}_{t}.nii.gz", "{c}/{c}_gtv.nii.gz"),
        ("{c}_{t}.NII.GZ", "{c} seg.NII.GZ"),
        ("{c}/{c}_{t}.nii.gz", "{c}/x_seg.nii.gz"),
    ],
)
def test_labels_go_to_their_cases(tmp_path, images, label):
    for c in ("P1", "P2"):
        touch(tmp_path, *(images.format(c=c, t=t) for t in ALL), label.format(c=c))
    found = scan(tmp_path)
    assert [item["modalities"] for item in found] == [ALL] * 2
    for item, c in zip(found, ("P1", "P2"), strict=True):
        assert all(c in Path(path).relative_to(tmp_path).as_posix() for path in [*item["image"], item["label"]])


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("P1.zip", b"", "1 file not read (.zip): unpack it"),
        ("a/T1.mgz", b"", "(.mgz): convert it to NIfTI"),
        ("vol/P1_vol.npy", b"", "only 1 .npy. 1 file not read (.npy): an array says neither voxel size"),
        ("a/1.png", b"", "only 1 .png. Unpack the data there"),
        ("a/1-01.dcm", bytes(128) + b"DICM", "Convert its DICOM files to NIfTI"),
    ],
)
def test_what_is_there_instead_of_images_is_said(tmp_path, file, content, said):
    (touch(tmp_path, file) / file).write_bytes(content)
    with refused(FileNotFoundError, "no image", said):
        scan(tmp_path)


OF_OWN = ("20010523", "2001_05_23", "23.05.2001", "MR1", "pre")
THEMSELVES = ("BraTS20_Training_001", "Brats18_2013_10_1", "own_case_7", "own_MR0001", "own_20019923")
"""No visit's number, a record's number, no date."""


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
        *((name, "sub-01") for name in ("sub-01_ses-02_anat", "derivatives_brains_sub-01_ses-02_anat")),
        *(("clinic7_visit3", "clinic7"), ("Patient 01 FU1", "Patient 01"), ("PAT01.2019-02-01", "PAT01")),
        *((f"own_{time}", "own") for time in OF_OWN),
        *((case, case) for case in THEMSELVES),
    ],
)
def test_patients(case, expected):
    assert patient(case) == expected


PLAIN = {
    None: """x_CE_T1 | sub-01_acq-post_T1w | sub-01_ce-x_T1w | noCE_T1 | vs_gk_1_seg_T1 | T1w_mask | x_T1_FLAIR |
        FLAIR2T1 | T1c-T1 | x_bet_mask | sub-01_desc-brain_mask | x_wm_seg | T1_fast_seg | x_pred_seg""",
    "t1": "sub-01_ce-none_T1w | sub-01_ce-nogd_T1w | c_t1",
    "t1c": "sub-01_ce-gd_T1w | sub-01_ce-GADOVIST_T1w | x_T1Gd_to_T1",
    "flair": "flair_to_t1 | x_T2_FLAIR | sub-01_space-T1w_FLAIR",
    "t2": "x_T2_in_T1_space",
    "label": "x_tumor | sub-01_label-lesion_mask | P 1 seg | x_seg_mask",
}
"""What names tell, and the names without their ending."""


@pytest.mark.parametrize(("told", "name"), [(told, name) for told in PLAIN for name in PLAIN[told].split("|")])
def test_plain_names(told, name):
    assert split_name(" ".join(name.split()) + ".nii.gz")[1] == told
