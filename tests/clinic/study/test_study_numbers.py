"""From a small DICOM study to the files of its result, with a predictor whose answer is known."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from dicom_studies import AGENT, MPRAGE, SPACE_FLAIR, Scan, edit, write_study
from nibabel.affines import apply_affine, voxel_sizes
from pydicom.sr.codedict import codes

from common.cohorts import get_cohort
from common.evaluation.metrics.overlap import region_masks
from mmb.clinic.intake.series import read_series
from mmb.clinic.options import Options
from mmb.clinic.recognise.reading import Study, align_and_assign
from mmb.clinic.report.segmentation import read_seg
from mmb.clinic.study import segment
from mmb.predictors.calibration import Calibration, LeftOut, RegionCalibration
from mmb.predictors.protocol import Segmentation

GLIOMA = get_cohort("open_glioma")
T1C = Scan(6, "t1c", "t1_mprage_KM", MPRAGE | AGENT, spacing=(4, 4, 5), slices=13)
FLAIR = Scan(4, "flair", "t2_spc_da-fl_sag", SPACE_FLAIR, plane="sagittal", spacing=(4, 4, 4))
HELD = LeftOut(100, 50, 20, 16, 0, 0, 0.8, 0.7, 0.7, 10, 6)
SAME = RegionCalibration((0.0, 1.0, 0.0), (0.0, 1.0, 0.0), 1.0, HELD)
KNOWN = Calibration("12ab", "threshold", 30, 9, 0.4, (0, 3), (1, 100), dict.fromkeys(("WT", "TC", "ET"), SAME))
RADII = {"ED": 16, "NCR": 10, "ET": 7}
"""Class -> radius in mm of the ball that the predictor draws, each within that before."""
MIDDLE = np.array([-10.0, 6, 4])
ABOVE = np.array([0.0, 0, 40])
"""A place in mm that the T1c's slices, up to 32.5 mm above the middle, do not cover."""


class Balls:
    """A predictor that draws balls at known places, and keeps the images that it was given."""

    def __init__(self, warnings: tuple[str, ...] = ()) -> None:
        self.cohort, self.device, self.spacing, self.decision = GLIOMA, torch.device("cpu"), (1, 1, 1), "threshold"
        self.method = self.title = self.software = "balls 1.0"
        self.version, self.weights_name, self.trained_on, self.seen = "1.0", "balls.pt", None, None
        self.subsets, self.calibration, self.warnings = None, KNOWN, warnings
        self.images: dict[str, nib.Nifti1Image] = {}

    def using(self, modalities: Any) -> Balls:
        return self

    def run(self, images: Mapping[str, nib.Nifti1Image]) -> Segmentation:
        self.images = dict(images)
        first = next(iter(images.values()))
        places = apply_affine(first.affine, np.moveaxis(np.indices(first.shape), 0, -1))
        label = np.zeros(first.shape, np.uint8)
        for name, radius in RADII.items():
            label[np.linalg.norm(places - MIDDLE, axis=-1) < radius] = GLIOMA.labels.values[name]
        label[np.linalg.norm(places - MIDDLE - ABOVE, axis=-1) < 6] = GLIOMA.labels.values["ED"]
        masks = region_masks(label, GLIOMA.labels)
        return Segmentation(label, masks, np.where(masks, np.float32(0.97), 0))


@pytest.fixture(scope="module")
def subject(tmp_path_factory) -> Path:
    """T1c and FLAIR of a brain of 180 ml, too small for its sequences to be judged."""
    folder = tmp_path_factory.mktemp("subject")
    places = np.moveaxis(np.indices((20, 22, 28)), 0, -1) - (9.5, 10.5, 13.5)
    rng, affine = np.random.default_rng(0), np.diag([-4.0, -4, 4, 1])
    affine[:3, 3] = np.array([9.5, 10.5, -13.5]) * 4
    inside = np.linalg.norm(places / (6.5, 7.5, 13.5), axis=-1) < 1
    texture = rng.uniform(300, 900, inside.shape)
    for name in ("t1ce", "flair"):
        nib.save(nib.Nifti1Image((inside * texture).astype(np.float32), affine), folder / f"case_{name}.nii.gz")
    return folder


def by_flair(read: Study, _: str | None, *options: Any) -> tuple[Study, str, str]:
    return align_and_assign(read, "t1c", *options).study, "flair", "as requested"


@pytest.fixture(scope="module")
def results(subject, tmp_path_factory) -> Mapping[str, Any]:
    """Results of a phantom's study on the grid of the T1c, as asked for; and as a patient's, on that of the FLAIR.

    The patient's images are those that were looked at on the grid of the T1c before the reference was known, as if
    there had been a question.
    """
    folder = tmp_path_factory.mktemp("study")
    write_study(folder / "study", subject, [T1C, FLAIR])
    options = Options(series={"t1c": 6, "flair": 4}, skull_strip="no")
    made = {}
    for name in ("phantom", "patient"):
        out, predictor = folder / name, Balls()
        with pytest.MonkeyPatch.context() as patch:
            if name == "patient":
                for path in (folder / "study").rglob("*.dcm"):
                    edit(path, lambda dataset: setattr(dataset, "StudyDescription", "MR head"))
                patch.setattr("mmb.clinic.study.align_and_assign", by_flair)
            asked = replace(options, reference="t1c" if name == "phantom" else None)
            prediction = segment(folder / "study", out, predictor, asked)
        made[name] = SimpleNamespace(out=out, prediction=prediction, predictor=predictor, study=folder / "study")
    return made


