"""Recognition of sequences from headers as scanners write them.

Names are those of vendors' protocols and of public collections (series lists of ADNI, PPMI, TCGA and other public
conversions). Attributes are those in the vendors' DICOM conformance statements and in the notes of dcm2niix on Siemens,
GE and Philips. TR, TE and TI are those of published protocols (ADNI; the standardised brain tumour imaging protocol,
Ellingson et al., Neuro-Oncology 17, 2015).
"""

from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from readings import DESCRIPTIONS, FILES, each

from common.cohorts.names import split_name
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.contrast import Contrast, contrast_said
from mmb.clinic.recognise.evidence import HeaderEvidence
from mmb.clinic.recognise.header import contrast_words, recognise, recognise_study
from mmb.clinic.recognise.image_files import recognise_files
from mmb.clinic.recognise.words import plain


def header(description: str = "", sequence: str = "", times: tuple = (), *, types: str = "", **more: Any) -> Dataset:
    """Return a header; times are TR, TE and TI, sequence is ScanningSequence, an image type contains backslashes."""
    dataset = Dataset()
    dataset.SeriesDescription = description
    if sequence:
        dataset.ScanningSequence = sequence.split("\\")
    for keyword, value in zip(("RepetitionTime", "EchoTime", "InversionTime"), times, strict=False):
        setattr(dataset, keyword, value)
    if types:
        dataset.ImageType = types.split("\\")
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    return dataset


def siemens(description: str, *args: Any, types: str = "ORIGINAL\\PRIMARY\\M\\ND\\NORM", **more: Any) -> Dataset:
    return header(description, *args, types=types, Manufacturer="SIEMENS", ProtocolName=description, **more)


def ge(description: str, *args: Any, types: str = "ORIGINAL\\PRIMARY\\OTHER", **more: Any) -> Dataset:
    """Return a header of GE, whose ProtocolName is that of the whole examination."""
    name = "BRAIN W/WO PERFUSION"
    return header(description, *args, types=types, Manufacturer="GE MEDICAL SYSTEMS", ProtocolName=name, **more)


def philips(description: str, *args: Any, types: str = "ORIGINAL\\PRIMARY\\M_SE\\M\\SE", **more: Any) -> Dataset:
    return header(description, *args, types=types, Manufacturer="Philips", ProtocolName=f"WIP {description}", **more)


GD = {"ContrastBolusAgent": "Gadovist"}
MPRAGE, SPACE_FLAIR, TIRM = ("GR\\IR", (2300, 2.98, 900)), ("SE\\IR", (5000, 388, 1800)), ("SE\\IR", (9000, 81, 2500))
T1_SE, T1_FLAIR, T2_TSE = ("SE", (550, 9.1)), ("SE\\IR", (2500, 9.5, 860)), ("SE", (5200, 98))
FSPGR, CUBE_FLAIR, T2_FLAIR = ("GR", (8.2, 3.2, 450)), ("SE\\IR", (6302, 117, 1863)), ("SE\\IR", (9502, 124, 2250))
TFE, FLAIR_LONG, VISTA_FLAIR = ("GR", (8.1, 3.7)), ("SE\\IR", (11000, 125, 2800)), ("SE\\IR", (4800, 306, 1650))
EPI, SWI = ("EP\\SE", (6000, 90)), ("GR", (28, 20))
SIEMENS_ADC = "DERIVED\\PRIMARY\\DIFFUSION\\ADC\\ND\\NORM"

