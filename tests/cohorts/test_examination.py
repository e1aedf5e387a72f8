"""Which names, JSON files and folders tell of two examinations or patients, and which pass without a word."""

import json
from pathlib import Path

import pytest
from layouts import touch

from common.cohorts import get_cohort
from common.cohorts.examination import differing, differing_files, told
from common.cohorts.registry import dates, patient_of
from common.cohorts.scan import find_cases
from common.cohorts.splits import split_cases
from mmb.experiments.checking import follow_ups

ONE = """5_ax_t1 8_flair | 20220105_101010_t1c 20220105_102233_flair | 20220105_235500_t1c 20220106_001000_flair |
    x_brain_t1 x_flair | P1_t1_reg P1_flair_reg | x_t1_1mm x_flair_1mm | x_T2_to_T1 x_T1 | mprage_gd dark_fluid |
    t1 flair | T1 T1POST FLAIR | ax_t1 sag_flair cor_t2 | siemens_t1 philips_flair | tse_T2w mprage_T1w space_flair |
    BraTS20_Training_001_t1_reg BraTS20_Training_001_t2_reg | BraTS20_Training_001_brain_t1 BraTS20_Training_001_t2 |
    sub-01_T1w sub-01_ses-1_FLAIR | sub-01_ses-1_acq-tse_run-2_T2w sub-01_ses-1_ce-gd_T1w | sub-01_T1w T1_brain |
    4_t1_mprage_sag_p2_iso_20210304 5_t2_tse_tra_20210304 | s_t1_20230105101010_4 s_flair_20230105104010_7 |
    003_t1 007_flair | 1mm_t1 3mm_flair | 3d_t1c 2d_t2 | nativ_t1 gd_t1c | pre_T1 post_T1ce | P1_t1c P1_manual_seg |
    P1_t1c rater2_seg | t1c tumour_seg | Smith_John_t1 John_Smith_flair | Smith_t1 flair | pat01_t1 pat01_brain_flair |
    UPENN-GBM-00001_11_T1 UPENN-GBM-00001_11_FLAIR | 2023-01-05_t1c 2023-01-05_flair | series3_t1 series8_flair |
    se02_t1 se11_t2 | BRATS_009_t1 BRATS_009_flair | x_20220105_t1 x_flair | 1999_t1 2001_flair | echo1_t2 echo2_t1 |
    10_t1_se_KM 4_t2_tse | run-01_t1 run-02_t2 | study_5_t1 study_8_flair | x_case_1_t1 case_1_flair |
    T1_pat01 FLAIR_pat01 | t1ce_case5 flair_case5 | T1_20230105_101010 FLAIR_20230105_102020 | T1_preop FLAIR_preop |
    3_t1_mprage_sag 5_t2_flair_cor 9_t1_mprage_sag_km | 201_T1W_3D_TFE 301_FLAIR_longTR 801_T1W_3D_TFE_GD |
    Sag_T1_FSPGR_BRAVO Ax_T2_PROPELLER Sag_CUBE_T2_FLAIR Sag_T1_FSPGR_BRAVO_C+ |
    T1_SE_TRA_NATIV T1_SE_TRA_KM FLAIR_TRA | T1_axiale_senza_mdc T1_axiale_con_mdc FLAIR_coronale |
    axial_T1_sin_contraste axial_T1_con_contraste FLAIR_axial | T1_sans_gado T1_avec_gado FLAIR_axiale |
    t1_ohne_km t1_mit_km flair | T1_zonder T1_met flair | rT1 rFLAIR | wT1 wT2 |
    t1_mprage_sag_p2_iso_0004 t2_space_dark-fluid_sag_p4_iso_0007 | t1_mprage_p2 flair_p3 | T1_v2 FLAIR_v1 |
    T1_1 FLAIR_2 | t1_fl2d_tra t1_fl2d_tra_KM t2_tirm_tra_dark-fluid | Ax_T1_+C Ax_FLAIR |
    Ax_T1_PRE Ax_T1_POST AX_FLAIR | t1_e1 flair_e2 | t1_to_mni flair_to_mni | t1_2mni flair_2mni |
    T1_LPS_rSRI FLAIR_LPS_rSRI | T1_hdbet FLAIR_synthstrip | T1_1x1x1 FLAIR_1x1x5 | P1_bet_t1 P1_flair |
    GBM_001_t1c GBM_001_flair | brain_7_t1 brain_8_t2 brain_9_flair |
    P1_warped_t1 P1_flair | P1_skullstripped_t1 P1_flair | P1_resampled_t1 P1_flair | P1_n4_t1 P1_flair |
    P1_t1 P1_corrected_seg | P1_t1 P1_consensus_seg | P1_t1 ground_truth_seg | P1_t1 tumor-label |
    Segmentation-label t1 | BraTS-MEN-00001-000-t1c BraTS-MEN-00001-000-gtv |
    sub-01_ses-20230105_T1w sub-01_ses-20230105_FLAIR sub-01_dseg |
    Meier_Hans_19500101_20230105_t1 Meier_Hans_19500101_20230105_flair | t1_Doe_John flair_Doe_John | T1_1.5T FLAIR_3T |
    20230105T101010_t1 20230105T102020_flair | t1_12-30-05 flair_12-45-10 | T1w_acpc_dc_restore T2w_acpc_dc_restore |
    Schaedel_t1 Kopf_flair | cerebro_t1 encefalo_flair | anon_t1 anon_flair | export_t1 flair |
    eT1W_SE_GD T2W_FLAIR_SENSE | T1_scan1 FLAIR_scan2 | T1_mprage_week FLAIR_week | pre_op_t1 pre_op_flair |
    visit_2_t1 visit_2_flair | P1_fu1_t1 P1_fu1_flair | T1_n4_rai FLAIR_n4 |
    19700101_20230105_t1 19700101_20230106_flair | P1.t1c P1.flair"""
