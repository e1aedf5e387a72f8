"""Descriptions and names of files, by what they tell.

"open" is a T1 of which they leave open whether it was acquired after contrast agent, "none" no image of a sequence.
"""

DESCRIPTIONS = {
    "t1c": """SAG T1 SPACE FS GD | T1 TSE TRA KM | t1_mpr_sag_p2_iso_1mm KM | AX T1 FSE POST CONTRAST |
        T1 TRA MIT KM | T1 AXIAL CON CONTRASTE | T1 SAG POS GADOLINIO | T1 TRA MET CONTRAST | T1 MED KONTRAST |
        T1 dopo mdc | T1 3D APRÈS GADO | T1 AVEC INJECTION | Ax T1 BRAIN POST GADOBUTROL | T1 DOTAREM 3D |
        T1 c/ contraste | T1 com contraste | T1 después de contraste | AX T1 W CONTRAST | T1+GD | T1+C FS COR |
        COR T1 POST | T1 SE COR +GAD | T1W_TSE_KM_fs | 3D T1 CE | T1 CE FSPGR | T1wCE | t1_vibe_fs_cor_km | MPRAGE+C |
        BRAVO C+ | VIBE POST GD | T1 MAGNEVIST | T1 after gadolinium | T1 contrast enhanced | Gd T1 ax |
        CONTRAST T1 AX | post-contrast T1 | T1postGd | T1_Gd_tra_nach_OP | T1 z kontrastem | T1 efter kontrast |
        KM t1 mprage | T1 после контраста | T1 增強 | T1 3D MPR Gd 0.9mm | T1 TSE FS KM cor | T1_FL3D_TRA_GD |
        T1 MPR tra KM 1mm | t1_fl2d_tra_KM | T1W_FFE_GD | AX T1 SE GADO FS | COR T1 FS GADOLINIUM |
        AX 3D T1 MPRAGE WITH CONTRAST | SAG T1 CUBE +C | sT1W_SE_GD_cor | T1 SAG FS PostC | t1_starvibe_fs_tra_KM |
        T1 AX GAD 5MM | T1 COR GAD FS | T1 POST 3D | +C T1 FLAIR AX | T1 BRAIN KM AX | TSE T1 post Gd FS |
        T1 DIXON W GD | mprage_1mm_gad | T1 FatSat KM | T1 AX CONTRAST | BRAIN LAB T1 KM | T1 KM 2 | AX T1 FS C+ |
        T1 SE TRA POST KM | Postcontrast MPRAGE | t1_tse_dixon_tra_KM_W | T1 3D KM (Navigation) | 3D T1 TFE GD SENSE |
        T1W/TSE/GD | T1 cor KM Hypophyse | T1 CE-MPRAGE | AX T1 POST-GADOLINIUM""",
    "t1": """T1 sin contraste | T1 w/o gad | T1 without gadolinium | T1 native | T1 vor KM | T1 avant injection |
        T1 antes de contraste | T1 prima del mdc | T1 przed kontrastem | T1 unenhanced | T1 noncontrast | T1 preGd |
        T1 non contrast | T1 без контраста | T1 非增强 | T1 平扫 | T1 without iv contrast | T1 w/o any contrast |
        T1 sans injection de gadolinium | T1 basal | T1 SEM GADOLINIO | T1 senza gadolinio | T1 zonder KM |
        T1 bez kontrastnej latky kontrast | T1 no gad | T1 nonGd | T1 pre-KM | T1 ohne Kontrastmittel | T1 tra natif |
        T1 TSE pre | T1 NON CON | T1 PRE KM | T1 nativ vor KM | T1 SE AX W/OUT | T1 AX NON-CONTRAST |
        AX T1 NONENHANCED | T1 SAG SENZA GADOLINIO | T1 sin gadolinio | T1 BEZ GD | T1 sans contraste |
        T1 no enhancement | T1 without Gd contrast | t1_se_tra_ohneKM | T1 precontrast 3D | T1 AX PLAIN |
        T1 voor contrast | T1 before contrast | T1 vor Gd""",
    "open": """T1 XYZ KM | T1 loppuun KM | T1 ilman kontrastia | T1 be kontrasto | T1 pa kontrast | T1 uit contrast |
        T1 o. KM | T1 kein KM | T1 nem kontraszt | T1 kontrastsiz | T1 fără contrast | T1 χωρις contrast | T1 KM- |
        T1 Gd- tra | T1 +/- C | T1 +- GAD | T1 contrast free | T1 KM frei | T1 GD none | T1 contrast allergy none |
        T1 zero GAD | T1 lacking gadolinium | T1 S/ GADO | T1 s kontrastem | T1 0 KM | AX T1 never GAD |
        T1 pre and post KM | T1 mit und ohne KM | T1 con e senza mdc | T1 nelkul kontraszt | T1 ei KM | T1 造影なし |
        T1 增强前 | MPRAGE -Gd | T1 TSE -KM tra | T1 (-KM) | T1 hors injection | T1 keine Kontrast | T1 ohne FS und KM |
        T1 keinKM | T1 absque contrast | T1 hebben contrast | T1 nil contrast | T1 nie KM | T1 omit GD |
        T1 refused contrast | T1 allergy contrast | T1 contrast: no | T1 KM: nein | T1 Gd=0 | T1 contrast-less |
        T1 GD OFF | T1 GAD (-) | T1 -GADO | T1 without/with GD | T1 W & W/O | T1 ± KM | T1 ilman tehoste contrast |
        T1 geen contrast | T1 kontrast yok | T1 ikke kontrast | T1 ingen kontrast | T1 nav kontrasts |
        T1 aucune injection | T1 pas de gado | T1 nessun contrasto | T1 brak kontrastu | T1 failed contrast |
        T1 NC contrast""",
    "t2": """AX T2 TSE FS | T2 BLADE TRA | T2 PROPELLER COR | T2 TSE KM | sag T2 frFSE | T2W TSE BRAIN |
        T2 SPC 3D iso | t2_tse_tra_p2_4mm | FSE T2 AX GD""",
    "flair": """T2 FLAIR FS | FLAIR 3D SPACE | T2 dark-fluid tra | COR FLAIR | FLAIR post contrast | Ax T2 FLAIR +C |
        3D CUBE FLAIR SAG | FLAIR VISTA 1mm | T2W FLAIR SPIR""",
    "none": """FLAIR mask | T1 brain mask | FLAIR overlay | T1 fused | fusion T1 PET | T1 change map |
        T2 probability map | T1 difference | T1 Differenz | T1 Sustracción | sottrazione T1 | T1 SUB KM | T2 STAR |
        T2_star_w | AX T2* W | ax t2 gre | T2 Stern tra | SWI mag | SWAN ax | Synthetic T1 | SyMRI T2 |
        synthetic FLAIR | SyT1 | MAGiC T2 FLAIR | PD TSE fs | DP TSE | T1 cervical spine | T2 lumbar spine |
        HWS T2 sag | T1 C SPINE | neck T1 FS | T2 LWS sag | T1 knee | T1 thorax | FAT: Ax T1 | qT1 | T1 MAP | T1rho |
        ROI T1 | FLAIR labels | T1 mapping | ADC T2 | T1 segmentation | FLAIR segmented | T1 contours |
        FLAIR tumor mask | AI segmentation FLAIR | lesion map FLAIR | T1 GD overlay | FLAIR RGB fused |
        registered fusion | T1 minus T1c | T1c - T1 difference | DIFF T1 | T2 starmap | T2_STAR_GRE | AX T2 HEMO |
        T2*GRE | T2* FFE | T2-star weighted | GRE T2* | SWI_mIP | SWIp | vSWI | PD weighted | PDW TSE | PD FS TRA |
        sPD | pd_tse | Synthetic T2w | SyntheticMR T1W | synT1 | synthT2 | T1 WIP SyMRI | c-spine T1 |
        T2 SAG CERVICAL | T1 LUMBAR | BWS T1 | T2 NECK STIR | T1 HALS KM | MRA neck | T1 shoulder | T2 abdomen |
        brain probability T1 | FAT_T1_Dixon | opp phase T1 | T1 map MOLLI | MOLLI T1 | T2 relaxation map |
        subtracted T1 | SUBTRACT T1 C+ | T1 KM Sub | FLAIR contour""",
}
FILES = {
    "t1c": """P1_ce_t1_reg | CT1_reorient_reg_bet | P1_ct1_reg_bet | T1CE_to_SRI_brain | P1_t1c_bet_normalized |
        Ax_T1_FSPGR_+C | 7_t1_mprage_sag_KM_20210304 | P1_T1_post_contrast | sub-01_ce-GADOLINIUM_T1w_brain |
        sub-02_acq-postGd_T1w | T1-Gd | t1_gd | P1_t1gd_n4 | P2_T1_Gd_brain | T1_C+ | 9_T1_SE_KM | T1w_postcontrast |
        P1_T1_contrast_enhanced | sub-03_ses-1_ce-DOTAREM_T1w""",
    "t1": """T1_reorient_reg_bet | T1_to_SRI_brain | P1_t1_bet_normalized | T1_n4_rai | 4_t1_mprage_sag_20210304 |
        sub-01_T1w_brain | sub-04_ce-none_T1w_brain | sub-05_ce-nogd_T1w | P1_T1_pre_contrast | P1_t1n_reg |
        P1_nonCE_T1 | P1_T1_sem_contraste | P1_T1_ohne_KM | T1_native_brain | patient_7_t1_raw | x_brain_t1""",
    "open": """P1_T1_xyz_KM | P1_T1_ilman_kontrast | Smith_Gd_T1 | P1_T1_KM- | P1_T1_kontrastsiz | P1_loppuun_CE_T1 |
        T1_zero_gad""",
    "t2": """T2_reorient_reg_bet | T2_to_SRI_brain | P1_t2_bet_normalized | T2w_brain | 5_t2_tse_tra_20210304 |
        sub-01_acq-tse_T2w_brain | T2_rai_n4 | P1_T2_in_T1_space""",
    "flair": """FL_to_SRI_brain | FL_to_SRI | P1_fla_bet_normalized | fla_bet | FLAIR_reorient_reg_bet | FL_rai_n4 |
        P1_T2_FLAIR_reg | 6_t2_spc_da-fl_sag_20210304 | sub-01_FLAIR_brain | P1_flair_to_t1_brain | T2f_reg |
        P1_T2-FLAIR_bet""",
    "none": """sub-01_T2starw | sub-01_T1map | P1_T1_map | P1_T1_FLAIR_reg | brainMask_SRI | P1_T1_brain_mask |
        P1_t1c_minus_t1 | P1_FLAIR_segm_final | P1_T2_star | P1_SWI_reg | sub-01_PDw | P1_T1_subtraction |
        P1_dwi_t2_b0 | P1_synthetic_T1_reg | P1_FLAIR_prob | P1_T1_overlay | T1_fused_PET | P1_spine_T1_tse |
        T1c-T1_reg""",
}


def each(table: dict[str, str]) -> list[tuple[str, str]]:
    """Return pairs of what a text tells, and the text."""
    return [(kind, " ".join(text.split())) for kind, texts in table.items() for text in texts.split("|")]