# What is expected: a modality; "!" and what it is refused as; "?" and a modality, or nothing, where the header is
# ambiguous: recognised with less than RELIABLE, or left out as not recognised.
HEADERS: list[tuple[Dataset, str]] = [
    # Siemens
    (siemens("t1_mprage_sag_p2_iso", *MPRAGE), "t1"),
    (siemens("t1_mprage_sag_p2_iso", *MPRAGE, **GD), "t1c"),
    (siemens("t1_mprage_tra_iso_+Gd", *MPRAGE), "t1c"),
    (siemens("t1_se_tra_nativ", *T1_SE, **GD), "t1"),
    (siemens("t1_vibe_fs_tra_KM", "GR", (6.8, 2.4), **GD), "t1c"),
    (siemens("t1_space_sag_p2_iso", "SE", (700, 11)), "t1"),
    (siemens("t1_tirm_tra_dark-fluid", *T1_FLAIR), "t1"),
    (siemens("t2_tse_tra_512", *T2_TSE), "t2"),
    (siemens("t2_tse_tra", *T2_TSE, **GD), "t2"),
    (siemens("t2_space_sag_p2_iso", "SE", (3200, 408)), "t2"),
    (siemens("t2_spc_da-fl_sag_p2_iso_KM", *SPACE_FLAIR, **GD), "flair"),
    (siemens("t2_tirm_tra_dark-fluid", *TIRM), "flair"),
    (siemens("FLAIR post op", *TIRM), "flair"),
    (siemens("t1_mprage_sag post-op", *MPRAGE), "t1"),
    (siemens("t1_mprage_sag_SUB", *MPRAGE, **GD, types="DERIVED\\PRIMARY\\M\\SUB\\NORM"), "!subtraction"),
    (siemens("MPRAGE_KM minus nativ", *MPRAGE, **GD, types="DERIVED\\PRIMARY\\M\\SUB\\NORM"), "!subtraction"),
    (siemens("MPR tra", *MPRAGE, **GD, types="DERIVED\\SECONDARY\\MPR\\CSA MPR\\NORM"), "?t1c"),
    (siemens("t1_mprage_sag_MPR_tra", *MPRAGE, types="DERIVED\\SECONDARY\\MPR\\CSA MPR\\NORM"), "?t1"),
    (siemens("localizer", "GR", (8.6, 4), types="ORIGINAL\\PRIMARY\\M\\NORM\\LOCALIZER"), "!localizer"),
    (siemens("AAHead_Scout_MPR_sag", "GR", (3.2, 1.4), types="DERIVED\\PRIMARY\\MPR\\NORM"), "!localizer"),
    (siemens("ep2d_diff_b0_1000_ADC", *EPI, types=SIEMENS_ADC), "!diffusion"),
    (siemens("", *EPI, types=SIEMENS_ADC), "!diffusion"),
    (siemens("MoCoSeries", "EP", (1600, 30), types="DERIVED\\PRIMARY\\M\\ND\\MOCO"), "!echo-planar"),
    (siemens("ep2d_perf_p2", "EP", (1600, 30)), "!perfusion"),
    (siemens("t1_fl3d_tra_dce", "GR", (3.9, 1.2), **GD), "!perfusion"),
    (siemens("SWI_Images", *SWI, types="ORIGINAL\\PRIMARY\\M\\SWI\\NORM"), "!susceptibility"),
    (siemens("mIP_Images(SW)", *SWI, types="DERIVED\\PRIMARY\\MNIP\\SWI"), "!projection"),
    (siemens("Pha_Images", *SWI, types="ORIGINAL\\PRIMARY\\P\\NORM"), "!phase"),
    (siemens("t2_fl2d_tra_hemo", "GR", (620, 20)), "!susceptibility"),
    (siemens("pd+t2_tse_tra", "SE", (3500, 14)), "!proton density"),
    (siemens("pd+t2_tse_tra", "SE", (3500, 96)), "t2"),
    (siemens("t2_tirm_cor_fs", "SE\\IR", (4500, 60, 180)), "!STIR"),
    (siemens("tof_fl3d_tra_p2_multi-slab", "GR", (21, 3.6)), "!angiography"),
    (siemens("t2_ci3d_tra_iso", "GR", (5.6, 2.5)), "!steady-state"),
    (siemens("", *MPRAGE, **GD), "?t1c"),
    (siemens("", *TIRM), "?flair"),
    (siemens("", "SE\\IR", (4000, 194, 1400)), "?flair"),  # a short TR nulls fluid early
    (siemens("", "SE\\IR", (9000, 100, 1200)), "?"),
    # GE
    (ge("Ax T1 FSPGR", *FSPGR), "t1"),
    (ge("Ax T1 FSPGR +C", *FSPGR), "t1c"),
    (ge("+C 3D AX T1 BRAVO", *FSPGR, **GD), "t1c"),
    (ge("Sag BRAVO", *FSPGR, ContrastBolusAgent="NONE"), "t1"),
    (ge("AX T1 PRE GAD", *T1_SE, **GD), "t1"),
    (ge("Ax T1 SE W/O", *T1_SE), "t1"),
    (ge("Ax T1 FLAIR +C", *T1_FLAIR, **GD), "t1c"),
    (ge("SAG FLAIR", *T1_FLAIR), "?t1"),
    (ge("Ax T2 FLAIR", *T2_FLAIR), "flair"),
    (ge("Sag CUBE T2 FLAIR", "RM", CUBE_FLAIR[1]), "flair"),
    (ge("Ax T2 PROPELLER", "RM", (5600, 105)), "t2"),
    (ge("Sag CUBE T2", "SE", (2500, 81)), "t2"),
    (ge("Ax T2* GRE", "GR", (650, 15)), "!T2*"),
    (ge("Ax SWAN", "RM", (42, 24)), "!susceptibility"),
    (ge("3-Plane Loc SSFSE", "SE", (1100, 80)), "!localizer"),
    (ge("3D TOF COW", "GR", (25, 2.9)), "!angiography"),
    (ge("Ax DSC Perfusion", "EP\\GR", (1800, 20), **GD), "!perfusion"),
    (ge("COL:Ax T1 +C", *FSPGR, types="DERIVED\\SECONDARY\\PROJECTION IMAGE\\VRT"), "!projection"),
    (ge("AX T1 +C reformat", *FSPGR, types="DERIVED\\SECONDARY\\REFORMATTED\\AVERAGE"), "t1c"),
    (ge("Ax T1 Subtraction", *T1_SE), "!subtraction"),
    (ge("Ax T2 FLAIR", "SE", (9500, 120)), "?flair"),
    (ge("Ax T2", *T1_SE), "?"),
    (ge("Ax PD", "SE", (3000, 14)), "!proton density"),
    (ge("AX BRAIN W/WO", *T1_SE), "?t1"),
    # Philips
    (philips("T1W_3D_TFE", *TFE, types="ORIGINAL\\PRIMARY\\M_FFE\\M\\FFE"), "t1"),
    (philips("sT1W_3D_TFE_GD", *TFE, **GD), "t1c"),
    (philips("sT1W_3D_TFE_PRE_GD", *TFE), "t1"),
    (philips("T1W_TSE_GD", ("SE"), (600, 10), ContrastBolusAgent="NO"), "t1c"),
    (philips("T1W_IR_TSE", ("SE\\IR"), (2000, 20, 800)), "t1"),
    (philips("eT2W_TSE_DRIVE_HR", *T2_TSE), "t2"),
    (philips("FLAIR_longTR", *FLAIR_LONG, types="ORIGINAL\\PRIMARY\\M_IR\\M\\IR"), "flair"),
    (philips("T2W_FLAIR", *FLAIR_LONG, **GD), "flair"),
    (philips("VISTA FLAIR", *VISTA_FLAIR), "flair"),
    (philips("Survey", ("GR"), (11, 4.6)), "!localizer"),
    (philips("T2_FFE", ("GR"), (700, 23)), "!T2*"),
    (philips("sVEN_BOLD_HR", ("GR"), (17, 24)), "!functional"),
    (philips("s3DI_MC_HR", ("GR"), (23, 3.5)), "!angiography"),
    (header("head", "GR", (23, 3.5), AngioFlag="Y"), "!angiography"),
    (philips("eSTIR_longTE", ("SE\\IR"), (4000, 80, 160)), "!STIR"),
    (philips("T1W_3D_TFE", *TFE, types="ORIGINAL\\PRIMARY\\PHASE MAP\\P\\FFE"), "!phase"),
    (philips("mDIXON", ("GR"), (6.4, 2.1), types="DERIVED\\PRIMARY\\F\\F\\FFE"), "!fat"),
    (philips("MR SV_PRESS_144", types="ORIGINAL\\PRIMARY\\SPECTROSCOPY"), "!spectroscopy"),
    # Before an operation is not before contrast agent, and treatments say nothing of it
    *((siemens(said, *MPRAGE, **GD), "t1c") for said in (
        "PRE-OP STEALTH T1 MPRAGE", "AX T1 3D PRE OP NAV", "T1 MPRAGE PRE SURG", "T1 MPRAGE PRE SRS",
        "T1 MPRAGE without FS", "T1 axial vor OP KM", "T1 nach OP")),
    (siemens("T1 MPRAGE Gd REST", *MPRAGE, **GD), "?t1c"),
    *((siemens(said, *MPRAGE), "?t1") for said in ("T1 contrast refused", "T1 GD not given", "T1 KM abgelehnt")),
    (header("T1", "SE\\IR", (1500, 6, 300)), "?t1"),  # of 64 mT
    (header("T1 MPRAGE", "GR\\IR", (4000, 3, 1400)), "?t1"),
    (header("T1 MP2RAGE", "GR\\IR", (5000, 3, 700)), "!inversion image"),
    *((siemens(said, *MPRAGE), "t1") for said in ("T1 nach OP", "T1 POST RT", "T1 PRE OP", "T1 without FS")),
    (siemens("AX T1 POST STEALTH", *MPRAGE), "t1c"),
    *((header(said, *TFE), "!subtraction") for said in (
        "SOUS", "T1 SOUS", "SOUSTRACTION T1", "T1 soustrait", "SUB", "T1 C SUB")),
    # Of an enhanced multi-frame image, or with hardly anything left after anonymisation
    (header("", "SE\\IR", (4800, 306, 1650), types="ORIGINAL\\PRIMARY\\VOLUME\\NONE"), "?flair"),
    (header("brain", AcquisitionContrast="DIFFUSION"), "!diffusion"),
    (header("3D FLAIR"), "?flair"),
    (header("T1 MPRAGE gad"), "?t1c"),
    (header("Ax T2"), "t2"),
    (header("series"), "?"),
    (header(), "?"),
]  # fmt: skip