PERHAPS_TWO = """pat01_t1c pat02_flair | preop_t1c postop_flair | P1_t1c P2_seg | A_t1 B_flair | Smith_t1 Jones_flair |
    case7_t1 case12_flair | visit1_t1c visit2_flair | week0_t1 week12_flair | P1_preop_t1 P1_postop_flair |
    baseline_t1c followup_flair | pat01_ax_t1_post_gad pat02_flair | subj001_T1w subj002_T2w | P1_t1c P1_t1 P3_flair |
    Phantom_001_t1 Phantom_002_flair | case_1_t1 case_2_flair | sub_01_t1 sub_02_flair |
    anna_brain_t1 berta_brain_flair | P1_t1c P2_T1_KM | tp1_t1 tp2_t2 | T1_pat01 FLAIR_pat02 |
    T1w_patient_1 FLAIR_patient_2 | t1_mprage_pat01 t2_flair_pat02 | ax_t1_case3 ax_flair_case7 |
    mprage_gd_pat01 dark_fluid_pat02 | T1_preop FLAIR_postop | t1_visit1 flair_visit2 | T1_baseline FLAIR_followup |
    baseline_t1 week12_flair | P1_preop_t1 P1_fu3_flair | pre_op_t1 post_op_flair | P1_pre_op_t1 P1_post_op_flair |
    MRN12345_t1 MRN67890_flair | P1_month3_t1 P1_month6_flair | HGG_01_t1 LGG_02_flair | P1_t1 P2_mask-label |
    T1_tp0 FLAIR_tp1 | Patient-1_t1 Patient-2_flair | Brats18_CBICA_AAB_1_t1 Brats18_CBICA_AAG_1_flair |
    P1_V1_t1 P1_V2_flair | GBM_001_t1c GBM_002_flair | TCGA_02_t1 TCGA_03_flair | GBM-101-t1 GBM-102-t2 |
    brain_7_t1 brain_9_flair | pat-1_t1 pat-1_t2 pat01_t1c pat02_flair"""
