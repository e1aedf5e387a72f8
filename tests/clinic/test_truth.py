"""What every output says of a study, read as its reader reads it, against what was put into the images."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from base64 import b64decode
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pydicom
import pytest
from dicom_studies import edit_series
from jsonschema import validate
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset
from scipy import ndimage
from truth import COHORT, HAZE, OFF_CENTRE, SHOWN, ByIntensity, Grid

from mmb.clinic.console import segment_study
from mmb.clinic.options import Options
from mmb.clinic.report.document import SCHEMA
from mmb.clinic.study import segment
from mmb.server.model import _of_upload

GRIDS = {
    "axial": Grid(),
    "sagittal": Grid("sagittal"),
    "coronal": Grid("coronal", reverse=True),
    "oblique": Grid(tilt=(20, -20, 0), aside=(4, -8, 0)),
    "thick": Grid(spacing=(0.9, 0.5, 5), gap=1.5),
    "turned": Grid(turned=15),
    "mirrored": Grid(mirrored=True),
    "LPS": Grid(files="LPS"),
    "SAR": Grid(files="SAR", mirrored=True, spacing=(2, 2, 3)),
}
VALUES = COHORT.labels.values
REGIONS = {"WT": ("ED", "NCR", "ET"), "TC": ("NCR", "ET"), "ET": ("ET",)}
NAMES = {"Necrotic core": "NCR", "Oedema": "ED", "Enhancing tumour": "ET"}
SURE = {"WT": 0.97, "TC": 0.3, "ET": 0.45}
SIDES = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}


@pytest.fixture(autouse=True, scope="module")
def _not_judged() -> Iterator[None]:
    """A brain of waves looks like no sequence; so none is large enough to be judged."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmb.clinic.recognise.image.LEAST_ML", 1e9)
        yield


@pytest.fixture(scope="module", params=[*GRIDS])
def study(request, tmp_path_factory) -> SimpleNamespace:
    """The outputs for the head on a grid, with intensities that make ET doubtful and TC not reliable."""
    grid, folder = GRIDS[request.param], tmp_path_factory.mktemp("truth")
    source, out = grid.write(folder / "study"), folder / "out"
    predictor = ByIntensity(SURE)
    made = segment(source, out, predictor, Options(skull_strip="no", keep_images=True))
    truth = grid.truth
    total = {region: sum(each.ml[region] for each in truth) for region in REGIONS}
    classes = {"ED": total["WT"] - total["TC"], "NCR": total["TC"] - total["ET"], "ET": total["ET"]}
    slack = max(1.0, grid.spacing[2] / 2)
    return SimpleNamespace(grid=grid, out=out, made=made, truth=truth, total=total, classes=classes, slack=slack)


def pieces(mask: np.ndarray, affine: np.ndarray) -> list[tuple[float, np.ndarray]]:
    """Return volume in ml and centre in mm of each connected piece, the largest first."""
    numbers, count = ndimage.label(mask, np.ones((3, 3, 3)))
    ml = abs(np.linalg.det(affine[:3, :3])) / 1000
    found = [np.argwhere(numbers == n) for n in range(1, count + 1)]
    return sorted(((len(v) * ml, affine[:3, :3] @ v.mean(axis=0) + affine[:3, 3]) for v in found), key=lambda p: -p[0])


def lie_where_they_were_put(found: list[tuple[float, np.ndarray]], study: SimpleNamespace) -> None:
    assert [ml for ml, _ in found] == pytest.approx([each.ml["WT"] for each in study.truth], rel=0.07)
    for (_, centre), each in zip(found, study.truth, strict=True):
        np.testing.assert_allclose(centre, each.centre, atol=study.slack)


