"""A study in, a segmentation out, as on the command line, with the demo weights of m3ae."""

import errno
import json
import re
import shutil
import subprocess
import sys
from datetime import datetime
from pathlib import Path

import jsonschema
import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from dicom_studies import STUDY, read_back, read_series, write_study
from nibabel.affines import apply_affine
from nibabel.processing import resample_from_to
from phantom_case import HEAD, LPS, weights_of_patients, with_heads, write_case
from run_tools import run
from scipy.spatial.transform import Rotation

from common.cohorts.phantom.simulation import SPACING, simulate
from common.cohorts.registry import PHANTOM
from common.io.bundle import bundle_root
from common.io.checkpoints import read_checkpoint, write_checkpoint
from common.io.files import file_digest
from mmb.clinic import batch
from mmb.clinic.recognise.reading import choose_reference, read_folder
from mmb.clinic.report.document import SCHEMA, read_document, schema
from mmb.clinic.study import RESULTS
from mmb.predictors.bundle import SYNTHETIC

SECRETS = re.compile(r"Secret|SECRET|19700101|1\.2\.826\.0|Doe_")
DEMO = Path(bundle_root("m3ae"), "models", "phantom.pt")
ROOT = Path(__file__).parents[3]
USED = {"t1": 2, "t2": 3, "flair": 4, "t1c": 6}
"""Modality -> number of the series that is the right one in `STUDY`."""


@pytest.fixture(scope="module")
def studies(tmp_path_factory) -> tuple[Path, Path]:
    """A study as DICOM, with FLAIR after the patient has moved, and its volumes as NIfTI, with FLAIR from before."""
    whole, dicom, nifti = (tmp_path_factory.mktemp(name) for name in ("whole", "dicom", "nifti"))
    middle = apply_affine(LPS, (np.array(write_case(whole, "Doe").shape) - 1) / 2)
    for scan, volume in zip(STUDY, write_study(dicom, whole), strict=True):
        motion = np.eye(4)
        if scan.moved:
            motion[:3, :3] = Rotation.from_euler("xyz", scan.moved[0], degrees=True).as_matrix()
            motion[:3, 3] = middle + scan.moved[1] - motion[:3, :3] @ middle
        if USED.get(scan.image) == scan.number:
            image = nib.Nifti1Image(volume.dataobj, np.linalg.inv(motion) @ volume.affine)
            nib.save(image, nifti / f"Doe_{scan.image}.nii.gz")
    return dicom, nifti


def predict(*arguments: object) -> int | str | None:
    """Run ``mmb predict``, by default on the CPU and with the demo weights."""
    defaults = {"--device": "cpu", "--recipe": "phantom"}
    added = [word for key, value in defaults.items() if key not in arguments for word in (key, value)]
    return run("predict", *arguments, *added)


def regions(label: np.ndarray) -> dict[str, np.ndarray]:
    labels = PHANTOM.labels
    return {region: np.isin(label, [labels.values[name] for name in of]) for region, of in labels.regions.items()}


def dice(one: np.ndarray, other: np.ndarray) -> dict[str, float]:
    pairs = {region: (mask, regions(other)[region]) for region, mask in regions(one).items()}
    return {region: 2 * (a & b).sum() / (a.sum() + b.sum()) for region, (a, b) in pairs.items()}


def test_a_folder_of_nifti_files(subject, tmp_path, capsys):
    assert predict(subject, tmp_path, "m3ae", "--modalities", "t1c,flair") is None
    found, truth = nib.load(tmp_path / "label.nii.gz"), nib.load(subject / "Doe_seg.nii.gz")
    assert np.array_equal(found.affine, truth.affine)
    assert found.get_data_dtype() == np.uint8
    label = np.asarray(found.dataobj)
    scores = dice(label, np.asarray(truth.dataobj))
    assert scores["WT"] > 0.8
    assert scores["TC"] > 0.7
    assert sorted(path.name for path in tmp_path.iterdir()) == ["label.nii.gz", "summary.html", "summary.json"]
    said, page = capsys.readouterr().out, (tmp_path / "summary.html").read_text()
    assert "_t1.nii.gz: T1 (by its name); not used, as requested" in said
    for shown in (said, page):
        assert "They were trained on patients drawn by this software" in shown
        assert SYNTHETIC in shown
    assert not SECRETS.search(page)  # it contains no file name either, which may be a patient's name


