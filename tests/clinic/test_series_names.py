"""Which sequence a file in a folder is taken for by all words of its name, and which words have two meanings."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset
from readings import each

from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.evidence import HeaderEvidence
from mmb.clinic.recognise.header import recognise
from mmb.clinic.recognise.reading import read_folder, read_headers

TIMES = {
    "t1": {"ScanningSequence": ["GR", "IR"], "RepetitionTime": 2300, "EchoTime": 3, "InversionTime": 900},
    "t2": {"ScanningSequence": "SE", "RepetitionTime": 5200, "EchoTime": 98},
    "flair": {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 9000, "EchoTime": 120, "InversionTime": 2500},
}


def taken_for(folder: Path, name: str) -> str:
    """Return what a file is taken for beside one of another sequence; "none" if it is left out."""
    for each_name in (name, "other_t2" if "flair" in name.lower() else "other_flair"):
        (folder / f"{each_name}.nii.gz").touch()
    said = {each.name: each.says.modality for each in read_headers(folder, PHANTOM).candidates}
    return said.get(f"{name}.nii.gz") or "none"


SAID = {
    "t1c": """P1_T1_AX_POST_GAD_5mm_t1c | AX_T1_POST_9_t1c | T1_MPRAGE_POST_T1CE | 5-t1_mprage_sag_post-T1GD |
        sub-01_acq-t1gd_ce-gd_T1w | T1_CON_CONTRASTE_t1ce | t1c_AX_T1_POST | T1_MPRAGE_t1c | P2_t1_fs_cor_km_t1c |
        3D_T1_TFE_GD_T1CE | T1W_post_Gd_t1gd | sub-02_acq-T1post_ce-gadovist_T1w | T1_+C_t1c | AX_T1_GAD_CT1 |
        T1_tse_tra_t1ce | t1c_synthstrip | P1_T1_dopo_mdc_t1c | P1_t1c_brain_synthstrip | T1_with_contrast_T1post""",
    "t1": """AX_T1_9_t1 | T1_MPRAGE_SAG_T1w | t1_synthstrip | T1_pre_GD_t1n | P1_T1_nativ_t1 | T1_FLASH_FA_20 |
        x_t1_fa8_reg""",
    "t2": "AX_T2_TSE_t2 | t2_tse_tra_T2w | t2_synthstrip | P1_T2_TSE_FS_t2",
    "flair": "AX_T2_FLAIR_flair | t2_tirm_dark-fluid_FLAIR | flair_synthstrip | FLAIR_Deep_Resolve_reg",
    "none": """P1_SWI_t2 | P1_subtraction_t1c | x_t1sub | synthetic_flair | pred_t1c | acq-DIR_FLAIR | P1_ADC_t2 |
        sub-01_part-phase_T1w | sub-01_part-imag_T2w | sub-01_acq-DIR_FLAIR | P1_dwi_t2 | P1_tof_t1 | P1_perf_t1c |
        P1_mask_t1 | segmentation_flair | T1c-T1 | T1_T1c | T1_reg_T1c | T1_without_contrast_t1c | x_flairmask |
        P1_parcellation_t1 | P1_synthetic_t1c | generated_t2 | fake_flair | P1_fused_t1 | P1_mip_t1c | P1_t1diff |
        P1_STIR_t2 | P1_opp_phase_t1 | P1_ratio_t1 | P1_zscore_flair | P1_lesion_map_flair | P1_t1Seg | P1_qsm_t2 |
        sub-01_part-real_T1w | P1_difference_t1c | P1_prob_flair | P1_overlay_t1c | P1_cbv_t1c | P1_b0_t2""",
}


@pytest.mark.parametrize(("expected", "name"), each(SAID), ids=[name for _, name in each(SAID)])
def test_all_words_of_a_name_count(tmp_path, expected, name):
    assert taken_for(tmp_path, name) == expected


def test_a_map_that_is_named_like_an_image_is_left_out_and_said(tmp_path, phantom_volumes):
    for name, modality in (("P1_SWI_t2", "t2"), ("P1_t1", "t1"), ("P1_T1_POST_GD_t1c", "t1c"), ("P1_flair", "flair")):
        nib.save(phantom_volumes[modality], tmp_path / f"{name}.nii.gz")
    found = read_folder(tmp_path, PHANTOM)
    assert list(found.images) == ["t1", "t1c", "flair"]
    np.testing.assert_array_equal(found.images["t1c"].dataobj, phantom_volumes["t1c"].dataobj)
    assert "little_confidence" not in [remark.code for remark in found.remarks]
    assert "P1_SWI_t2.nii.gz: left out: by the words of its name: susceptibility ('swi')." in found.explanations


def test_words_of_the_name_of_the_case_are_no_words_of_the_image(tmp_path, phantom_volumes):
    for modality in ("t1", "t2"):
        nib.save(phantom_volumes[modality], tmp_path / f"DIR_007_{modality}.nii.gz")
    assert list(read_folder(tmp_path, PHANTOM).images) == ["t1", "t2"]


def test_what_a_program_made_is_not_what_the_sidecar_beside_it_describes(tmp_path):
    said = {"ScanningSequence": "SE", "EchoTime": 0.098, "RepetitionTime": 5.0, "SeriesDescription": "t2_tse"}
    for name in ("5_T2_parcellation", "6_T2_subtraction"):
        (tmp_path / f"{name}.nii.gz").touch()
        (tmp_path / f"{name}.json").write_text(json.dumps(said))
    assert {file.says.modality for file in read_headers(tmp_path, PHANTOM).candidates} == {None}


DESCRIBED = {
    "t1": """T1 FLASH FA 20 | t1_fl3d_fa15_tra | T1 MPRAGE for segmentation planning | T1 synthstrip | T1 Deep Resolve |
        T1 in phase""",
    "t2": "T2 TSE Deep Resolve | T2 tra for segm. navigation",
    "flair": "FLAIR Deep Resolve | 3D FLAIR DeepResolve Boost",
    "t1?": """AX T1 REPORT | T1 brainlab merge | T1 MPRAGE FA | T1 resolve | T1 screening | T1 CAL | T1 MEDIC | T1 AI |
        T1 WARP | T1 pred | T1 Kinetics | T1 volumetrico | T1 sella | T1 cor orbitas | T1 Felsenbein""",
    "t2?": "T2 merged | T2 tra summary",
    "flair?": "FLAIR screening protocol | FLAIR MS lesions",
    "none": """T1 parcellation | icobrain FLAIR lesions | T2 WMH | FLAIR z-score | FLAIR* | T1 BrainVolumetry |
        T1w/T2w ratio | FA | FA map | RESOLVE | report | MERGE | T1 segmentation | aparc+aseg T1 |
        T1 cortical thickness | FLAIR lesion load | NeuroQuant T1 | T1 screen save |
        T2 lesion map | FLAIR heatmap | T1 atrophy | T1 CEST | APTw T2 | T1 elastography | T2 Cine flow |
        T1 MR fingerprinting | T1 relaxation time | g-factor T1 | T1 uncertainty | T1 GradCAM | T1 deformation field |
        pseudo CT T1 | T1 brain age | T1 RTSTRUCT | T1 Isodosen | T1 GTV Konturen | T2 SPACE curved | T1 checkerboard |
        T1 cikarma | T1 DESPOT1 | T2 Karte | T1 black blood vessel wall | T1 reperage | T2 omurga | c1T1 mprage |
        T1 vibe dixon F 8""",
}


def recognised(text: str, weighting: str, **more: Any) -> HeaderEvidence:
    header = Dataset()
    header.update({"SeriesDescription": text, **TIMES[weighting], **more})
    return recognise(header)


@pytest.mark.parametrize(("expected", "text"), each(DESCRIBED), ids=[text for _, text in each(DESCRIBED)])
def test_a_word_of_two_meanings_makes_a_series_less_sure_where_times_and_weighting_agree(expected, text):
    says = recognised(text, next((name for name in ("flair", "t2", "t1") if name in text.lower()), "t1"))
    doubt = "?" if says.modality and says.grade < Grade.LIKELY else ""
    assert f"{says.modality or 'none'}{doubt}" == expected, says


@pytest.mark.parametrize(("text", "sure"), [("T1 SOMETHING NEW", False), ("T1 MPRAGE axial", True)])
def test_what_is_derived_and_described_in_unknown_words_is_less_sure(text, sure):
    assert (recognised(text, "t1", ImageType=["DERIVED", "PRIMARY", "M"]).grade >= Grade.LIKELY) == sure


@pytest.mark.parametrize(
    ("text", "grade", "words"),
    [
        ("T2 tse tra", Grade.SURE, "words: 't2'; "),
        ("T2 Teppich tra", Grade.LIKELY, "words: 't2' and unknown words; "),
        ("Teppich", Grade.OPEN, "words: none that is known; "),
    ],
)
def test_words_that_are_not_known_are_said_and_let_the_image_decide(text, grade, words):
    says = recognised(text, "t2")
    assert (says.modality, says.grade, says.reason.startswith(words)) == ("t2", grade, True)