def test_label_map(study):
    image = nib.load(study.out / "label.nii.gz")
    assert image.header.get_xyzt_units()[0] == "mm"
    label = np.asarray(image.dataobj)
    ml = np.prod(image.header.get_zooms()) / 1000
    for region, names in REGIONS.items():
        mask = np.isin(label, [VALUES[name] for name in names])
        assert mask.sum() * ml == pytest.approx(study.total[region], rel=0.05)
    lie_where_they_were_put(pieces(label > 0, image.affine), study)
    inner = pieces(label == VALUES["ET"], image.affine)
    assert len(inner) == 1
    np.testing.assert_allclose(inner[0][1], study.truth[0].centre, atol=study.slack)


def test_kept_images_lie_on_the_label_map(study):
    for name, region in SHOWN.items():
        image = nib.load(study.out / "images" / f"{name}.nii.gz")
        assert image.header.get_xyzt_units()[0] == "mm"
        np.testing.assert_allclose(np.linalg.norm(image.affine[:3, :3], axis=0), 1)
        bright = pieces(np.asarray(image.dataobj) > 900, image.affine)
        assert bright[0][0] == pytest.approx(study.truth[0].ml[region], rel=0.05)
        np.testing.assert_allclose(bright[0][1], study.truth[0].centre, atol=study.slack)


def test_document(study):
    said = json.loads((study.out / "summary.json").read_text())
    validate(said, json.loads(SCHEMA.read_text()))
    assert said["volumes"] == pytest.approx(study.total, rel=0.05)
    assert said["classes"] == pytest.approx(study.classes, rel=0.08)
    assert [each["side"] for each in said["lesions"]] == [each.side for each in study.truth]
    brain = nib.load(study.out / "images" / "brain_mask.nii.gz")
    whole = np.count_nonzero(brain.dataobj) * np.prod(brain.header.get_zooms()) / 1000
    for region, ml in said["volumes"].items():
        sure, outside = SURE[region] * ml, HAZE * (whole - ml)
        assert said["scores"][region] == pytest.approx(2 * sure / (ml + sure + outside), rel=0.02)
    assert sum(each["volume"] for each in said["lesions"]) == pytest.approx(said["volumes"]["WT"])
    assert (said["specks"], [each["modality"] for each in said["used"]]) == (0, ["t1c", "t2", "flair"])
    network = nib.load(study.out / "images" / "t1c.nii.gz").affine
    centres = [(each["volume"], network[:3, :3] @ each["centre"] + network[:3, 3]) for each in said["lesions"]]
    lie_where_they_were_put(centres, study)
    assert {region: each["word"] for region, each in said["verdicts"].items()} == {
        "WT": "usable for review", "TC": "not reliable", "ET": "doubtful"
    }  # fmt: skip
    assert {name: each["word"] for name, each in said["class_verdicts"].items()} == {
        "ED": "not reliable", "NCR": "not reliable", "ET": "doubtful"
    }  # fmt: skip


def test_answer(study):
    """The third and fourth lesion are small further pieces if they have less than a tenth of the first."""
    said, (first, second, *others) = study.made.summary.answer, study.truth
    main = [first, second, *(each for each in others if each.ml["WT"] > 0.1 * first.ml["WT"])]
    assert said.startswith(f"Tumour in {len(main)} places on both sides: whole tumour ")
    assert "tumour core" in said.partition("not reliable")[0]
    small = [each for each in others if each not in main]
    assert (f"A small further piece ({small[0].ml['WT']:.1f}"[:25] in said) == (len(small) == 1)
    if small:
        assert said.endswith(f" is on the {small[0].side}.")