def test_files_of_any_names_and_the_images_that_are_kept(subject, tmp_path):
    (flair := tmp_path / "serie 7.nii.gz").symlink_to(subject / "Doe_flair.nii.gz")
    (out := tmp_path / "out").mkdir()
    (out / "images").mkdir()
    for name in ("t2", "probability_of_another_cohort"):
        (out / "images" / f"{name}.nii.gz").write_text("of another run")
    assert predict(out, "--flair", flair, "--keep_images", "--label", "case 7 <b>") is None
    page = (out / "summary.html").read_text()
    assert f"<strong>case 7 &lt;b&gt;</strong>, {datetime.now().astimezone():%Y-%m-%d }" in page
    summary = json.loads((out / "summary.json").read_text())
    jsonschema.validate(summary, json.loads(SCHEMA.read_text()))
    assert "case 7" not in json.dumps(summary)  # which may be sent
    assert [(used["modality"], used["source"]) for used in summary["used"]] == [("flair", "image file")]
    assert (summary["asked"]["files"], summary["found"][0]["confidence"]) == (["flair"], None)
    kept = {path.name: nib.load(path) for path in (out / "images").iterdir()}
    probabilities = {f"probability_{region}.nii.gz": region for region in summary["volumes"]}
    assert kept.keys() == {"flair.nii.gz", "brain_mask.nii.gz", *probabilities}
    brain, whole = (np.asarray(kept[f"{name}.nii.gz"].dataobj) for name in ("brain_mask", "probability_WT"))
    assert np.array_equal(brain > 0, np.asarray(kept["flair.nii.gz"].dataobj) > 0)
    label = nib.load(out / "label.nii.gz")
    marked = np.asarray(resample_from_to(label, kept["flair.nii.gz"], order=0).dataobj) > 0
    assert 2 * (marked & (whole > 0.5)).sum() / (marked.sum() + (whole > 0.5).sum()) > 0.85  # two resamplings apart


def test_the_schema_in_the_docs_is_that_of_the_summary():
    assert json.loads(SCHEMA.read_text()) == schema()  # python -m mmb.clinic.report.document writes it


@pytest.mark.slow
def test_a_dicom_study_gives_what_its_volumes_give_as_nifti(studies, tmp_path, capsys, caplog):
    (dicom, nifti), weights = studies, ("--ckpt_path", weights_of_patients(tmp_path))
    assert predict(dicom, tmp_path / "dicom", "m3ae", *weights) is None
    said = "".join(capsys.readouterr()) + caplog.text
    assert predict(nifti, tmp_path / "nifti", "m3ae", *weights) is None
    made, expected = (nib.load(tmp_path / kind / "label.nii.gz") for kind in ("dicom", "nifti"))
    np.testing.assert_allclose(made.affine, expected.affine, atol=1e-4)
    label = np.asarray(made.dataobj)
    assert min(dice(label, np.asarray(expected.dataobj)).values()) >= 0.98

    summary = json.loads((tmp_path / "dicom" / "summary.json").read_text())
    taken = {each["modality"]: each["source"] for each in summary["found"] if each["use"] == "taken"}
    assert taken == {modality: f"series {number}" for modality, number in USED.items()}
    others = {each["source"]: each["reason"].split(" ")[0] for each in summary["found"] if each["use"] == "left_out"}
    assert (others["series 1-3"], others["series 5"], others["series 7"]) == ("localizer", "diffusion", "subtraction")
    assert [each["source"] for each in summary["found"] if each["use"] == "rival"] == ["series 8"]
    assert re.search(r"FLAIR to T1c: registered, moved by 5\.\d mm and turned by 5\.\d degrees", said)
    page = (tmp_path / "dicom" / "summary.html").read_text()
    assert "series 6" in page
    words = re.sub("base64,[^\"']+", "", page)  # pictures may spell anything
    assert not SECRETS.search(said + words)
    assert "pictures" not in summary
    assert not SECRETS.search(json.dumps(summary))
    assert {path.name for path in (tmp_path / "dicom").iterdir()} == {*RESULTS.values()}

    # The SEG says the same as the label map on the grid of the T1c, which the result lies on.
    t1c = next(one for one in read_series(dicom) if one.number == USED["t1c"])
    assert np.array_equal(read_back(tmp_path / "dicom" / "seg.dcm", t1c) > 0, label > 0)


