"""Which images of a T1's times are no magnitude, and are left out: by headers, sidecars and names."""

import json
from pathlib import Path

import pytest
from dicom_studies import T2_TSE, Scan, edit_series, write_study
from pydicom.dataset import Dataset
from readings import each

from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.header import recognise, recognise_study, traits
from mmb.clinic.recognise.image_files import recognise_files
from mmb.clinic.recognise.reading import read_folder

VIBE = {"ScanningSequence": "GR", "RepetitionTime": 6.8, "EchoTime": 2.4, "FlipAngle": 12}
MP2RAGE = {"ScanningSequence": ["GR", "IR"], "RepetitionTime": 5000, "EchoTime": 2.98, "FlipAngle": 4}


def header(description: str = "t1_vibe_tra", types: str = "M", **more: object) -> Dataset:
    dataset = Dataset()
    dataset.update({"SeriesDescription": description, "ImageType": ["ORIGINAL", "PRIMARY", *types.split("\\")]})
    dataset.update(VIBE | more)
    return dataset


def shown(found: Dataset) -> str:
    says = recognise(found)
    return says.modality if says.modality and says.grade > Grade.WEAK else "none"


TYPES = {
    "t1": r"""M | M_FFE\M\FFE | IN_PHASE | DIXON\IN_PHASE | IP | M\IP | W\W\FFE | DIXON\WATER | WATER | OTHER |
        M\ND\NORM\FM3_2\FIL | VOLUME\NONE | M\NORM\DIS3D | M_SE\M\SE | M_IR\M\IR""",
    "none": r"""P | PHASE | PHASE MAP\P\FFE | P_FFE | R | R_IR\R\IR | CR | REAL | I | I_SE | IMAGINARY | F | FAT |
        DIXON\FAT | FF | FAT_FRACTION | DIXON\FAT_FRACTION | WATER_FRACTION | FATFRAC | PDFF | OP | OUT_PHASE |
        OPP_PHASE | OPPOSED_PHASE | M\OP | T1 MAP | R2_STAR | R2STAR_MAP | B0 MAP | PHASE_MAP\P | DIXON\OUT_PHASE""",
}


@pytest.mark.parametrize(("expected", "value"), each(TYPES))
def test_values_of_image_type(expected, value):
    assert shown(header(types=value)) == expected


@pytest.mark.parametrize(
    ("component", "expected"),
    [("MAGNITUDE", "t1"), ("", "t1"), ("PHASE", "none"), ("REAL", "none"), ("IMAGINARY", "none"), ("MIXED", "none")],
)
def test_the_component_of_the_complex_signal(component, expected):
    assert shown(header(ComplexImageComponent=component)) == expected


def test_the_component_as_ge_writes_it():
    for code, expected in ((0, "t1"), (1, "none"), (2, "none"), (3, "none")):
        found = header(types="OTHER")
        found.private_block(0x0043, "GEMS_PARM_01", create=True).add_new(0x2F, "SS", code)
        assert shown(found) == expected, code


WORDS = {
    "t1": """T1 VIBE in phase | t1_vibe_dixon_tra_in | t1_vibe_dixon_tra_W | T1 mDIXON in-phase | T1 late phase |
        T1 venous phase | t1_vibe_phase enc AP | T1 DIXON W | UNIT1 | t1_mp2rage_UNI-DEN""",
    "none": """T1 phase | t1_vibe_Pha | T1 fat fraction | T1 water fraction | T1 PDFF | t1_vibe_dixon_tra_F |
        T1 mDIXON op | T1 dixon out | T1 opposed phase | T1 out of phase | gre_field_mapping | fieldmap T1 |
        t1_mp2rage_INV2 | T1 INV 1 | T1 imaginary | T1 real part""",
}


@pytest.mark.parametrize(("expected", "text"), each(WORDS))
def test_words(expected, text):
    assert shown(header(text)) == expected


NAMES = {
    "t1": "sub-01_part-mag_T1w_brain | sub-01_UNIT1 | x_t1_inphase_reg",
    "none": """sub-01_part-phase_T1w_brain | sub-01_part-real_T1w_brain | sub-01_part-imag_T1w_brain |
        sub-01_inv-1_part-mag_MP2RAGE | sub-01_inv-2_MP2RAGE | 5_t1_mprage_ph | sub-01_magnitude1 | sub-01_phasediff""",
}


@pytest.mark.parametrize(("expected", "name"), each(NAMES))
def test_names(expected, name):
    (file,) = recognise_files([Path(f"{name}.nii.gz")])
    assert (file.says.modality or "none") == expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "t1"),
        ({"ComplexImageComponent": "PHASE"}, None),
        ({"ImageType": ["ORIGINAL", "PRIMARY", "P", "PHASE"]}, None),
        ({"ImageType": ["DERIVED", "PRIMARY", "DIXON", "FAT_FRACTION"]}, None),
        ({"FlipAngle": 2}, None),
        ({"EchoNumber": 2}, None),
    ],
)
def test_what_a_sidecar_says(tmp_path, said, expected):
    times = {"ScanningSequence": "GR", "EchoTime": 0.0024, "RepetitionTime": 0.0268, "FlipAngle": 25}
    (tmp_path / "7_x.json").write_text(json.dumps(times | said))
    assert recognise_files([tmp_path / "7_x.nii.gz"])[0].says.modality == expected


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, "t1"),
        ({"FlipAngle": 3, "RepetitionTime": 24}, "none"),  # of proton density, as in multi-parameter maps
        ({"FlipAngle": 21, "RepetitionTime": 24}, "t1"),
        (MP2RAGE | {"InversionTime": 700}, "none"),
        (MP2RAGE | {"InversionTime": 2500}, "none"),
        (MP2RAGE | {"InversionTime": 2500, "types": "M\\ND\\UNI"}, "t1"),
        ({"EchoTime": 12}, "none"),
    ],
)
def test_a_gradient_echo_that_only_its_times_describe(more, expected):
    assert shown(header("", **more)) == expected


def test_the_magnitudes_of_a_field_map_are_no_t1():
    first, second = (header("", EchoTime=te, RepetitionTime=488, FlipAngle=60) for te in (4.92, 7.38))
    first.SeriesInstanceUID = second.SeriesInstanceUID = "1.2.3"
    assert [says.modality for says in recognise_study([first, second])] == [None, None]
    assert "one of several gradient echoes" in recognise_study([first, second])[0].reason
    assert recognise_study([first])[0].modality == "t1"


def test_the_denoised_t1_of_mp2rage_goes_before_the_other():
    both = [traits(header(f"t1_mp2rage_{name}", "M\\UNI"))["corrections"] for name in ("UNI", "UNI-DEN")]
    assert both == [0, 1]


def test_magnitude_and_phase_in_one_series_are_told_apart(tmp_path, phantom_subject):
    scan = Scan(2, "t2", "t2_tse", T2_TSE, spacing=(6, 6, 8))
    image, _ = write_study(tmp_path, phantom_subject, [scan, scan])
    component = {False: "MAGNITUDE", True: "PHASE"}
    edit_series(tmp_path, 2, lambda one: one.update({"ComplexImageComponent": component[one.InstanceNumber > 1000]}))
    study = read_folder(tmp_path, PHANTOM)
    assert study.images["t2"].shape == image.shape
    assert [(one.source, one.use) for one in study.found] == [("series 2-1", "taken"), ("series 2-2", "left_out")]