def test_viewer_of_the_page(study):
    page = (study.out / "summary.html").read_text()
    rows = re.findall(r"<td[^>]*>(\d)</td>\s*<td[^>]*>(\w+)</td>", page)
    assert rows == [(str(n), each.side) for n, each in enumerate(study.truth, start=1)]
    sheets = json.loads(re.search(r'<script type="application/json"[^>]*>(.*?)</script>', page, re.S)[1])
    sheet = np.asarray(Image.open(BytesIO(b64decode(sheets["masks"]))))
    (width, height), (x, y, z) = sheets["tile"], sheets["shape"]
    tiles = [
        sheet[row * height : row * height + y, column * width : column * width + x]
        for row, column in (divmod(n, sheets["columns"]) for n in range(z))
    ]
    bits = np.stack(tiles, axis=-1).transpose(1, 0, 2) // sheets["unit"]  # from the right, from the front, from below
    steps = np.array(sheets["spacing"]) * [-1, -1, 1]
    network = nib.load(study.out / "images" / "t1c.nii.gz").affine[:3, :3]
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = network * steps, network @ sheets["first"]
    lie_where_they_were_put(pieces(bits % 2 > 0, affine), study)
    starts = [network @ (np.array(sheets["first"]) + np.array(at) * steps) for at in sheets["starts"]]
    for start, each in zip(starts, study.truth, strict=True):
        np.testing.assert_allclose(start, each.centre, atol=study.slack)


def drawn(text: str, size: int) -> np.ndarray:
    """Return what the text looks like in a picture: bool, without margins."""
    made = Image.new("L", (160, 40))
    ImageDraw.Draw(made).text((5, 5), text, 255, font_size=size)
    return cropped(np.asarray(made) > 200)


def cropped(mask: np.ndarray) -> np.ndarray:
    (box,) = ndimage.find_objects(mask.astype(int))
    return mask[box]


def read_from(picture: np.ndarray, candidates: list[str], size: int) -> str:
    """Return which text is written in white in a part of a picture, the only white thing there."""
    white = cropped((picture > 200).all(axis=-1))

    def unlike(text: str) -> float:
        wanted = drawn(text, size)
        shape = np.maximum(wanted.shape, white.shape)
        one, other = (
            np.pad(each, [(0, m - n) for m, n in zip(shape, each.shape, strict=True)]) for each in (wanted, white)
        )
        return np.mean(one != other)

    return min(candidates, key=unlike)