def outcome(found: Dataset) -> str:
    verdict = recognise(found)
    if verdict.modality is None:
        unclear = "not recognised" in verdict.reason or "contradict" in verdict.reason
        return "?" if unclear else f"!{verdict.reason}"
    return verdict.modality if verdict.grade >= Grade.LIKELY else f"?{verdict.modality}"


@pytest.mark.parametrize(
    ("found", "expected"),
    HEADERS,
    ids=[f"{k}-{found.get('Manufacturer', '')[:2]}-{found.SeriesDescription}" for k, (found, _) in enumerate(HEADERS)],
)
def test_recognition(found, expected):
    result = outcome(found)
    assert result.startswith(expected) if expected.startswith("!") else result == expected, recognise(found)


# As named in public collections; with the parameters of their kind they are recognised, and without any not mistaken.
NAMES = {
    "t1": """MPRAGE 2 ADNI | SAG T1 3DMPRAGE | sT1W_3D_ISO | axial spgr | Accelerated Sag IR-FSPGR |
        PPMI_MPRAGE_GRAPPA2 | 3D T1-weighted_ND | SAG_3D_MPRAGE_RPT | s3DT1_ISO_1mm_HR | 3D AXIALIRSPGRFast |
        t1mprtraiso | AX T1 pre gd | AXIAL T1 PRE-GAD | 3D T1 TFEWAND | T1W3Dstryker | t1_mpr_ns_sag_p2_iso""",
    "t1c": """AX T1 SE C+ | T1CE | t1_ce_ax | MPRAGE POST | AX T1 C+ SPAIR | ax 3d fspgr +c | t1 axial stealth-post |
        VIBE 3D AX POST | T1mprageAx Gd | Post AX T1WIRTSE | AX T1C | AX T1 POST GD FLAIR | 3D AX T1 BRAVO+C |
        +c COR T1 CUBE VASC | T1_MPRAGE_SAG_P2_1_0_ISO_POST | t1_mprage_sag_1mm_iso_+K | sT1W_3D_TFE_32ch_GD |
        T1 CON GADOLINIO | T1W_AX+C FAT SAT | Ax T1 w/ contrast""",
    "t2": """t2 cor | AX T2 AC-PC LINE ENTIRE BRAIN | *AX FSE T2 | TSE_T2_3_MM_CLEAR | T2W_VISTA_HR_SENSE | 3dt2_tra |
        3D_Brain_VIEW_T2 | T2 post gd | Ax T2 +C""",
    "flair": """FLAIR_LongTR AX | Cor FLAIR TI_2800ms | AX FLAIR T2 | t2_tirm_tra_dark-fluid NO BLADE |
        3D T2  SPC FLAIR C9C1HN007 | 3D T2 FLAIR_ti1650_ND | t2_spc_da-fl_sag_fs_REK 3mm tra | Sag CUBE T2FLAIR |
        V3D_Brain_VIEW_FLAIR_OCOR | 32_FLAIR_1mm_ipat2 | AX FLAIR POST | t2_space_dark-fluid_0.9_iso_tr7000""",
    "!": """DTI_gated | REPEAT_DTI_NON-GATED | AX DTI   L - R | DTI_FA | FA MAP | ADC MAP | isoDWIb-1000 | DIFUSION |
        t_DW_HR_SENSE | Reg-DWInySENSE | rsfMRI_LR | BOLD_RS ACPC_LINE | SOURCE - ASL SENSE_NEW | PERFUSION DSC |
        B0rf Map | Field_mapping | 3_PLANE_LOC | MIDLINE_SAG_LOC | 3-pl_T2__FGRE | Cal_Head_24 | MIP_s3D_CAROTIDS_SEN |
        T2_ETOILE_CLEAR | AXIAL_T2_STAR | 3D TOF MRA CIRCLE OF WILLIS | COR STIR | T2_map_5_echoes""",
}
PARAMETERS = {"t1": MPRAGE, "t1c": MPRAGE, "t2": T2_TSE, "flair": TIRM, "!": ("GR", (8, 4))}


