"""A site's table: what it decides, what goes before it, and what is refused."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import pandas as pd
import pytest
from dicom_studies import AGENT, LOCALIZER, MPRAGE, T1_SE, Scan, write_study
from run_tools import Here, run
from test_commands import FILE, ROOT

from common.cohorts.registry import PHANTOM
from common.io.files import file_digest
from common.modalities import GLIOMA
from mmb.clinic.examples.phantom import SERIES
from mmb.clinic.recognise.assign import assign_series
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.claims import read_headers
from mmb.clinic.recognise.evidence import UNKNOWN
from mmb.clinic.recognise.reading import read_folder
from mmb.clinic.recognise.record import Assignment
from mmb.clinic.recognise.site import SiteTable, read_site
from mmb.errors import StudyError
from mmb.server.app import App

Table = Mapping[str, Sequence[str]]
SCANS = (
    Scan(1, "t1", "localizer", LOCALIZER),
    Scan(2, "t1", "Kopf nativ", T1_SE),
    Scan(3, "flair", "Liquor XQ"),
    Scan(4, "t1c", "Kopf K-Mittel", T1_SE, spacing=(3, 3, 4)),
    Scan(5, "t1c", "Kopf K-Mittel MPR", T1_SE, image_type=("DERIVED", "SECONDARY", "MPR")),
)
"""A study with a FLAIR and two T1c that no vocabulary knows; the reformat has thinner slices."""


def table(content: Table) -> SiteTable:
    return SiteTable(tuple((kind, pattern) for kind, patterns in content.items() for pattern in patterns), "0" * 64)


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.fixture(scope="module")
def folder(phantom_subject, tmp_path_factory) -> Path:
    """`SCANS` as DICOM; tests must not change it."""
    folder = tmp_path_factory.mktemp("site") / "study"
    write_study(folder, phantom_subject, SCANS)
    return folder


def read(folder: Path, content: Table, **options: Any) -> Assignment:
    """Return what headers and the table decide."""
    headers = read_headers(folder, PHANTOM, site=table(content), **options)
    return assign_series(headers.candidates, headers.modalities)


def sources(found: Assignment) -> dict[str, str]:
    return {name: each.candidate.name for name, each in found.chosen.items()}


def line(found: Assignment, name: str) -> str:
    (record,) = (each for each in found.records if each.candidate.name == name)
    return record.line()


def test_it_decides_what_nobody_understands(folder):
    assert "flair" not in sources(read(folder, {"none": ["*mpr"]}))
    found = read(folder, {"flair": ["LIQUOR*"], "t1c": ["*k-mittel"]})
    assert sources(found) == {"t1": "series 2", "t1c": "series 4", "flair": "series 3"}
    assert found.chosen["flair"].reason.startswith("by the site's table; its header: not recognised")
    assert (found.chosen["flair"].stated_grade, found.chosen["t1c"].stated_grade) == (None, None)
    assert line(found, "series 4").startswith("series 4: T1c (by the site's table; its header: ")
    assert "t1c" not in sources(read(folder, {"t1c": ["*k-mitte"]}))  # a pattern is for the whole description


def test_a_bracket_is_itself():
    site = table({"t1c": ["*[KM]"]})
    described = ["T1 [km]", "T1 K", "T1 KM"]
    assert [site.says(each, UNKNOWN, "", "").modality for each in described] == ["t1c", None, None]


def test_none_leaves_out_and_goes_before_the_sequences(folder):
    found = read(folder, {"t1c": ["kopf*"], "flair": ["Liquor*"], "none": ["*nativ", "*mpr"]})
    assert sources(found) == {"t1c": "series 4", "flair": "series 3"}
    assert line(found, "series 2") == "series 2: left out: by the site's table."


def test_what_is_set_by_hand_goes_before(folder):
    content = {"t1c": ["*mittel*"], "flair": ["liquor*"], "t2": ["liquor*"]}
    found = read(folder, content, by_hand={"t1c": 2, "flair": 3})  # nor does it matter what the table says of series 3
    assert sources(found) == {"t1c": "series 2", "flair": "series 3"}
    assert line(found, "series 4").endswith("; not used, as requested.")
    assert sources(read(folder, {"t1c": ["*mittel"], "t1": ["*nativ"]}, modalities=["t1"])) == {"t1": "series 2"}


def test_what_headers_name_comes_after_it_and_what_they_exclude_after_its_others(phantom_subject, tmp_path):
    scans = [
        Scan(1, "t1c", "t1_mprage_KM", MPRAGE | AGENT),
        Scan(2, "t1c", "Kopf K-Mittel", T1_SE | AGENT),
        Scan(3, "t1c", "Kopf K-Mittel SUB", T1_SE | AGENT),  # the latest
    ]
    write_study(tmp_path, phantom_subject, scans)
    found = read(tmp_path, {"t1c": ["*mittel*"]})
    assert sources(found) == {"t1c": "series 2"}
    assert line(found, "series 1").endswith("; not used, since series 2 is named by the site's table.")
    assert line(found, "series 3").endswith("; not used, since series 2 is recognised more surely.")
    for number in (2, 3):
        sorted((tmp_path / f"00{number}").iterdir())[9].unlink()
    assert sources(read(tmp_path, {"t1c": ["*mittel*"]})) == {"t1c": "series 1"}  # the others lack a slice


def test_images_do_not_overrule_it(folder):
    headers = read_headers(folder, PHANTOM, site=table({"t1c": ["*mittel"], "t1": ["*nativ"], "none": ["*mpr"]}))
    seen = {"series 2": "t1c", "series 4": "t1"}  # exchanged, by what they show
    logs = {name: {kind: 0.0 if kind == shown else -9.0 for kind in (*GLIOMA, "other")} for name, shown in seen.items()}
    times = {"series 2": "20240102100000", "series 4": "20240102110000", "series 5": "20240102103000"}
    candidates = [replace(each, acquired=times.get(each.name, "")) for each in headers.candidates]
    chosen = assign_series(candidates, GLIOMA, logs).chosen
    assert {name: each.candidate.name for name, each in chosen.items()} == {"t1": "series 2", "t1c": "series 4"}
    both = read_headers(folder, PHANTOM, site=table({"t1c": ["kopf k*"], "none": ["*nativ"]})).candidates
    both = [replace(each, series=candidates[3].series, acquired=times.get(each.name, "")) for each in both[-2:]]
    both = [replace(each, reformatted=False, derived=False, corrections=0) for each in both]
    (t1c,) = assign_series(both, GLIOMA, logs).chosen.values()
    assert (t1c.candidate.name, t1c.grade) == ("series 4", Grade.OPEN)  # by half an hour the later one


def test_two_sequences_for_one_series_are_refused_and_no_pattern_is_public(folder):
    with pytest.raises(StudyError) as refused:
        read(folder, {"t1": ["kopf*"], "t1c": ["*secret*", "*Mittel*"]})
    assert refused.value.text.startswith("series 4: the site's table says T1c ('*Mittel*') and T1 ('kopf*')")
    assert refused.value.public.startswith("series 4: the site's table says T1")
    assert "*" not in refused.value.public


def test_a_pattern_that_fits_nothing_is_said(folder):
    content = {"t1c": ["*mittel", "*gado*"], "none": ["*mpr", "*navi*"]}
    found = read_folder(folder, PHANTOM, site=table(content))
    assert found.sources["t1c"] == "series 4"
    assert not [each for each in found.remarks if "pattern" in each.text]
    assert found.explanations[-2:] == [
        "The site's table: nothing here fits pattern 2 of t1c.",
        "The site's table: nothing here fits pattern 2 of none.",
    ]


def described(folder: Path, volumes: Mapping[str, nib.Nifti1Image], **descriptions: str) -> None:
    """Write image files of these names, with their SeriesDescriptions in JSON."""
    for (name, text), image in zip(descriptions.items(), volumes.values(), strict=False):
        nib.save(image, folder / f"{name}.nii.gz")
        (folder / f"{name}.json").write_text(json.dumps({"SeriesDescription": text}))


def test_image_files_are_compared_by_their_json_and_those_named_after_a_sequence_stay(phantom_volumes, tmp_path):
    described(tmp_path, phantom_volumes, s1="Kopf K-Mittel", s2="Kopf spät", x_flair="Kopf nativ", s1_mask="K-Mittel")
    found = read(tmp_path, {"t1c": ["*mittel"], "t2": ["*SPÄT"], "none": ["*nativ"]})
    assert sources(found) == {"t1c": "s1.nii.gz", "t2": "s2.nii.gz", "flair": "x_flair.nii.gz"}
    with pytest.raises(StudyError) as refused:
        read(tmp_path, {"t1c": ["*mittel"], "t2": ["kopf*"]})
    assert refused.value.text.startswith("s1.nii.gz: ")
    assert refused.value.public.startswith("image file: ")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"not JSON \(.*\); expected classes with lists of patterns, such as"),
        *((content, "no object with classes") for content in ("[]", "{}", '"t1"', [["t1", ["a"]]])),
        ({"t1d": ["a"]}, "unknown class 't1d', not one of t1, t1c, t2, flair, none"),
        ('{"t1": ["a"], "t1": ["b"]}', "'t1' is there twice"),
        *(({"t1": patterns}, "'t1' has no list of patterns") for patterns in ("a", {"a": "b"}, [])),
        ({"t1": ["a", 7]}, "'t1' has 7, which is no pattern"),
        ({"t1": [" "]}, "'t1' has ' ', which is no pattern"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_what_is_no_table_is_refused(content, message, tmp_path):
    with pytest.raises(ValueError, match=f"--site .*site.json: {message}"):
        read_site(written(tmp_path / "site.json", content))


def test_a_file_from_windows_is_read_and_one_that_is_not_there_is_refused(tmp_path):
    (tmp_path / "site.json").write_bytes(b'\xef\xbb\xbf{"none": ["*navi*"]}')
    assert read_site(tmp_path / "site.json").patterns == (("none", "*navi*"),)
    (tmp_path / "other.json").write_bytes(b'{"none": ["\xfc"]}')
    with pytest.raises(ValueError, match="not JSON"):
        read_site(tmp_path / "other.json")
    with pytest.raises(FileNotFoundError, match=r"--site .*: no such file"):
        read_site(tmp_path)


def test_the_example_of_the_guide_fits_the_phantoms_series(tmp_path):
    ((name, content),) = FILE.findall(Path(ROOT, "docs/segment.md").read_text())
    site = read_site(written(tmp_path / name, content))
    said = {each.description: site.says(each.description, UNKNOWN, "", "") for each in SERIES}
    by_table = {text: says.modality for text, says in said.items() if says.by_table}
    assert by_table == {"t1_mprage_tra_+C": "t1c", "t1_mprage_tra_SUB": None}


def test_many_studies_and_what_the_result_says_of_it(folder, tmp_path, capsys):
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "one").symlink_to(folder)
    site, out = tmp_path / "site.json", tmp_path / "out"

    def segment() -> str:
        options = ("--each", "--site", site, "--recipe", "phantom", "--device", "cpu", "--modalities", "t2,flair")
        assert run("predict", tmp_path / "studies", out, *options) is None
        return capsys.readouterr().out

    written(site, {"flair": ["liquor*"], "none": ["*Secret*"]})
    said = segment()
    assert "nothing here fits pattern 1 of none" in said
    assert [*pd.read_csv(out / "studies.csv").used] == ["flair"]
    text = (out / "one" / "summary.json").read_text()
    summary = json.loads(text)
    assert summary["asked"]["site"] == file_digest(site)
    (used,) = summary["used"]
    assert (used["confidence"], used["reason"].split(";")[0]) == (None, "by the site's table")
    assert "Secret" not in text + (out / "one" / "summary.html").read_text()
    assert "segmented before" in segment()
    written(site, {"t2": ["liquor*"]})
    assert "one: segmented\n" in segment()
    assert [*pd.read_csv(out / "studies.csv").used] == ["t2"]


def test_it_is_for_folders(phantom_subject, tmp_path):
    (flair,) = phantom_subject.glob("*_flair.nii.gz")
    site = written(tmp_path / "site.json", {"t2": ["*"]})
    error = run("predict", tmp_path / "out", "--flair", flair, "--site", site, "--recipe", "phantom", "--device", "cpu")
    assert error == "error: --site: the sequence of each of these image files is given; leave it out."


def test_the_server_uses_it_for_its_studies_and_for_those_that_are_sent(folder, tmp_path):
    site = table({"flair": ["liquor*"], "none": ["kopf*"]})
    app = App(str(folder.parent), ["m3ae"], "phantom", site=site)
    assert app.datastore.read_study("study").sources == {"flair": "series 3"}
    assert app.recognise_upload(Here(), folder.parent)["automatic"] == {"flair": "3"}
    assert app.models["m3ae"].options(app.segment_options()).site == site


def test_the_server_has_a_file_named_as_the_table_and_a_person_say(phantom_volumes, tmp_path):
    (tmp_path / "study").mkdir()
    described(tmp_path / "study", phantom_volumes, s1="Kopf K-Mittel", s2="Kopf spät")
    site = table({"t1c": ["*mittel"]})
    read = read_folder(tmp_path / "study", PHANTOM, by_hand={"t2": "s2.nii.gz"}, site=site)
    assert {name: each.candidate.key for name, each in read.used.items()} == {"t1c": "s1.nii.gz", "t2": "s2.nii.gz"}
