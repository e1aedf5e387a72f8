"""The contents of the summary page."""

import base64
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest
from small_lesion import lesion, regions

from clinic.study.page import write_summary
from clinic.study.pictures import pictures
from clinic.study.result import StudySummary, UsedModality

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
SUMMARY = StudySummary(
    title="Brain tumour segmentation",
    bundle="m3ae",
    version="1.2.3",
    weights="own.pt, SHA-256 12ab",
    used=[UsedModality("t2", "series 4", "TE 100 ms", 0.93), UsedModality("flair", "series 5", "set by hand")],
    missing=["t1", "t1c"],
    volumes={"WT": 34.04, "TC": 13.6, "ET": 0.03},
    intervals={"WT": (22.81, 48.6, 0.9)},
    gains={"t1": {"WT": 0.01, "TC": -0.021}, "t1c": {"WT": 0.012, "TC": 0.04, "ET": 0.21}},
    pictures={"flair": base64.b64encode(b"a picture").decode()},
    warnings=["No T1c."],
    notes=["FLAIR was registered."],
    trained_on="39 cases <of adults>",
)


def page(tmp_path, summary: StudySummary) -> str:
    write_summary(summary, tmp_path / "summary.html")
    return (tmp_path / "summary.html").read_text(encoding="utf-8")


def rows(html: str) -> list[list[str]]:
    """Return the texts of the rows of all tables."""
    return [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall("<tr>.*?</tr>", html, re.DOTALL)
    ]


def test_values_appear(tmp_path):
    html = page(tmp_path, SUMMARY)
    found = rows(html)
    assert "<h1>Brain tumour segmentation</h1>" in html
    assert "<p>Segmented by m3ae 1.2.3 (own.pt) from T2, FLAIR; missing: T1, T1c.</p>" in html
    assert "Research only; not for clinical use." in html
    assert "<li>No T1c.</li>" in html
    assert "<p>Weights: own.pt, SHA-256 12ab. They were trained on 39 cases &lt;of adults&gt;.</p>" in html
    assert "<li>FLAIR was registered.</li>" in html
    assert ["Whole tumour (WT)", "34.0", "22.8 to 48.6 (90 %)"] in found
    assert ["Tumour core (TC)", "13.6", "–"] in found
    assert ["Enhancing tumour (ET)", "&lt; 0.1", "–"] in found  # an empty region would be 0.0
    assert ["T2", "series 4", "TE 100 ms", "93 %"] in found
    assert ["FLAIR", "series 5", "set by hand", "–"] in found
    assert ["T1c", "missing"] in found


def test_what_matters_first_stands_first_and_six_warnings_at_most(tmp_path):
    warnings = [f"Warning {number}." for number in range(8)]
    html = page(tmp_path, replace(SUMMARY, warnings=warnings))
    parts = ["not for clinical use", *warnings[:6], "Volumes", "<img", "Sequences", "Further remarks", *warnings[6:]]
    parts += ["What a missing sequence would add", "Geometry and preparation", "trained on"]
    places = [html.index(part) for part in parts]
    assert places == sorted(places)
    assert all(html.count(warning) == 1 for warning in warnings)
    assert "Further remarks" not in page(tmp_path, replace(SUMMARY, warnings=warnings[:6]))


@pytest.mark.slow  # a browser
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
def test_it_prints_on_two_pages(tmp_path):
    images = dict.fromkeys(("t1", "t1c", "t2", "flair"), lesion().astype(float))
    long = "T1c (series 3): " + "a warning of three lines, as the longest are; " * 6
    summary = replace(
        SUMMARY,
        used=[UsedModality(name, "series 4", long, 0.9) for name in images],
        missing=(),
        volumes={"WT": 34.0, "TC": 13.6, "ET": 0.03},
        pictures=pictures(images, regions(lesion()), (1, 1, 1)),
        warnings=[long] * 10,
        notes=[long] * 5,
    )
    page(tmp_path, summary)
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    pdf = tmp_path / "page.pdf"
    subprocess.run([*command, f"--print-to-pdf={pdf}", tmp_path / "summary.html"], check=True, timeout=120)
    assert len(re.findall(rb"/Type\s*/Page\b", pdf.read_bytes())) == 2


def test_needs_no_other_file(tmp_path):
    html = page(tmp_path, SUMMARY)
    assert re.findall(r'src="([^"]*)"', html) == [f"data:image/png;base64,{SUMMARY.pictures['flair']}"]
    assert not re.search(r"https?:|//|url\(|@import|<link|<script|href=", html)


def test_text_is_escaped(tmp_path):
    nasty = '<script>alert("1")</script> & $x$'
    used, nothing = [UsedModality("t2", nasty, nasty)], {"WT": 0.0}
    html = page(tmp_path, StudySummary(*[nasty] * 4, used, nothing, pictures={nasty: nasty}, notes=[nasty] * 2))
    assert "<script" not in html
    assert 'alert("' not in html
    # the weights are named twice
    assert html.count("&lt;script&gt;") + html.count("&lt;SCRIPT&gt;") == 2 + 2 + 2 + 2 + 3 + 2
    assert "&amp;amp;" not in html  # once, not twice


def test_what_is_certain_and_what_is_a_guess(tmp_path):
    html = page(tmp_path, replace(SUMMARY, expected_dice={"WT": 0.91, "TC": 0.31, "ET": 0.0}))
    assert [row[2] for row in rows(html)[1:4]] == ["certain (91 %)", "a guess (31 %)", "left out: improbable"]
    assert "that the network itself" in html


def test_same_summary_gives_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    images = {name: rng.random(lesion().shape) for name in ("t2", "flair")}
    for name in ("first.html", "second.html"):
        drawn = pictures(images, regions(lesion()), (1, 1, 1))
        write_summary(replace(SUMMARY, pictures=drawn), tmp_path / name)
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.html", "second.html"]


def test_what_is_empty_has_no_heading(tmp_path):
    headings = ("What a missing sequence would add", "interval", "<img", "Planes", "Warnings", "Geometry", "missing:")
    headings += ("They were trained on",)
    full, least = page(tmp_path, SUMMARY), replace(SUMMARY, missing=(), intervals={}, gains={}, pictures={}, notes=())
    least = replace(least, trained_on=None)
    assert all(heading in full for heading in headings)
    html = page(tmp_path, replace(least, warnings=()))
    assert [heading for heading in headings if heading in html] == []
    assert not re.search(r"<(ul|section|h2|caption|p)[^>]*>\s*</", html)
    assert "found no problem" in html
    assert "found no problem" in page(tmp_path, replace(SUMMARY, warnings=()))  # notes are no problems
    assert "found no problem" not in full
