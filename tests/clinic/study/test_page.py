"""The contents of the summary page."""

import base64
import re
from dataclasses import replace
from hashlib import sha256

import numpy as np

from mmb.clinic.study.lesions import Lesion
from mmb.clinic.study.page import write_summary
from mmb.clinic.study.result import StudySummary, UsedModality
from mmb.clinic.study.sheets import sheets
from mmb.clinic.study.verdicts import Verdict

SUMMARY = StudySummary(
    title="Brain tumour segmentation",
    bundle="m3ae",
    version="1.2.3",
    weights="own.pt, SHA-256 12ab",
    used=[UsedModality("t2", "series 4", "TE 100 ms", "sure"), UsedModality("flair", "series 5", "set by hand")],
    missing=["t1", "t1c"],
    volumes={"WT": 34.04, "TC": 13.6, "ET": 0.03},
    expected_dice={"WT": 0.81, "TC": 0.6, "ET": 0.31},
    intervals={"WT": (22.81, 48.6)},
    with_further={"t1c": {"WT": 0.83, "TC": 0.7, "ET": 0.72}, "t1": {"WT": 0.82, "TC": 0.59}},
    pictures={"flair": base64.b64encode(b"a picture").decode()},
    warnings=["No T1c."],
    notes=["FLAIR was registered."],
    trained_on="39 cases <of adults>",
    verdicts={
        "WT": Verdict("usable for review"), "TC": Verdict("doubtful", "no T1c"), "ET": Verdict("not reliable", "no T1c")
    },
    chances={"WT": 0.77, "TC": 0.2, "ET": 0.04},
    usable_right={"WT": (139, 146), "TC": (39, 46), "ET": (0, 0)},
    intervals_held={"WT": (149, 189), "TC": (90, 117), "ET": (53, 68)},
    measured={"WT": 0.9, "TC": 0.4, "ET": 0.2},
    tested=9,
    calibrated_on=14,
)  # fmt: skip


def page(tmp_path, summary: StudySummary) -> str:
    write_summary(summary, tmp_path / "summary.html")
    return (tmp_path / "summary.html").read_text(encoding="utf-8")


def rows(html: str) -> list[list[str]]:
    """Return the texts of the rows of all tables."""
    return [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall("<tr>.*?</tr>", html, re.DOTALL)
    ]


def test_values_appear_and_no_other_file_is_needed(tmp_path):
    html = page(tmp_path, SUMMARY)
    cells = rows(html)
    for text in ("<h1>Brain tumour segmentation</h1>", "Research only; not for clinical use.", "<li>No T1c.</li>",
                 "<p>Segmented by m3ae 1.2.3 (own.pt) from T2, FLAIR; missing: T1, T1c.</p>",
                 "SHA-256 12ab. They were trained on 39 cases &lt;of adults&gt;.</p>", "<li>FLAIR was registered.</li>",
                 '<p class="usable-for-review"><strong>Whole tumour</strong>: <strong>usable for review</strong></p>',
                 '<strong>not reliable</strong> (no T1c)',
                 "not calibrated on: WT 149 of 189 (79 %), TC",
                 "80 % or more had: WT 139 of 146 (95 %), TC 39 of 46 (85 %), ET none.",
                 "mean of 9 test cases"):  # fmt: skip
        assert text in html
    for row in (
        ["Whole tumour (WT)", "34.0", "22.8 to 48.6", "81", "77", "90"],
        ["Tumour core (TC)", "13.6", "unknown", "60", "20", "40"],
        ["Enhancing tumour (ET)", "&lt; 0.1", "unknown", "31", "4", "20"],  # an empty region would be 0.0
        ["none", "81", "60", "31"],
        ["T1c", "83", "70", "72"],
        ["T1", "82", "59", "–"],
        ["T2", "series 4", "TE 100 ms", "sure"],
        ["FLAIR", "series 5", "set by hand", "–"],
        ["T1c", "missing", "", ""],
    ):
        assert row in cells
    assert re.findall(r'src="([^"]*)"', html) == [f"data:image/png;base64,{SUMMARY.pictures['flair']}"]
    assert not re.search(r"https?:|//|url\(|@import|<link|<script|href=", html)
    assert page(tmp_path, SUMMARY) == page(tmp_path, SUMMARY)


def test_what_matters_first_stands_first_six_warnings_at_most_and_nothing_empty(tmp_path):
    warnings = [f"Warning {number}." for number in range(8)]
    html = page(tmp_path, replace(SUMMARY, warnings=warnings))
    parts = ["not for clinical use", *warnings[:6], "Volumes", "<img", "Further remarks", *warnings[6:]]
    parts += ["With a further sequence", "<details>", "Sequences", "Geometry and preparation", "trained on"]
    order = [html.index(part) for part in parts]
    assert order == sorted(order)
    assert all(html.count(warning) == 1 for warning in warnings)
    nothing = {"missing": (), "with_further": {}, "pictures": {}, "notes": (), "warnings": (), "verdicts": {}}
    nothing |= {"chances": {}, "measured": {}, "calibrated_on": 0}
    least = page(tmp_path, replace(SUMMARY, **nothing, trained_on=None))
    for heading in (
        "Further remarks",
        "further sequence",
        "intervals",
        "Chance",
        "<img",
        "Warnings",
        "Geometry",
        "missing:",
    ):
        assert heading not in least
    assert not re.search(r"<(ul|section|h2|caption|p)[^>]*>\s*</", least)
    assert "found no problem" in least
    assert "found no problem" not in html


def test_lesions_and_classes(tmp_path):
    many = [Lesion(5.0 - i / 10, "left", (1, 2, 3)) for i in range(10)]
    html = page(tmp_path, replace(SUMMARY, lesions=many, specks=3, classes={"NCR": 2.0, "ED": 20.4, "ET": 0.0}))
    assert ["1", "left", "5.0"] in rows(html)
    assert "Lesions: 10<" in html
    assert "Smaller lesions not listed: 2." in html
    assert "specks of less than 0.1 ml: 3." in html
    assert "Without overlap: necrosis 2.0 ml, oedema 20.4 ml, enhancing tumour 0.0 ml." in html


def test_only_the_pages_own_script_may_run(tmp_path):
    shown = sheets({"t2": np.ones((4, 4, 4))}, {"WT": np.zeros((4, 4, 4), bool)}, (1, 1, 1), (0, 0, 0), [])
    html = page(tmp_path, replace(SUMMARY, sheets=shown))
    (policy,) = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', html)
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert f"script-src 'sha256-{base64.b64encode(sha256(script.encode()).digest()).decode()}';" in policy
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_text_is_escaped(tmp_path):
    nasty = '<script>alert("1")</script> & $x$'
    used, volumes = [UsedModality("t2", nasty, nasty)], {"WT": 0.0}
    html = page(tmp_path, StudySummary(*[nasty] * 4, used, volumes, pictures={nasty: nasty}, notes=[nasty] * 2))
    assert "<script" not in html
    assert 'alert("' not in html
    assert "&amp;amp;" not in html  # once, not twice