def drawn(path: Path) -> tuple[nib.Nifti1Image, np.ndarray, np.ndarray]:
    """Return a label map, its voxels, and the places of its voxels in mm."""
    image = nib.load(path)
    return image, np.asarray(image.dataobj), apply_affine(image.affine, np.moveaxis(np.indices(image.shape), 0, -1))


def test_what_was_asked_for_and_found_is_told(results):
    """The series set by hand, and the reference only where it was asked for."""
    for name, reference in (("phantom", "t1c"), ("patient", None)):
        summary = results[name].prediction.summary
        assert dict(summary.asked.series) == {"t1c": "6", "flair": "4"}
        assert (summary.asked.reference, summary.asked.skull_strip) == (reference, "no")
        assert summary.asked.decision == results[name].predictor.decision
        told = {each.source: (each.header, each.confidence, each.modality, each.use) for each in summary.found}
        assert told == {"series 6": ("t1c", None, "t1c", "taken"), "series 4": ("flair", None, "flair", "taken")}


@pytest.mark.parametrize("name", ["phantom", "patient"])
def test_the_label_map_lies_where_the_predictor_drew_it(results, name):
    """On the grid of the reference, of each class the ball's volume, and its middle."""
    image, label, places = drawn(results[name].out / "label.nii.gz")
    assert sorted(voxel_sizes(image.affine).round(3).tolist()) == ([4, 4, 5] if name == "phantom" else [4, 4, 4])
    assert image.header["descrip"].item().decode() == "research only, not for clinical use"
    near = np.linalg.norm(places - MIDDLE, axis=-1) < 25
    np.testing.assert_allclose(places[near & (label > 0)].mean(axis=0), MIDDLE, atol=0.6)
    ml = np.prod(voxel_sizes(image.affine)) / 1000
    for region, radius in (("WT", 16), ("TC", 10), ("ET", 7)):
        mask = np.isin(label, [GLIOMA.labels.values[each] for each in GLIOMA.labels.regions[region]]) & near
        assert mask.sum() * ml == pytest.approx(4 / 3 * np.pi * radius**3 / 1000, rel=0.2)


def test_the_reference_that_is_asked_for_sets_the_field_of_view(results):
    """The T1c covers 65 mm along the slices' normal, the FLAIR 112 mm; what is drawn above it is there only then."""
    inside = {name: drawn(each.out / "label.nii.gz") for name, each in results.items()}
    far = {name: np.linalg.norm(places - MIDDLE - ABOVE, axis=-1)[label > 0].min() for name, (_, label, places)
           in inside.items()}  # fmt: skip
    assert far["patient"] < 3
    assert far["phantom"] > 15
    given = {name: each.predictor.images for name, each in results.items()}
    assert {name: [*images] for name, images in given.items()} == {name: ["t1c", "flair"] for name in results}
    assert {name: images["flair"].shape[2] for name, images in given.items()} == {"phantom": 65, "patient": 112}
    np.testing.assert_allclose([voxel_sizes(each["t1c"].affine) for each in given.values()], 1)
    one, two = (np.asarray(given["patient"][name].dataobj) for name in ("t1c", "flair"))
    assert np.corrcoef(one[one > 0], two[one > 0])[0, 1] > 0.5  # they lie on each other


@pytest.mark.parametrize("name", ["phantom", "patient"])
def test_segments_and_volumes_are_those_of_the_label_map(results, name):
    image, label, _ = drawn(results[name].out / "label.nii.gz")
    ml = np.prod(voxel_sizes(image.affine)) / 1000
    report = hd.sr.srread(results[name].out / "report.dcm").content
    said = {
        each.tracking_identifier: each.get_measurements(codes.SCT.Volume)[0].value
        for each in report.get_volumetric_roi_measurement_groups()
    }
    values = GLIOMA.labels.values
    counted = {key: (label == values[key]).sum() * ml for key in values}
    expected = {"Necrotic core": counted["NCR"], "Oedema": counted["ED"], "Enhancing tumour": counted["ET"]}
    assert said == pytest.approx(expected, abs=2e-3)
    assert len({round(value, 2) for value in said.values()}) == 3
    regions = {
        each.tracking_identifier.partition(" (")[2][:2]: each.get_measurements()[0].value
        for each in report.get_image_measurement_groups()
    }
    assert regions == pytest.approx({"WT": sum(counted.values()), "TC": counted["NCR"] + counted["ET"]}, abs=2e-3)
    summary = results[name].prediction.summary
    assert summary.classes == pytest.approx(counted)
    assert summary.volumes == pytest.approx(regions | {"ET": counted["ET"]}, abs=2e-3)
    number = {"phantom": 6, "patient": 4}[name]
    series = next(each for each in read_series(results[name].study) if each.number == number)
    assert np.array_equal(read_seg(results[name].out / "seg.dcm", series, values), label)
    assert pydicom.dcmread(results[name].out / "seg.dcm").ReferencedSeriesSequence[0].SeriesInstanceUID == series.uid


def test_what_is_calibrated_is_trusted(results):
    for trusted in (results[name].prediction.summary for name in ("patient", "phantom")):
        assert set(trusted.intervals) == {"WT", "TC", "ET"}
        assert "not reliable" not in {each.word for each in trusted.verdicts.values()}
        assert trusted.scores == pytest.approx(dict.fromkeys(("WT", "TC", "ET"), 2 * 0.97 / 1.97), rel=1e-3)