@pytest.mark.parametrize("kind", NAMES)
def test_names_of_public_collections(kind):
    for name in NAMES[kind].split("|"):
        name = " ".join(name.split())
        with_parameters, alone = outcome(header(name, *PARAMETERS[kind])), outcome(header(name))
        assert with_parameters.startswith(kind), name
        assert alone[:1] == "!" if kind == "!" else alone.lstrip("?") == kind, name


def test_reasons_say_what_was_heard():
    verdict = recognise(siemens("t1_mprage_sag_KM", *MPRAGE, **GD))
    assert verdict.grade == Grade.SURE
    assert verdict.reason == (
        "words: 't1'; parameters: TR 2300 ms, TE 2.98 ms, TI 900 ms, GR, IR; "
        "after contrast agent by 'km', a contrast agent is named"
    )
    assert recognise(header("T1GD", *TFE)).reason.endswith("after contrast agent by 'gd', no attribute names one")
    assert recognise(header("T1 Meyer KM", *TFE)).reason.endswith(
        "'km' beside an unknown word or sign leaves open whether contrast agent was given, no attribute names one"
    )
    contradiction = recognise(ge("Ax T2", *T1_SE))
    assert contradiction.modality is None
    assert contradiction.reason == (
        "description and parameters contradict each other (words: 't2'; parameters: TR 550 ms, TE 9.1 ms, SE)"
    )