TWO = """sub-01_ses-01_T1w sub-01_ses-02_FLAIR | sub-01_T1w sub-02_FLAIR | ses-1_T1w ses-2_FLAIR |
    BraTS-GLI-00001-000-t1c BraTS-GLI-00002-000-t2f | BraTS-GLI-00001-000-t1c BraTS-GLI-00001-001-t2f |
    2023-01-05_t1c 2024-02-07_flair | 20230105_ax_t1_post_gad 20240207_ax_t2_flair | 05.01.2023_t1 07.02.2024_flair |
    x_20230105_t1c x_20230108_flair | BraTS20_Training_001_t1 BraTS20_Training_002_t2 |
    x_2023_01_05_t1 x_2023_03_01_t2 | study_t1_mprage_20230105101010_4 study_flair_20230601101010_7 |
    UPENN-GBM-00001_11_T1 UPENN-GBM-00001_21_FLAIR | UCSF-PDGM-0429_T1 UCSF-PDGM-0429_FU003d_FLAIR |
    BraTS2021_00495_t1 BraTS2021_01479_flair | sub-A_T1w sub-B_seg | sub-01_ses-pre_T1w sub-01_ses-post_T1w_brain |
    TCGA-02-0003_1997.06.08_t1 TCGA-02-0006_1996.08.23_flair | T1_sub-01 FLAIR_sub-02 |
    T1w_sub-01_ses-01 FLAIR_sub-01_ses-02 | T1_20230105 FLAIR_20240207 | sub-01_T1w sub-01_T2w sub-02_seg |
    t1c_BraTS-GLI-00001-000 flair_BraTS-GLI-00002-000 | P1_20230105_T1_mprage P1_20240207_FLAIR |
    SUB-01_T1w sub-02_T2w | t1_mprage_2023-01-05 t2_flair_2023-02-07 | x_20230105_seg x_20240207_t1 |
    BraTS-GLI-00001-000-t1c BraTS-GLI-00001-100-seg | sub-01_ses-01_space-MNI_T1w sub-01_ses-02_space-MNI_FLAIR |
    20230105101010_t1 20240207102020_flair | 19700101_20230105_t1 19700101_20240105_flair |
    7_t1_KM_2023-01-05 9_t2_2023-02-05"""


def rows(table: str) -> list[list[str]]:
    return [row.split() for row in table.split("|")]


def found(names: list[str], folder: Path = Path("/nowhere")) -> str:
    difference = differing([told(folder / f"{name}.nii.gz") for name in names])
    return "one" if difference is None else "two" if difference.certain else "perhaps two"


EACH = [
    (kind, names) for kind, table in (("one", ONE), ("perhaps two", PERHAPS_TWO), ("two", TWO)) for names in rows(table)
]


@pytest.mark.parametrize(
    ("expected", "names"), EACH, ids=lambda each: each if isinstance(each, str) else " ".join(each)
)
def test_names(expected, names):
    assert found(names) == found(names[::-1]) == expected


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ({"AcquisitionDateTime": "2023-01-05T23:50:00.5"}, {"AcquisitionDateTime": "2023-01-06T00:20:00"}, "one"),
        ({"AcquisitionDateTime": "2023-01-05T10:10:10.5"}, {"AcquisitionDateTime": "2024-02-07T10:10:10.5"}, "two"),
        ({"SeriesDate": "20230105"}, {"StudyDate": "20230107"}, "two"),
        ({"AcquisitionTime": "10:10:10"}, {"AcquisitionTime": "23:10:10"}, "one"),
        ({"AcquisitionDateTime": 7, "StudyDate": None}, {"AcquisitionDateTime": "2024-02-07"}, "one"),
        ({"AcquisitionDateTime": "1900-01-01T10:10:10"}, {}, "one"),
        ([1], {"StudyDate": "20240207"}, "one"),
        ({"PatientID": "A", "PatientName": "B^C"}, {"PatientID": "A"}, "one"),
        ({"PatientID": "A"}, {"PatientID": "B"}, "two"),
        ({"PatientName": "A^B"}, {"PatientName": "A^C"}, "two"),
        ({"StudyInstanceUID": "1.2.3"}, {"StudyInstanceUID": "1.2.4"}, "two"),
        ({"PatientID": None}, {"PatientID": 5}, "one"),
        ({"AcquisitionDateTime": 20230105101010}, {"AcquisitionDate": "2024-01-05"}, "two"),
        ({"AcquisitionDateTime": "2023-13-45"}, {"AcquisitionDateTime": "2024-01-01"}, "one"),
        ({"StudyDate": "1900-01-01"}, {"StudyDate": "1900-01-01", "AcquisitionTime": "09:10:10.5"}, "one"),
    ],
)
def test_the_date_of_the_json_is_that_of_the_image(tmp_path, first, second, expected):
    for name, said in (("x_t1", first), ("x_flair", second)):
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    assert found(["x_t1", "x_flair"], tmp_path) == expected