def test_the_reference_is_a_modality_or_a_series_that_is_used(studies):
    study = read_folder(studies[0], PHANTOM)
    assert choose_reference(study) == ("t1c", "the default")
    for name, series in study.series.items():
        assert choose_reference(study, name) == choose_reference(study, series.uid) == (name, "as requested")
    localizer = next(one.uid for one in read_series(studies[0]) if one.number == 1)
    used = r"T1 \(series 2\), T1c \(series 6\), T2 \(series 3\), FLAIR \(series 4\)\."
    for asked in (localizer, "1.2.3"):
        with pytest.raises(ValueError, match=rf"--reference: this series is not used; expected one of {used}") as found:
            choose_reference(study, asked)
        assert asked not in str(found.value)


def test_an_empty_result_and_weights_of_ones_own(subject, tmp_path, capsys):
    weights = {key: value.float() for key, value in read_checkpoint(DEMO).items()}
    weights["unet.head.bias"] -= 1e3
    write_checkpoint(weights, tmp_path / "own.pt")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "seg.dcm").write_text("of another run")
    options = ("--modalities", "t2", "--ckpt_path", tmp_path / "own.pt")
    assert predict(subject, tmp_path / "out", "m3ae", *options) is None
    assert not np.asarray(nib.load(tmp_path / "out" / "label.nii.gz").dataobj).any()
    assert not (tmp_path / "out" / "seg.dcm").exists()
    said = capsys.readouterr().out
    assert "Warnings:\n  No tumour found with confidence: nothing was drawn. That does not mean" in said
    assert "WT: 0.0 ml; doubtful: no tumour found with confidence\n" in said
    assert f"Weights: own.pt, SHA-256 {file_digest(tmp_path / 'own.pt')}.\n  The file does not say" in said
    assert "grid of the T2 (image file), the finest one" in said


def test_contradictions_come_first_and_an_image_has_the_name_that_it_was_used_as(tmp_path, capsys):
    """A T2 named FLAIR, and a T1c whose file name only says T1."""
    study, (images, _) = tmp_path / "study", simulate(77_080)
    study.mkdir()
    for name, modality in {"x_flair": "t2", "5_T1_MPRAGE_2020": "t1c"}.items():
        nib.save(nib.Nifti1Image(images[modality], LPS).slicer[HEAD], study / f"{name}.nii.gz")
    shutil.copy(study / "x_flair.nii.gz", study / "x_seg.nii.gz")
    assert predict(study, tmp_path / "out", "m3ae") is None
    said, page = capsys.readouterr().out, (tmp_path / "out" / "summary.html").read_text()
    warnings = said.partition("\nWarnings:\n  ")[2]
    for text in (warnings, page.partition("<li>")[2]):
        assert text.startswith("FLAIR (image file): it does not look like FLAIR, but like T2. Do not use the result")
    assert "<title>Segmentation from T1c + FLAIR</title>" in page
    (other,) = (line for line in warnings.splitlines() if re.search(r"\bT1\b", line))
    assert other.endswith("it looks like T1c, and is used as T1c.")
    listed = said.partition("In the study:\n")[2].partition("\nSegmenting")[0]  # as decided in the end, and once
    (line,) = (line for line in listed.splitlines() if "5_T1_MPRAGE_2020" in line)
    assert re.fullmatch(
        r"  5_T1_MPRAGE_2020\.nii\.gz: T1c \(by what it shows; .*\); its image shows T1c .*; used\.", line
    )
    assert said.count("5_T1_MPRAGE_2020.nii.gz: ") == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    jsonschema.validate(summary, schema())
    assert summary["asked"] == {
        "recipe": "phantom", "device": "cpu", "decision": "threshold", "series": {}, "files": [],
        "modalities": ["t1", "t1c", "t2", "flair"], "reference": None, "skull_strip": "auto", "site": None,
    }  # fmt: skip
    keys = ("header", "confidence", "modality", "use")
    t1c, flair, label = ({key: each[key] for key in keys} | each["shows"] for each in summary["found"])
    assert [t1c.pop("header"), t1c.pop("modality"), t1c.pop("use")] == ["t1", "t1c", "taken"]
    assert t1c.pop("confidence") in ("open", "likely")
    assert max(t1c, key=t1c.get) == "t1c"
    assert [flair.pop(key) for key in keys] == ["flair", None, "flair", "taken"]
    assert max(flair, key=flair.get) == "t2"
    assert label == {"header": None, "confidence": None, "modality": None, "use": "left_out"}
    assert summary["found"][-1]["reason"] == "a label, by its name"
    assert "2020" not in json.dumps([summary["asked"], summary["found"]])  # no name of a file