def test_an_agent_makes_one_doubt_what_is_said_in_brief():
    brief = ("T1 PRE", "T1 POST OP PRE", "T1 W/O")
    for description in (*brief, "T1 PRE GAD", "T1 without contrast", "T1 ohne KM", "T1 nativ"):
        verdict = recognise(siemens(description, *MPRAGE, **GD))
        assert (verdict.modality, verdict.grade >= Grade.LIKELY) == ("t1", description not in brief), description
        assert recognise(siemens(description, *MPRAGE)).grade == Grade.SURE, description


def test_names_of_people_are_no_words():
    """Some contain names of sequences: they must be neither left out by mistake nor quoted."""
    for name in ("Dr_Masloff", "Kasler", "Ludwig", "Baldwin", "Tracey", "Swanson", "Brender", "Angiolini", "REST"):
        assert recognise(header(f"T1 MPRAGE {name}", *MPRAGE)).modality == "t1", name
    for description in ("t1doejohn", "T1 postdoe", "T1 nativdoe", "gadodoe t1", "vibe t1doe", "perfusdoe", "doegd t1"):
        assert "doe" not in recognise(header(description, *MPRAGE)).reason, description
    for description in ("T1 MPRAGE Secret Phantom", "Secret^Phantom localizer", "Secret Phantom"):
        assert "secret" not in recognise(header(description, *MPRAGE)).reason.lower(), description
    assert recognise(header("t1", "DOE\\GR", MPRAGE[1])).reason.count("DOE") == 0
    brief = ("3D_pCASL", "tgse_pasl", "Ax ASL 3D", "eASL", "rCBF map", "relCBV", "Volume rendering", "angio")
    for description in brief:
        assert outcome(header(description, *MPRAGE)).startswith("!"), description