def test_printed_pictures(study):
    """The letters of each plane, its position, and on which side of its middle the largest lesion is outlined."""
    network = nib.load(study.out / "images" / "t1c.nii.gz")
    axes = network.affine[:3, :3]
    along = axes.T @ study.truth[0].centre  # in mm along the grid's axes
    brain = axes.T @ OFF_CENTRE
    image = np.asarray(Image.open(BytesIO(b64decode(study.made.summary.pictures["flair"]))))
    places, closed = {2: (0, 0, 460, 560), 1: (468, 0, 390, 276), 0: (468, 284, 390, 276)}, 0
    for axis, (left, top, width, height) in places.items():
        part = image[top : top + height, left : left + width]
        filled = np.argwhere(part.max(axis=-1) > 0)
        (y0, x0), (y1, x1) = filled.min(axis=0), filled.max(axis=0) + 1
        plane = part[y0:y1, x0:x1]
        middle, across = plane.shape[0] // 2, 0 if axis else 1
        letters = [
            read_from(strip, list("RLAPSI"), 20)
            for strip in (plane[middle - 16 : middle + 16, :22], plane[middle - 16 : middle + 16, -22:])
        ]
        assert letters == (["A", "P"] if axis == 0 else ["R", "L"])
        outline = np.argwhere(np.abs(plane.astype(int) - [0x56, 0xB4, 0xE9]).max(axis=-1) < 8)
        column = (outline.min(axis=0) + outline.max(axis=0))[1] / 2 / plane.shape[1]
        towards = 0.5 - column  # positive on the side of the first letter
        assert np.sign(towards) == np.sign(along[across] - brain[across])
        inside = ndimage.binary_fill_holes(np.abs(plane.astype(int) - [0x56, 0xB4, 0xE9]).max(axis=-1) < 8)
        inside = ndimage.binary_erosion(inside, iterations=8)
        closed += inside.any()
        assert not inside.any() or np.mean(plane[inside].min(axis=-1) > 150) > 0.6  # the rest are inner outlines
        if axis == 2 and study.grid == Grid():
            through = plane[:, plane.shape[1] // 2 - 40 : plane.shape[1] // 2 - 20].max(axis=(1, 2)) > 40
            bar = (plane[-12:] > 250).all(axis=-1).any(axis=0).sum()
            assert bar / through.sum() == pytest.approx(50 / 156, rel=0.06)  # 160 mm in the middle of the brain
        letter = "RAS"[axis] if along[axis] >= 0 else "LPI"[axis]
        near = [f"{a} {n} mm" for a in ("RAS"[axis], "LPI"[axis]) for n in range(150)]
        said, distance, _ = read_from(plane[:24, -110:], near, 14).split()
        assert said == letter
        assert int(distance) == pytest.approx(abs(along[axis]), abs=study.slack + 1)
    assert closed >= 2


def code(item: Dataset) -> str:
    return item.CodeMeaning


CODES = {"usable for review": "usable", "doubtful": "doubtful", "not reliable": "not_reliable"}


def test_segmentation_object(study):
    path = study.out / "seg.dcm"
    if study.grid.files:
        assert not path.exists()
        return
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.reshape(shared.PlaneOrientationSequence[0].ImageOrientationPatient, (2, 3)).astype(float)
    row, column = map(float, shared.PixelMeasuresSequence[0].PixelSpacing)
    thickness = float(shared.PixelMeasuresSequence[0].SliceThickness)
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(-1, seg.Rows, seg.Columns)
    described = {segment.SegmentNumber: segment for segment in seg.SegmentSequence}
    points: dict[str, list[np.ndarray]] = {}
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        number = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        corner = np.array(group.PlanePositionSequence[0].ImagePositionPatient, float)
        at = np.argwhere(frame)
        lps = corner + at[:, 1:] * column * orientation[0] + at[:, :1] * row * orientation[1]
        name = NAMES[described[number].SegmentLabel.removesuffix(" (not reliable)")]
        points.setdefault(name, []).append(lps * [-1, -1, 1])
    ml = row * column * thickness / 1000
    assert {name: sum(map(len, each)) * ml for name, each in points.items()} == pytest.approx(study.classes, rel=0.08)
    assert float(shared.PixelMeasuresSequence[0].SpacingBetweenSlices) == pytest.approx(study.grid.spacing[2])
    for name, (outer, inner) in {"ED": ("WT", "TC"), "NCR": ("TC", "ET"), "ET": ("ET", None)}.items():
        share = [each.ml[outer] - each.ml.get(inner, 0) for each in study.truth]
        centre = np.average([each.centre for each in study.truth], axis=0, weights=share)
        np.testing.assert_allclose(np.concatenate(points[name]).mean(axis=0), centre, atol=study.slack)
    words = {each.SegmentLabel: each.SegmentDescription for each in described.values()}
    assert {*words} == {"Necrotic core (not reliable)", "Oedema (not reliable)", "Enhancing tumour"}
    own = {"Necrotic core": "not reliable", "Oedema": "not reliable", "Enhancing tumour": "doubtful"}
    for label, text in words.items():
        name = label.removesuffix(" (not reliable)")
        assert re.match(rf"{name}: {own[name]}.*; WT: usable for review; TC: not reliable.*; ET: doubtful", text)
    assert seg.SeriesDescription.startswith("T1c+T2+FLAIR: ")
    legend = re.findall(r'border-color: (#\w{6})"></span>([\w ]+)<', (study.out / "summary.html").read_text())
    assert {*legend} == {("#56B4E9", "whole tumour"), ("#F0E442", "tumour core"), ("#D55E00", "enhancing tumour")}
    lab = {"Oedema": (69.8, -12.0, -34.8), "Necrotic core": (89.1, -13.3, 75.5), "Enhancing tumour": (54.2, 43.3, 63.3)}
    for label, described_as in zip(map(str, words), described.values(), strict=True):
        stored = np.array(described_as.RecommendedDisplayCIELabValue) / (655.35, 257, 257) - (0, 128, 128)
        np.testing.assert_allclose(stored, lab[label.removesuffix(" (not reliable)")], atol=2)


def children(item: Dataset, concept: str) -> list[Dataset]:
    nested = item.get("ContentSequence", [])
    return [each for each in nested if code(each.ConceptNameCodeSequence[0]) == concept]


def number(item: Dataset) -> tuple[float, str]:
    measured = item.MeasuredValueSequence[0]
    return float(measured.NumericValue), measured.MeasurementUnitsCodeSequence[0].CodeValue


def test_structured_report(study):
    path = study.out / "report.dcm"
    if study.grid.files:
        assert not path.exists()
        return
    report, seg = pydicom.dcmread(path), pydicom.dcmread(study.out / "seg.dcm")
    assert report.CompletionFlag == "PARTIAL"
    (text,) = children(report, "Conclusion")
    assert text.TextValue.startswith(study.made.summary.answer)
    assert "missing: T1." in text.TextValue
    (procedure,) = children(report, "Procedure reported")
    assert code(procedure.ConceptCodeSequence[0]) == "MR Brain"
    assert report.CodingSchemeIdentificationSequence[0].CodingSchemeDesignator == "99MMB"
    (measurements,) = children(report, "Imaging Measurements")
    labels = {each.SegmentNumber: each.SegmentLabel.removesuffix(" (not reliable)") for each in seg.SegmentSequence}
    volumes, intervals, words = {}, {}, {}
    for group in children(measurements, "Measurement Group"):
        (title,) = children(group, "Tracking Identifier")
        name = re.sub(r"^.*\((..)\):.*$", r"\1", title.TextValue)
        for outlined in children(group, "Referenced Segment"):
            referenced = outlined.ReferencedSOPSequence[0]
            assert referenced.ReferencedSOPInstanceUID == seg.SOPInstanceUID
            assert labels[referenced.ReferencedSegmentNumber] == name
            name = NAMES[name]
            (series,) = children(group, "Source Series for Segmentation")
            assert pydicom.dcmread(next((study.out.parent / "study" / "006").iterdir())).SeriesInstanceUID == series.UID
        (volume,) = children(group, "Volume")
        volumes[name], unit = number(volume)
        ends = [children(volume, f"{sign}, range of {which} measurement uncertainty")
                for sign, which in (("-", "lower"), ("+", "upper"))]  # fmt: skip
        if all(ends):
            (low, _), (high, other) = (number(end[0]) for end in ends)
            intervals[name] = volumes[name] - low, volumes[name] + high
            assert other == "ml"
        (verdict,) = children(group, "How far the outline can be used")
        words[name] = code(verdict.ConceptCodeSequence[0])
        assert verdict.ConceptCodeSequence[0].CodeValue == CODES[words[name]]
        (site,) = children(group, "Finding Site")
        assert (unit, code(site.ConceptCodeSequence[0])) == ("ml", "Brain")
    expected = {"WT": study.total["WT"], "TC": study.total["TC"], **study.classes}
    assert volumes == pytest.approx(expected, rel=0.08)
    summary = study.made.summary
    assert words == {
        "WT": "usable for review", "TC": "not reliable", "ET": "doubtful", "ED": "not reliable", "NCR": "not reliable"
    }  # fmt: skip
    assert intervals.keys() == summary.intervals.keys() & {"WT", "TC", "ET"} != set()
    for name, ends in intervals.items():
        assert ends == pytest.approx(summary.intervals[name], abs=0.01)
        assert ends[0] < volumes[name] < ends[1]


def test_regions_of_which_nothing_was_drawn_are_in_the_report(coarse, tmp_path):
    options = Options(series={"t1c": None, "t2": None}, skull_strip="no")
    segment(coarse.folder / "one", tmp_path, ByIntensity(), options)
    (measurements,) = children(pydicom.dcmread(tmp_path / "report.dcm"), "Imaging Measurements")
    groups = children(measurements, "Measurement Group")
    titles = [each.TextValue for group in groups for each in children(group, "Tracking Identifier")]
    assert titles == ["Oedema", "Whole tumour (WT): Oedema", "Tumour core (TC)", "Enhancing tumour (ET)"]
    assert [number(each) for group in groups[2:] for each in children(group, "Volume")] == 2 * [(0, "ml")]


@pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="needs Debian's dicom3tools")
def test_dicom_is_valid(study):
    for path in study.out.glob("*.dcm"):
        said = subprocess.run(["dciodvfy", path], capture_output=True, text=True).stderr
        assert not re.findall("^Error.*", said, re.M), said
    if made := [*study.out.glob("*.dcm")]:
        images = sorted((study.out.parent / "study").rglob("*.dcm"))
        assert not subprocess.run(["dcentvfy", *made, *images], capture_output=True).returncode


