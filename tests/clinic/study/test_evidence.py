"""What images show, beneath heads too, and what happens to those that do not show what they are taken for."""

from dataclasses import dataclass, field, replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from dicom_studies import MPRAGE, T1_SE, T2_TSE, Scan, write_study
from phantom_case import HEAD, LPS, with_bright_edge, with_heads, write_case

from common.cohorts.cohort import Cohort
from common.cohorts.iseg import ISEG
from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import PHANTOM
from mmb.clinic.head.grid import Grid, resample
from mmb.clinic.head.skull import Masks
from mmb.clinic.recognise.assign import assign_series
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.evidence import Candidate, HeaderEvidence
from mmb.clinic.recognise.image import CLASSES
from mmb.clinic.recognise.looking import judge_images, read_volumes
from mmb.clinic.recognise.reading import read_folder
from mmb.clinic.recognise.record import Assignment
from mmb.clinic.recognise.remarks import contradicted
from mmb.errors import StudyError

CPU = torch.device("cpu")
ALL = PHANTOM.modalities


@dataclass(frozen=True, eq=False)
class Given(Candidate):
    """A candidate whose image is given."""

    image: nib.Nifti1Image = field(kw_only=True)

    def read(self) -> tuple[nib.Nifti1Image, list[str]]:
        return self.image, []


def test_why_images_could_not_be_compared_names_no_option_to_others(tmp_path, monkeypatch):
    """Two T1 of which no header tells which is after contrast agent, and which show water, as deepbet finds it."""
    monkeypatch.setattr(
        "mmb.clinic.head.skull.run_deepbet", lambda volumes, _: {name: each > 500 for name, each in volumes.items()}
    )
    water = np.random.default_rng(0).integers(1, 40, (100, 100, 80))
    away = np.linalg.norm((np.argwhere(water) - (50, 50, 40)) / (40, 40, 35), axis=1).reshape(water.shape)
    for name in ("t1", "t1ce"):
        image = nib.Nifti1Image(np.where(away < 1, 1000, water).astype(np.int16), np.diag([-2.0, -2, 2, 1]))
        nib.save(image, tmp_path / f"case_{name}.nii.gz")
    write_study(tmp_path / "study", tmp_path, [Scan(1, "t1", "t1_se", T1_SE), Scan(2, "t1c", "t1_se", T1_SE)])
    with pytest.raises(StudyError, match="could not be compared: No brain was found") as refused:
        read_folder(tmp_path / "study", PHANTOM)
    assert refused.value.code == "undecided"
    assert "--" not in refused.value.public


def given(images: dict[str, np.ndarray], **grades: Grade) -> list[Given]:
    """Return candidates, each taken for what its key says, by default surely."""
    return [
        Given(
            f"series {number}", f"series {number}", "frame",
            HeaderEvidence(name, grades.get(name, Grade.SURE), "words: 'x'"),
            image=nib.Nifti1Image(image.astype(np.float32), LPS),
        )
        for number, (name, image) in enumerate(images.items(), 1)
    ]  # fmt: skip


@pytest.fixture(scope="module")
def images() -> dict[str, np.ndarray]:
    made, _ = simulate(77_080)
    before, after = (made[name] / np.median(made[name][made[name] > 0]) for name in ("t1", "t1c"))
    return {**made, "other": after - before}  # a subtraction


def shown(candidates: list[Given], cohort: Cohort = PHANTOM, strip: str = "auto") -> dict:
    named = {each: each.says.modality for each in candidates}
    return judge_images(named, read_volumes(candidates, cohort), None, cohort, CPU, strip).log_probs


def decided(candidates: list[Given], modalities: tuple[str, ...] = ALL, required: tuple[str, ...] = ()) -> Assignment:
    return assign_series(candidates, modalities, shown(candidates), "", required)


def sources(decision: Assignment) -> dict[str, str]:
    return {name: record.candidate.source for name, record in decision.chosen.items()}


def test_right_names_stay_and_nothing_is_said(images):
    decision = decided(given({name: images[name] for name in ALL}))
    assert sources(decision) == {name: f"series {number}" for number, name in enumerate(ALL, 1)}
    assert ([*decision.remarks], [*contradicted(decision.chosen)]) == ([], [])


def test_what_a_header_leaves_open_and_the_image_shows_is_open_no_more(images):
    decision = decided(given({"t1c": images["t1c"], "t2": images["t2"]}, t1c=Grade.OPEN, t2=Grade.OPEN))
    assert [record.stated_grade for record in decision.chosen.values()] == [None, None]
    assert decision.chosen["t1c"].reason == "by what it shows; its header: words: 'x'"
    assert decision.remarks == []


def test_exchanged_sequences_of_sure_headers_are_warned_of_and_stay(images):
    decision = decided(given({"t1": images["t1c"], "t1c": images["t1"], "t2": images["t2"]}))
    assert sources(decision) == {"t1": "series 1", "t1c": "series 2", "t2": "series 3"}
    (remark,) = contradicted(decision.chosen)
    assert (remark.code, remark.gravity, remark.about) == ("exchanged", "stop", ("t1", "t1c"))
    assert remark.brief == "T1 and T1c seem exchanged"