@pytest.mark.slow  # three predictions, and deepbet on two images
def test_heads_are_stripped_where_there_are_any(subject, tmp_path, capsys):
    images = {name: np.asarray(nib.load(subject / f"Doe_{name}.nii.gz").dataobj) for name in ("t1", "t2")}
    brains, study = tmp_path / "brains", tmp_path / "study"
    for folder, volumes in ((brains, images), (study, with_heads(images))):
        folder.mkdir()
        for name, voxels in volumes.items():
            nib.save(nib.Nifti1Image(voxels, LPS), folder / f"Doe_{name}.nii.gz")
    assert predict(brains, tmp_path / "expected", "m3ae") is None
    assert "cut out" not in capsys.readouterr().out
    assert predict(study, tmp_path / "found", "m3ae") is None
    said, page = capsys.readouterr().out, (tmp_path / "found" / "summary.html").read_text()
    (volume,) = re.findall(r"The brain \((\d+) ml\) was cut out of all images as deepbet found it in the T1 ", said)
    assert int(volume) == pytest.approx((images["t1"] > 0).sum() * SPACING**3 / 1000, rel=0.15)
    assert f"brain, cut out ({volume} ml)" in page
    assert "not skull-stripped" not in said
    found, expected = (np.asarray(nib.load(tmp_path / out / "label.nii.gz").dataobj) for out in ("found", "expected"))
    assert dice(found, expected)["WT"] > 0.9
    assert predict(study, tmp_path / "whole", "m3ae", "--skull_strip", "no") is None
    first, second = capsys.readouterr().out.partition("Warnings:\n  ")[2].splitlines()[:2]
    assert first == SYNTHETIC
    assert second.startswith("  T1 (image file), T2 (image file): not skull-stripped")
    assert "Do not trust the result" in second


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("{case} {out} --reference t2 --modalities t1", "--reference: t2 is not used; expected one of T1 (image file)"),
        ("{case} {out} --series t1=3", "there is no such file"),
        ("{case} {out} --modalities t1,pd", "Unknown modality 'pd'"),
        ("{case} {out} --recipe brats1900", "brats1900: no such file or recipe; the bundle has augmented, average,"),
        ("{case} {out} --ckpt_path absent.pt", "absent.pt: no such checkpoint"),
        ("{case} {out} --device tpu", "--device tpu"),
        ("{case} {out} --skull_strip maybe", "--skull_strip 'maybe': expected one of 'auto', 'yes', 'no'"),
        ("{case} {out} --decision best", "--decision 'best': expected one of 'threshold', 'expected_dice'"),
        ("{case} {case}/out", "lies in the study's folder; expected a folder outside it"),
        ("{case} {out} m4ae", "No bundle 'm4ae'; expected one of gss, m3ae"),
        ("{case}", "expected two folders, STUDY OUTPUT_DIR; or OUTPUT_DIR alone and the file of each"),
        ("{case} {out} --t1 {case}/Doe_t1.nii.gz", "or OUTPUT_DIR alone and the file of each"),
        ("{out} --t1 {case}/Doe_t1.nii.gz --each", "--each is for folders of studies"),
        ("{out} --t1 {case}", "/case: expected an image file; of DICOM series, give the study's folder"),
        ("{out} --t1 {case}/Doe_t1.nii.gz --t2 {case}/Doe_t1.nii.gz", "the same file as --t1; expected"),
        ("{out} --t1 absent.nii.gz", "absent.nii.gz: no such file"),
        ("{out} --t1 /dev/null", "/dev/null: expected an image file"),
        ("{case}/none {out} --each", "no such folder; expected one with a subfolder for each study."),
        ("{tmp} {out} --each", "no subfolder; expected one for each study."),
        ("{case} {out} --each", "5 images lie beside the subfolders; with --each"),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line_and_nothing_is_written(words, message, subject, tmp_path):
    (empty := tmp_path / "empty").mkdir()
    error = predict(*words.format(case=subject, out=tmp_path / "out", tmp=empty).split())
    assert error.startswith("error: ")
    assert message in error
    assert not list(tmp_path.glob("out/*"))
    assert not (subject / "out").exists()