@pytest.mark.parametrize(
    ("files", "cases"),
    [
        ("t1/x_t1 flair/x_flair", {"study": ["flair", "t1"]}),
        ("P1/T1w/x_T1w P1/T2w/x_T2w P2/T1w/x_T1w", {"P1": ["t1", "t2"], "P2": ["t1"]}),
        ("3_t1/5_t1 8_flair/6_flair", {"study": ["flair", "t1"]}),
        (
            "t1/a_t1 t1/b_t1 flair/a_flair flair/b_flair seg/a_seg",
            {"a": ["flair", "label", "t1"], "b": ["flair", "t1"]},
        ),
        ("t1/A_t1 flair/B_flair", {"A": ["t1"], "B": ["flair"]}),
        ("t1/x_t1 t1/x_flair", {"t1": ["flair", "t1"]}),
        ("pat1/scan_t1 pat2/scan_flair", {"pat1": ["t1"], "pat2": ["flair"]}),
        ("sub-01_T1w sub-02_FLAIR sub-02_dseg", {"sub-01": ["t1"], "sub-02": ["flair", "label"]}),
        ("m/20230105_t1 m/20240207_t2", {"m_20230105": ["t1"], "m_20240207": ["t2"]}),
        ("x_t1 labels/x_seg", {"study": ["label", "t1"]}),
        ("sub-01/sub-01_T1w sub-01/sub-02_dseg", {"sub-01": ["t1"]}),
        ("P1/P1_t1 P1/P2_seg P2/P2_t1", {"P1": ["t1"], "P2": ["label", "t1"]}),
    ],
)
def test_cases_of_a_folder(tmp_path, files, cases):
    items = find_cases(
        touch(tmp_path / "study", *(f"{name}.nii.gz" for name in files.split())), get_cohort("brats2023")
    )
    assert {each["case"]: sorted([*each["modalities"], *{"label"} & {*each}]) for each in items} == cases


def test_splits_say_that_files_of_a_case_may_be_of_two(tmp_path, caplog):
    for k in range(4):
        touch(tmp_path, f"P{k}/P{k}_t1.nii.gz", f"P{k}/P{'7' if k == 2 else k}_flair.nii.gz", f"P{k}/P{k}_seg.nii.gz")
        for path in (tmp_path / f"P{k}").iterdir():
            path.write_text(path.name)
    split_cases(get_cohort("brats2023"), tmp_path)
    (record,) = (each.message for each in caplog.records if "may be of two" in each.message)
    assert "P2: P2_t1.nii.gz (p2) and P7_flair.nii.gz (p7)" in record
    assert "P1" not in record
    assert [differing_files(item) is None for item in find_cases(tmp_path, get_cohort("brats2023"))].count(False) == 1


@pytest.mark.parametrize(
    ("cases", "asked"),
    [
        *((names, True) for names in rows("P01_t0 P01_t1|P01_v1 P01_v2|P01_1 P01_2|P01-1 P01-2|P01_6m P01_12m")),
        *((names, True) for names in rows("P01_D0 P01_D90|P01_run-1 P01_run-2|P01 P01_rescan|001_A 001_B")),
        *((names, False) for names in rows("sub-01_ses-1 sub-01_ses-2|P01_pre P01_post|case_001 case_002|pat1 pat2")),
        *(
            (names, False)
            for names in rows("BraTS20_Training_001 BraTS20_Training_002|P01 P02|site1_ward_a site2_ward_a")
        ),
        ([f"site1_{number:03d}" for number in range(20)], False),
        (["UCSD-PTGBM-0002_01", "UCSD-PTGBM-0002_02"], False),
    ],
)
def test_follow_ups_by_a_short_ending_are_asked_about(cases, asked):
    assert follow_ups(case for case in cases if patient_of({"case": case}) == case) == [sorted(cases)] * asked


def test_dates():
    names = (
        "x_20230105",
        "2023-01-05T10",
        "05.01.2023",
        "01-31-2023",
        "x_20231305",
        "120230105",
        "20230105101010_4",
        "2023",
    )
    assert ["/".join(map(str, dates(name))) for name in names] == [
        *("2023-01-05", "2023-01-05", "2023-01-05", "2023-01-31", "", "", "2023-01-05", "")
    ]