def test_what_headers_leave_open_is_decided_by_what_it_shows(images):
    decision = decided(given({"t1": images["t1c"], "t2": images["t2"]}, t1=Grade.OPEN))
    assert sources(decision) == {"t1c": "series 1", "t2": "series 2"}
    assert decision.chosen["t1c"].stated_grade is None
    assert [(remark.code, remark.about) for remark in decision.remarks] == [("decided_by_image", ("t1c",))]
    both = decided(given({"t1": images["t1c"], "t1c": images["t1"]}, t1=Grade.LIKELY, t1c=Grade.OPEN))
    assert sources(both) == {"t1": "series 2", "t1c": "series 1"}


def test_nothing_is_taken_for_a_sequence_that_is_not_wanted(images):
    decision = decided(given({"t1": images["t1c"], "t2": images["t2"]}, t1=Grade.LIKELY), ("t1", "t2", "flair"))
    assert sources(decision) == {"t1": "series 1", "t2": "series 2"}
    (remark,) = contradicted(decision.chosen)
    assert (remark.code, remark.about) == ("unlike_its_name", ("t1",))
    assert remark.brief == "the T1 does not look like T1, but like T1c"


def test_a_subtraction_is_left_out_unless_its_header_is_sure_it_is_asked_for_or_alone(images):
    study = {"t1": images["other"], "t1c": images["t1c"], "t2": images["t2"]}
    decision = decided(given(study, t1=Grade.OPEN))
    assert list(decision.chosen) == ["t1c", "t2"]
    assert (decision.remarks[0].code, decision.remarks[0].about) == ("decided_by_image", ())
    assert decision.records[0].found().use == "left_out"
    assert decision.records[0].line().startswith("series 1: left out: by what it shows")
    kept = decided(given(study, t1=Grade.OPEN), required=("series 1",))
    assert list(kept.chosen) == ["t1", "t1c", "t2"]
    (remark,) = contradicted(kept.chosen)
    assert (remark.code, remark.brief) == ("unlike_its_name", "the T1 does not look like T1")
    alone = given({"t1": images["other"]}, t1=Grade.OPEN)
    certainly_other = {name: 0.0 if name == "other" else -9.0 for name in CLASSES}
    assert list(assign_series(alone, ALL, {"series 1": certainly_other}).chosen) == ["t1"]


def test_nothing_is_said_of_infants_and_of_heads(images):
    study = given({"t1": images["t2"], "t2": images["t1"]})
    assert shown(study, ISEG) == shown(study, replace(PHANTOM, skull_stripped=False)) == {}
    assert shown(given(with_heads({"t1": images["t1"]})), strip="no") == {}


def test_a_t1_that_is_bright_at_its_edge_is_known_where_the_brain_was_cut_out_of_a_head(images, monkeypatch):
    """At the edge of a brain that was cut out, T1 and T1c are not compared; it is found without deepbet."""
    brains = {"t1": with_bright_edge(images["t1"]), "t1c": images["t1c"]}

    def find_masks(aligned, heads, *_) -> Masks:
        (image, *_) = aligned.images.values()
        brain = nib.Nifti1Image((images["t1"] > 0).astype(np.float32), LPS)
        return Masks(heads, {heads[0]: resample(brain, Grid(image.shape, image.affine)) > 0}, {})

    monkeypatch.setattr("mmb.clinic.recognise.looking.find_masks", find_masks)
    for volumes, is_head in ((brains, False), (with_heads(brains), True)):
        t1 = shown(given(volumes))["series 1"]
        assert (t1["t1"] > t1["t1c"]) == is_head


PLANE = {"plane": "axial", "tilt": (8, -4, 6), "spacing": (2, 2, 5)}
FLAIR = T2_TSE | {"ScanningSequence": ["SE", "IR"], "RepetitionTime": 11000, "EchoTime": 125, "InversionTime": 2800}
T2_STAR = {"ScanningSequence": "GR", "MRAcquisitionType": "2D", "RepetitionTime": 700, "EchoTime": 23, "FlipAngle": 18}
SCANS = (
    Scan(301, "t2", "T2W_TSE", T2_TSE, **PLANE),
    Scan(401, "flair", "FLAIR_longTR", FLAIR, **PLANE),
    Scan(501, "t2", "T2W_FFE", T2_STAR, **PLANE),
    Scan(601, "t1", "T1W_SE", T1_SE, **PLANE),
    Scan(701, "t1c", "T1W_SE", T1_SE, **PLANE),
    Scan(751, "t1c-t1", "SUB T1W_SE", T1_SE, **PLANE),
    Scan(801, "t1c", "T1W_3D_TFE Gd", MPRAGE, "coronal", (4, -3, 5), (2, 2, 2)),
)


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("phantom") / "case"
    write_case(folder, "case", seed=77_080, box=HEAD)
    return folder


@pytest.mark.slow  # the sequence check on seven series
def test_it_is_read_with_its_own_files_and_no_option(subject, tmp_path):
    write_study(tmp_path, subject, SCANS)
    found = read_folder(tmp_path, PHANTOM)
    assert found.sources == {"t1": "series 601", "t1c": "series 701", "t2": "series 301", "flair": "series 401"}
    assert (found.used["t1"].stated_grade, found.used["t1c"].stated_grade) == (None, None)
    assert found.used["t1c"].reason.startswith("by what it shows; its header: words: 't1'")
    assert [(each.code, each.about) for each in found.remarks] == [("rival", ("t1c",))]
    assert {each.source for each in found.found if each.use == "left_out"} == {"series 501", "series 751"}