def test_why_a_study_is_refused_stands_where_its_result_would_be(subject, tmp_path):
    """As JSON without names of files; an earlier result stays."""
    study, out = tmp_path / "study", tmp_path / "out"
    study.mkdir()
    image = nib.load(subject / "Doe_t2.nii.gz")
    nib.save(nib.Nifti1Image(np.zeros_like(image.dataobj), image.affine), study / "Doe_t2.nii.gz")
    (study / "Doe_t1.nii.gz").symlink_to(subject / "Doe_t1.nii.gz")
    error = predict(study, out, "m3ae")
    assert [path.name for path in out.iterdir()] == ["summary.json"]
    said = json.loads((out / "summary.json").read_text())
    jsonschema.validate(said, schema())
    assert "Doe" not in str(said)
    assert (said["answer"], said["code"], said["asked"]["reference"]) == ("refused", "unusable", None)
    assert f"error: {said['text']}" == error
    assert [(each["header"], each["use"]) for each in said["found"]] == [("t1", "undecided"), ("t2", "undecided")]
    with pytest.raises(ValueError, match=r"summary.json: the study was refused: image file"):
        read_document(out / "summary.json")
    (out / "summary.json").rename(out / "label.nii.gz")  # as an earlier result
    predict(study, out, "m3ae")
    assert [path.name for path in out.iterdir()] == ["label.nii.gz"]


