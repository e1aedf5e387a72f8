"""Names as scanners, hospitals and preprocessing write them: what they tell, and what they leave open."""

import pytest

from common.cohorts.names import by_words, split_name

PLAIN = {
    "x_CE_T1.nii.gz": "t1c",
    "sub-01_acq-post_T1w.nii.gz": "t1c",
    "sub-01_ce-none_T1w.nii.gz": "t1",
    "sub-01_ce-gd_T1w.nii.gz": "t1c",
    "c_t1.nii.gz": "t1",
    "noCE_T1.nii.gz": "t1",
    "vs_gk_1_seg_T1.nii.gz": None,
    "T1w_mask.nii.gz": None,
    "x_T1_FLAIR.nii.gz": None,
    "flair_to_t1.nii.gz": "flair",
    "x_T1Gd_to_T1.nii.gz": "t1c",
    "x_T2_in_T1_space.nii.gz": "t2",
    "FLAIR2T1.nii.gz": None,
    "T1c-T1.nii.gz": None,
    "x_T2_FLAIR.nii.gz": "flair",
    "sub-01_space-T1w_FLAIR.nii.gz": "flair",
    "x_bet_mask.nii.gz": None,
    "x_tumor.nii.gz": "label",
    "sub-01_label-lesion_mask.nii.gz": "label",
    "sub-01_desc-brain_mask.nii.gz": None,
    "P 1 seg.nii.gz": "label",
    "x_wm_seg.nii.gz": None,
    "T1_fast_seg.nii.gz": None,
    "x_pred_seg.nii.gz": None,
    "x_seg_mask.nii.gz": "label",
}
WORDS = {
    "t1": ["T1_native", "Ax_T1_FSPGR", "t1_mprage_sag_p2_iso", "MPRAGE", "P1_T1_pre_contrast", "T1SE",
           "T1 without contrast", "WIP_3D_T1_TFE", "T1_bet_reg", "t1n_to_SRI", "x_t1_LPS_rSRI", "T1_noGd",
           "T1_20190101", "P2_T1_reg", "T1_sin_contraste", "T1_sans_inj"],
    "t1c": ["T1_contrast", "T1+C", "T1+Gd", "T1 post", "T1KM", "T1Gado", "T1wPost", "T1w_Gd", "ceT1_reg",
            "P1_T1_post_contrast", "Ax_T1_FSPGR_+C", "sT1W_3D_TFE_C+", "t1_mprage_sag_p2_iso_KM", "MPRAGE_GD",
            "P1_T1_MPRAGE_KM_20190102101010_9",
            "9.000000-T1 AX POST-98029", "CT1_bet_reg", "3D_AX_T1_postcontrast", "T1 (post)", "T1_con_contraste",
            "T1 INJ"],
    "t2": ["T2_TSE", "T2SE", "t2_tse_tra_512", "Ax_T2_PROPELLER", "T2W_TSE_AX", "T2_brain", "3-AX T2 FSE"],
    "flair": ["FL", "FLAIR_3D", "Sag_CUBE_T2_FLAIR", "t2_spc_da-fl_sag_p2_iso", "DarkFluid", "T2 FLAIR",
              "t2_tirm_tra_dark-fluid", "5.000000-FLAIR axial-98025", "FLAIR (1)",
              "P1_FL_to_SRI_brain", "FLAIR_r2s_bet_reg"],
    None: ["T1_map", "T1rho", "T2_star", "T2star", "T2s", "T2_FFE", "T2_fl2d_tra", "TIRM", "STIR", "PD", "T1_FLAIR",
           "T1_bias", "T1_sub", "T1_unstripped", "T1_pre_post", "T1_T2", "SEG_T1_reg", "T1_mask", "ADC", "PRE",
           "x_DTI_eddy_FA", "BraTS_001_0000", "T1_P1"],
}  # fmt: skip


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names(name):
    assert split_name(name)[1] == PLAIN[name]


@pytest.mark.parametrize(
    ("modality", "name"), [(modality, name) for modality, names in WORDS.items() for name in names]
)
def test_names_in_words(modality, name):
    assert by_words(f"{name}.nii.gz")[1] == modality


def test_what_comes_before_the_words_tells_the_case():
    names = ("P2_T1_post_contrast.nii.gz", "P2_AX_T2_TSE.nii", "PAT-3 T1 post.nii.gz")
    assert [by_words(name)[0] for name in names] == ["P2", "P2", "PAT-3"]
    assert by_words("T1_P1.nii.gz", "P1") == ("", "t1")