@pytest.fixture(scope="module")
def coarse(tmp_path_factory) -> SimpleNamespace:
    """A folder of one study with voxels of 4 mm."""
    folder, grid = tmp_path_factory.mktemp("coarse"), Grid(spacing=(4, 4, 4))
    grid.write(folder / "one")
    return SimpleNamespace(folder=folder, grid=grid)


def test_console_and_table_say_what_the_document_says(coarse, tmp_path, capsys, monkeypatch):
    predictor = ByIntensity(SURE)
    monkeypatch.setattr("mmb.clinic.batch.load_predictor", lambda *network: predictor)
    options = Options(series={"t1c": 6, "t2": 3, "flair": 4}, skull_strip="no")
    segment_study(coarse.folder, str(tmp_path), options, each=True)
    shown, said = capsys.readouterr().out, json.loads((tmp_path / "one" / "summary.json").read_text())
    assert said["asked"]["series"] == {"t1c": "6", "t2": "3", "flair": "4"}
    (row,) = pd.read_csv(tmp_path / "studies.csv").to_dict("records")
    assert (row["answer"], row["used"], row["missing"]) == (said["answer"], "t1c+t2+flair", "t1")
    assert f"Answer:\n  {said['answer']}\n" in shown
    total = {region: sum(each.ml[region] for each in coarse.grid.truth) for region in REGIONS}
    for region, volume in said["volumes"].items():
        assert volume == pytest.approx(total[region], rel=0.12)
        word, (low, high) = said["verdicts"][region]["word"], said["intervals"].get(region, (None, None))
        (line,) = re.findall(rf"^  {region}: (.*)$", shown, re.M)
        assert line.startswith(f"{volume:.0f} ml")
        assert line.partition("; ")[2].startswith(word)
        assert row[f"{region}_ml"] == pytest.approx(volume)
        assert row[f"{region}_verdict"] == word
        assert row[f"{region}_expected_dice"] == pytest.approx(said["expected_dice"][region])
        if low is not None:
            assert low < volume < high
            assert f"(true volume probably {low:.0f} to {high:.0f} ml)" in line
            assert (row[f"{region}_low_ml"], row[f"{region}_high_ml"]) == pytest.approx((low, high))

    def again() -> str:
        segment_study(coarse.folder, str(tmp_path), options, each=True)
        return capsys.readouterr().out

    assert "one: segmented before\n" in again()
    predictor.weights_name = "others.pt 34cd"
    assert "one: segmented\n" in again()
    next(path for path in coarse.folder.rglob("*.dcm")).touch()
    assert "one: segmented\n" in again()
    with pytest.raises(ValueError, match="1 of 1 studies"):
        segment_study(coarse.folder, str(tmp_path), replace(options, series={"t1c": 99}), each=True)
    assert not [*tmp_path.rglob("*.dcm")]  # which would be of other series