AGENTS = {
    "ContrastBolusAgent": (["Gadovist", "APPLIED", "10 ml"], ["", "NONE", "No", "N/A"]),
    "ContrastBolusVolume": (["15"], ["0.0"]),
    "ContrastBolusTotalDose": (["7.5"], ["0"]),
    "ContrastBolusRoute": (["IV"], ["NONE"]),
    "ContrastBolusStartTime": (["101530"], ["000000.00"]),
    "ContrastBolusIngredient": (["GADOLINIUM"], [""]),
    "ContrastBolusAgentSequence": ([["Gadolinium"]], [["None"], []]),
}
"""Attribute -> values that mean that an agent was given, and values that do not."""


@pytest.mark.parametrize("keyword", AGENTS)
def test_each_attribute_of_the_agent_speaks_for_itself(keyword):
    for expected, values in zip(("t1c", "t1"), AGENTS[keyword], strict=True):
        for value in values:
            if isinstance(value, list):
                value = [header(CodeMeaning=meaning) for meaning in value]
            for other in ({}, {"ContrastBolusAgent": "NONE"}):
                assert recognise(siemens("t1_mprage", *MPRAGE, **{**other, keyword: value})).modality == expected, value


@pytest.mark.parametrize(
    ("expected", "grade", "descriptions"),
    [
        ("t1c", Grade.OPEN, ["T1/3D/FFE/C", "T1/SE/TRA/C ", "T1_SE_C", "AX T1 C"]),
        ("t1c", Grade.SURE, ["T1 +C", "T1 C+", "T1 KM", "T1 GD", "T1 GADO", "T1 SOUS GADO", "T1 POST", "T1 POST C"]),
        ("t1c", Grade.SURE, ["T1 INJECTE", "T1 APRES INJ", "T1 post surgery GD", "T1 post resection KM"]),
        ("t1", Grade.LIKELY, ["T1 C-", "T1 C - ", "T1 C lesion", "T1_TFE_SENSEC"]),
        ("t1", Grade.SURE, ["T1 no C", "T1 W/O C", "T1 pre C", "T1 SANS INJECTION", "T1 NON INJECTE"]),
    ],
)
def test_words_of_contrast_agent(expected, grade, descriptions):
    """A single letter says less than a word; a named agent makes it certain."""
    for description in descriptions:
        verdict = recognise(header(description, *TFE))
        assert (verdict.modality, verdict.grade) == (expected, grade), description
        if expected == "t1c":
            assert recognise(header(description, *TFE, **GD)).grade == Grade.SURE


@pytest.mark.parametrize(
    ("manufacturer", "protocol", "expected"),
    [
        ("Philips Medical Systems", "WIP T1W_3D_TFE_GD", "t1c"),
        ("Philips", "T1W_3D_TFE_PRE_GD", "t1"),
        ("Philips", "T1W_3D_TFE", "t1"),
        ("GE MEDICAL SYSTEMS", "BRAIN W GAD", "t1"),  # of the whole examination
    ],
)
def test_what_only_the_protocol_of_philips_says(manufacturer, protocol, expected):
    found = header("T1 3D sag", *TFE, Manufacturer=manufacturer, ProtocolName=protocol)
    assert recognise(found).modality == expected
    found.SeriesDescription = "T1 3D pre GD"
    assert recognise(found).modality == "t1"  # what a person wrote about the series takes precedence