def test_a_folder_is_refused_before_pytorch_is_loaded(tmp_path):
    (tmp_path / "empty").mkdir()
    program = f"""
import sys
from mmb.__main__ import main
for name in ("none", "empty"):
    sys.argv = ["mmb", "predict", "{tmp_path}/" + name, "{tmp_path}/out"]
    try:
        main()
    except SystemExit as end:
        print(end.code)
print(sorted({{"torch", "monai", "pandas", "scipy"}} & sys.modules.keys()))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    none, empty, slow = done.stdout.splitlines()
    assert none.endswith("none: no such folder; expected one with the DICOM or NIfTI files of a study.")
    assert "an empty folder" in empty
    assert slow == "[]"


def test_no_spreadsheet_computes_a_name(tmp_path):
    names = ['=HYPERLINK("http:evil","x")', "+cmd|' calc'!A0", "@SUM(1)", "-1+1", "a=b"]
    batch._write(tmp_path, [batch.Outcome(name, failure="no image") for name in names])
    rows = pd.read_csv(tmp_path / "studies.csv")
    assert [*rows.study] == [*(f"'{name}" for name in names[:4]), "a=b"]
    assert json.loads((tmp_path / "studies.json").read_text())[0]["study"] == names[0]


@pytest.mark.slow  # several segmentations
def test_a_bad_study_stops_nothing_and_nothing_is_done_twice(subject, tmp_path, capsys):
    """One study has no known sequence, and the name of another has spaces."""
    studies, out = tmp_path / "studies", tmp_path / "out"
    for place in ("a & b/c", "damaged", "good", "older"):
        (studies / place).mkdir(parents=True)
        (studies / place / "Doe_t2.nii.gz").symlink_to(subject / "Doe_t2.nii.gz")
    (studies / "bad").mkdir()
    (studies / "bad" / "notes.txt").write_text("no image")
    asked = (studies, out, "m3ae", "--each", "--decision", "expected_dice")
    assert predict(*asked) == "error: 1 of 5 studies were not segmented: bad; see studies.csv."
    said = capsys.readouterr().out
    assert re.search(r"In the study good:\n.*\nSegmenting; .*\nStudy 4:\n  good: segmented\n", said)
    assert f"bad: not segmented: {studies / 'bad'}: " in said
    made = {name: out / name / "label.nii.gz" for name in ("good", "a & b")}
    rows = pd.read_csv(out / "studies.csv").set_index("study")
    assert [*rows.index] == ["a & b", "bad", "damaged", "good", "older"]
    assert rows.failure["bad"].startswith(f"{studies / 'bad'}: ")
    assert (rows.answer["bad"], rows.remarks["bad"]) == ("refused", "unread")
    assert (rows.used["good"], rows.WT_verdict["good"]) == ("t2", "not reliable")
    for region, mask in regions(np.asarray(nib.load(made["good"]).dataobj)).items():  # whatever the decision
        assert rows[f"{region}_ml"]["good"] == pytest.approx(mask.sum() * SPACING**3 / 1000, rel=1e-6)

    # One was interrupted, a summary is damaged, and one is of a version that had other fields.
    times = {name: path.stat().st_mtime_ns for name, path in made.items()}
    made["good"].unlink()
    (out / "damaged" / "summary.json").write_text('{"schema_version": 1, ')
    older = json.loads((out / "older" / "summary.json").read_text())
    del older["schema_version"], older["remarks"]
    (out / "older" / "summary.json").write_text(json.dumps(older | {"warnings": ["Look at it."]}))
    record = json.loads((out / "studies.json").read_text())
    (out / "studies.json").write_text(
        json.dumps([{key: each[key] for key in ("study", "made_from", "failure")} for each in record])
    )
    shutil.rmtree(studies / "bad")
    capsys.readouterr()
    assert predict(*asked) is None
    said = capsys.readouterr().out
    for line in ("a & b: segmented before\n", "damaged: segmented\n", "good: segmented\n", "older: segmented\n"):
        assert line in said
    assert made["a & b"].stat().st_mtime_ns == times["a & b"]
    assert made["good"].stat().st_mtime_ns > times["good"]
    names = [one["study"] for one in json.loads((out / "studies.json").read_text())]
    assert names == ["a & b", "damaged", "good", "older"]
    assert pd.read_csv(out / "studies.csv").remarks.notna().all()


def test_a_foreign_calibration_is_refused_before_the_images_are_read(subject, tmp_path):
    shutil.copy(DEMO, tmp_path / "own.pt")
    of_others = DEMO.with_name("model_calibration.json").read_text()
    for text, message in (("a,b\n1,2\n", "not a calibration ("), (of_others, "a calibration of other weights")):
        (tmp_path / "own_calibration.json").write_text(text)
        error = predict(subject, tmp_path / "out", "m3ae", "--ckpt_path", tmp_path / "own.pt")
        assert error.startswith(f"error: {tmp_path / 'own_calibration.json'}: {message}")


def test_what_fails_at_the_end_leaves_the_earlier_results(studies, tmp_path, monkeypatch):
    def fail(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    for name in RESULTS.values():
        (tmp_path / name).write_text("of another run")
    monkeypatch.setattr("mmb.clinic.study.write_document", fail)
    with pytest.raises(OSError, match="No space left on device"):
        predict(studies[0], tmp_path, "m3ae", "--modalities", "t1c")
    left = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert left == dict.fromkeys(RESULTS.values(), "of another run")