def test_series_chosen_on_the_page_are_those_that_are_used(coarse, tmp_path, monkeypatch):
    monkeypatch.setattr("mmb.server.model._loaded", lambda asked: ByIntensity())
    shutil.copytree(coarse.folder / "one", tmp_path / "study")
    made = _of_upload(tmp_path, Options(series={"t2": 4, "t1c": None}, skull_strip="no"), None)
    assert {each["modality"]: each["source"] for each in made["params"]["used"]} == {"t2": "series 4"}


@pytest.mark.parametrize(
    ("end", "axis", "count", "lacks"),
    [
        ("left", 0, 24, 41),
        ("right", 0, 24, 41),
        ("back", 1, 36, 64),
        ("front", 1, 36, 64),
        ("bottom", 2, 6, 12),
        ("top", 2, 6, 12),
    ],
)
def test_what_an_image_lacks_is_named_by_its_end_and_much_of_a_t1c_promises_nothing(tmp_path, end, axis, count, lacks):
    """Voxels of 2 mm, of which the grid has 6.6 or 8 mm beside the brain, and none above or below it."""
    Grid(files="RAS").write(tmp_path / "study")
    path = tmp_path / "study" / f"head_{'flair' if axis == 2 else 't1c'}.nii.gz"
    image = nib.load(path)
    kept = [slice(None)] * 3
    kept[axis] = slice(count, None) if end in ("left", "back", "bottom") else slice(0, -count)
    nib.save(image.slicer[tuple(kept)], path)
    made = segment(tmp_path / "study", tmp_path / "out", ByIntensity(), Options(skull_strip="no")).summary
    (said,) = [remark.text for remark in made.remarks if remark.code == ("covers_less" if axis == 2 else "partial")]
    named = re.match(r"(?:T1c|FLAIR) \(.*: \d\d % of the brain; (\d+) mm missing (?:on|at) the (\w+)\)", said)
    assert named[2] == end
    assert int(named[1]) == pytest.approx(lacks, abs=2)
    if axis < 2:
        assert ([*made.intervals], [*made.expected_dice]) == (["WT"], ["WT"])


