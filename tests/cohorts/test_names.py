"""Endings of names: what they tell; a T1 that other words may make one after contrast agent is not told."""

import pytest

from common.cohorts.names import split_name

PLAIN = {
    "x_CE_T1.nii.gz": None,
    "sub-01_acq-post_T1w.nii.gz": None,
    "sub-01_ce-none_T1w.nii.gz": "t1",
    "sub-01_ce-gd_T1w.nii.gz": "t1c",
    "sub-01_ce-GADOVIST_T1w.nii.gz": "t1c",
    "sub-01_ce-nogd_T1w.nii.gz": "t1",
    "sub-01_ce-x_T1w.nii.gz": None,
    "c_t1.nii.gz": "t1",
    "noCE_T1.nii.gz": None,
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


@pytest.mark.parametrize("name", PLAIN)
def test_plain_names(name):
    assert split_name(name)[1] == PLAIN[name]