def test_odd_values_do_not_stop_it():
    odd = header("T1", RepetitionTime=None, EchoTime="", ImageType=None, ScanningSequence="")
    assert recognise(odd).modality == "t1"
    assert recognise(header("FLAIR", "SE", (9000, 120), InversionTime=0)).modality == "flair"
    assert recognise(header("T2", "SE", (5200, [12, 98]))).modality == "t2"


LIMITS = [
    ("GR", (500, 9.9), "t1"), ("GR", (500, 10), "T2*"), ("RM", (59, 59), "T2*"), ("RM", (60, 59), "not recognised"),
    ("RM", (59, 60), "not recognised"), ("SE", (1499, 49.9), "t1"), ("SE", (1500, 49.9), "proton density"),
    ("SE", (1499, 50), "not recognised"), ("SE", (3000, 59.9), "not recognised"), ("SE", (3000, 60), "t2"),
    ("SE", (1499, 60), "not recognised"), ("SE", (1500, 60), "t2"), ("IR", (4000, 30, 399), "STIR"),
    ("IR", (4000, 30, 400), "t1"), ("IR", (20000, 49.9, 1499), "t1"), ("IR", (20000, 49.9, 1500), "not recognised"),
    ("IR", (20000, 50, 1499), "not recognised"), ("IR", (20000, 50, 1500), "flair"),
    ("IR", (3570, 50, 1000), "flair"), ("IR", (3590, 50, 1000), "not recognised"),  # 14.9 and 15.1 % of the fluid left
    ("SE\\IR", (3999, 49.9), "t1"), ("SE\\IR", (4000, 49.9), "not recognised"),
    ("SE\\IR", (3999, 50), "not recognised"), ("SE\\IR", (4000, 50), "flair"),
]  # fmt: skip
"""ScanningSequence, then TR, TE and TI just below and above each limit, and what they tell without any words."""


@pytest.mark.parametrize(("sequence", "times", "expected"), LIMITS)
def test_recognise_at_the_limits_of_parameters(sequence, times, expected):
    found = recognise(header("", sequence, times))
    assert (found.modality or found.reason.partition(" (")[0]) == expected


@pytest.mark.parametrize(("value", "modality"), [(0, "t2"), (0.5, None), (50, None), (1000, None)])
def test_recognise_any_diffusion_weighting(value, modality):
    assert recognise(header("T2", *T2_TSE, DiffusionBValue=value)).modality == modality


TIMES = {"t2": T2_TSE, "flair": ("SE\\IR", (9000, 120, 2500))}


def verdict(description: str, *parameters: Any, **more: Any) -> str:
    """Return what a header is read as: a sequence, "open" or "none"."""
    found = header(description, *parameters, SpecificCharacterSet="ISO_IR 192", **more)
    (says,) = recognise_study([found])
    return read(says, contrast_words(found))


def read(says: HeaderEvidence, said: Contrast | None) -> str:
    is_open = says.contrast_unknown and says.grade < Grade.SURE and said is not None
    return "none" if says.modality is None else "open" if is_open and says.modality in ("t1", "t1c") else says.modality


def read_as(name: str) -> str:
    path = Path(f"{name}.nii.gz")
    role = split_name(path.name).role
    if role is not None:
        return "none" if role == "label" else role
    (file,) = recognise_files([path])
    return read(file.says, contrast_said(plain(file.described)))


@pytest.mark.parametrize("kind", DESCRIPTIONS)
def test_descriptions(kind):
    for expected, text in each({kind: DESCRIPTIONS[kind]}):
        assert verdict(text, *TIMES.get(kind, FSPGR)) == expected, text
        assert verdict(text) == expected, text


@pytest.mark.parametrize("kind", FILES)
def test_names_of_files(kind):
    for expected, name in each({kind: FILES[kind]}):
        assert read_as(name) == expected, name


def test_an_agent_that_the_header_names_does_not_make_an_unknown_word_sure():
    for _, text in each({"open": DESCRIPTIONS["open"]}):
        assert verdict(text, *FSPGR, **GD) in ("open", "t1c"), text
    assert verdict("T1 loppuun KM", *FSPGR, **GD) == verdict("T1 -KM", *FSPGR, **GD) == "open"