@pytest.mark.parametrize(("end", "kept"), [("left", slice(24, None)), ("right", slice(0, -24))])
def test_a_brain_that_is_cut_off_has_no_sides(tmp_path, end, kept):
    Grid(files="RAS").write(tmp_path / "study")
    for path in (tmp_path / "study").iterdir():
        nib.save(nib.load(path).slicer[kept], path)
    made = segment(tmp_path / "study", tmp_path / "out", ByIntensity(), Options(skull_strip="no")).summary
    assert [remark.text.partition(":")[0] for remark in made.remarks if remark.code == "cut_off"] == [
        f"The images end within the brain on the {end}"
    ]
    assert {each.side for each in made.lesions} == {"not known"}


@pytest.mark.parametrize(
    ("warnings", "change", "reason"),
    [
        (("Made for phantoms.",), {}, "the result is not to be used."),
        ((), {"FrameOfReferenceUID": "1.2.03"}, "its FrameOfReferenceUID is not a valid one."),
        ((), {"StudyInstanceUID": "1.2.a"}, "its StudyInstanceUID is not a valid one."),
        ((), {"StudyInstanceUID": "1." + "2" * 63}, "its StudyInstanceUID is not a valid one."),
        ((), {"FrameOfReferenceUID": "1." + "2" * 62}, None),
    ],
)
def test_what_is_not_to_be_used_or_cannot_be_valid_is_not_written_for_an_archive(
    coarse, tmp_path, warnings, change, reason
):
    shutil.copytree(coarse.folder / "one", tmp_path / "study")
    for number in (3, 4, 6):
        edit_series(tmp_path / "study", number, change)
    made = segment(tmp_path / "study", tmp_path / "out", ByIntensity(warnings=warnings), Options(skull_strip="no"))
    for_archive = {"seg.dcm", "report.dcm"} if reason is None else set()
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "label.nii.gz", "summary.html", "summary.json", *for_archive
    }  # fmt: skip
    said = [remark.text for remark in made.summary.remarks if remark.code == "no_seg"]
    assert [text.endswith(reason) for text in said] == ([] if reason is None else [True])
    assert made.summary.answer.startswith("Do not use" if warnings else "Tumour")
