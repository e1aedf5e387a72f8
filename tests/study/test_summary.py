"""The summary as a reader opens it, and its warnings on label maps whose faults are known."""

import base64
import re
from dataclasses import replace
from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread

from common.evaluation.report.slices import OUTLINES
from common.modalities import LabelSet, tumour_labels
from common.study.summary import StudySummary, UsedModality, pictures, quality_warnings, volumes, write_summary

LABELS = tumour_labels(NCR=1, ED=2, ET=4)
ALL = ("t1", "t1c", "t2", "flair")
SUMMARY = StudySummary(
    title="Brain tumour segmentation",
    bundle="m3ae",
    version="1.2.3",
    used=[
        UsedModality("t2", "series 4", "TE 100 ms", 0.93),
        UsedModality("flair", "series 5", "set by hand"),
    ],
    missing=["t1", "t1c"],
    volumes={"WT": 34.04, "TC": 13.6, "ET": 0.03},
    intervals={"WT": (22.81, 48.6, 0.9), "TC": (0.0, float("inf"), 0.9)},
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
    """The texts of all tables' rows."""
    return [
        [re.sub("<[^>]*>", "", cell) for cell in re.findall(r"<t[hd].*?</t[hd]>", row)]
        for row in re.findall("<tr>.*?</tr>", html, re.DOTALL)
    ]


def lesion() -> np.ndarray:
    """A tumour of 6 x 6 x 6 voxels with a core of 4 x 4 x 4 that enhances around 2 x 2 x 2 of necrosis."""
    label = np.zeros((20, 18, 16), np.uint8)
    label[4:10, 5:11, 6:12], label[5:9, 6:10, 7:11], label[6:8, 7:9, 8:10] = 2, 4, 1
    return label


def test_values_appear(tmp_path):
    html = page(tmp_path, SUMMARY)
    found = rows(html)
    assert "<h1>Brain tumour segmentation</h1>" in html
    assert "<p>m3ae 1.2.3, from T2, FLAIR; without T1, T1c.</p>" in html
    assert "Research only; not for clinical use." in html
    assert "<li>No T1c.</li>" in html
    assert "<p>The weights were trained on 39 cases &lt;of adults&gt;.</p>" in html
    assert "<li>FLAIR was registered.</li>" in html
    assert ["Whole tumour (WT)", "34.0", "22.8 to 48.6 (90 %)"] in found
    assert ["Tumour core (TC)", "13.6", "not known: too few calibration cases"] in found
    assert ["Enhancing tumour (ET)", "&lt; 0.1", "–"] in found  # none would be 0.0
    assert found.index(["T1c", "+1.2", "+4.0", "+21.0"]) < found.index(["T1", "+1.0", "−2.1", "–"])
    assert ["T2", "series 4", "TE 100 ms", "93 %"] in found
    assert ["FLAIR", "series 5", "set by hand", "–"] in found
    assert ["T1c", "missing"] in found


def test_needs_no_other_file(tmp_path):
    html = page(tmp_path, SUMMARY)
    assert re.findall(r'src="([^"]*)"', html) == [f"data:image/png;base64,{SUMMARY.pictures['flair']}"]
    assert not re.search(r"https?:|//|url\(|@import|<link|<script|href=", html)


def test_text_is_escaped(tmp_path):
    nasty = '<script>alert("1")</script> & $x$'
    nothing = {"WT": 0.0}
    html = page(
        tmp_path,
        StudySummary(
            nasty, nasty, nasty, [UsedModality("t2", nasty, nasty)], nothing, pictures={nasty: nasty}, notes=[nasty] * 2
        ),
    )
    assert "<script" not in html
    assert 'alert("' not in html
    assert html.count("&lt;script&gt;") + html.count("&lt;SCRIPT&gt;") == 2 + 2 + 2 + 3 + 2
    assert "&amp;amp;" not in html  # once, not twice


def test_same_summary_gives_the_same_bytes(tmp_path):
    rng = np.random.default_rng(0)
    images = {name: rng.random(lesion().shape) for name in ("t2", "flair")}
    for name in ("first.html", "second.html"):
        drawn = pictures(images, lesion(), LABELS, (1, 1, 1))
        write_summary(replace(SUMMARY, pictures=drawn), tmp_path / name)
    assert (tmp_path / "first.html").read_bytes() == (tmp_path / "second.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["first.html", "second.html"]


def test_what_is_empty_has_no_heading(tmp_path):
    headings = ("What a missing sequence would add", "interval", "<img", "Planes", "Warnings", "Geometry", "without")
    headings += ("trained",)
    full, least = page(tmp_path, SUMMARY), replace(SUMMARY, missing=(), intervals={}, gains={}, pictures={}, notes=())
    least = replace(least, trained_on=None)
    assert all(heading in full for heading in headings)
    html = page(tmp_path, replace(least, warnings=()))
    assert [heading for heading in headings if heading in html] == []
    assert not re.search(r"<(ul|section|h2|caption|p)[^>]*>\s*</", html)
    assert "found nothing doubtful" in html
    assert "found nothing doubtful" in page(tmp_path, replace(SUMMARY, warnings=()))  # what is known of it is no doubt
    assert "found nothing doubtful" not in full


def test_volumes_in_ml():
    # 216, 64 and 56 voxels of 6 mm3
    assert volumes(lesion(), LABELS, (1, 2, 3)) == pytest.approx({"WT": 1.296, "TC": 0.384, "ET": 0.336})


def test_nothing_to_doubt():
    assert quality_warnings(lesion(), probabilities(0.99), ALL, LABELS, (1, 1, 1)) == []
    assert quality_warnings(lesion(), None, ALL, LABELS, (1, 1, 1)) == []


@pytest.mark.parametrize("enhancing", [True, False])
def test_without_t1c_enhancing_tumour_is_a_guess(enhancing):
    label, without = lesion(), ("t2", "t1")
    if not enhancing:
        label[label == 4] = 1
    (said,) = quality_warnings(label, None, without, LABELS, (2, 2, 2))
    assert said.startswith("No T1c: ")
    assert ("(0.4 ml) is a guess" in said) == enhancing  # 56 voxels of 8 mm3
    assert ("cannot be ruled out" in said) != enhancing
    other = LabelSet({"scar": 1}, {"scar": ("scar",)})
    assert quality_warnings(lesion() // 4, None, without, other, (2, 2, 2)) == []  # no region that T1c would show


def test_nothing_segmented():
    empty = np.zeros((8, 8, 8), np.int16)
    with_t1c = quality_warnings(empty, np.zeros((3, 8, 8, 8)), ALL, LABELS, (1, 1, 1))
    assert len(with_t1c) == 1
    assert "Nothing was segmented" in with_t1c[0]
    without = quality_warnings(empty, None, ["t2"], LABELS, (1, 1, 1))
    assert without[0] == with_t1c[0]
    assert "cannot be ruled out" in without[1]


@pytest.mark.parametrize(
    ("coins", "unsure"), [(28, "enhancing tumour (0.51)."), (40, "tumour core (0.52), enhancing tumour (0.59).")]
)
def test_unsure(coins, unsure):
    # Of 56 voxels of ET: 28 at 0.5 (log 2) and 28 at 0.9 (0.3251), mean 0.5091, or 40 and 16, mean 0.5880. With 8 of
    # NCR at 0.99 (0.0560), TC has 0.4525 or 0.5215; WT, with 152 more, 0.1741 or 0.1939.
    given = probabilities(0.99)
    enhancing = np.argwhere(lesion() == 4)
    for part, value in ((enhancing[:coins], 0.5), (enhancing[coins:], 0.9)):
        given[:, *part.T] = value
    assert (len(enhancing), given.shape) == (56, (3, 20, 18, 16))
    given[:, 0] = 0.5  # far from what was drawn
    (said,) = quality_warnings(lesion(), given, ALL, LABELS, (1, 1, 1))
    assert f"unsure of what it drew as {unsure}" in said
    with pytest.raises(ValueError, match=r"shape \(1, 20, 18, 16\); expected \(3, 20, 18, 16\).*WT, TC, ET"):
        quality_warnings(lesion(), given[:1], ALL, LABELS, (1, 1, 1))


@pytest.mark.parametrize(
    ("voxel", "side"),
    [
        ((0, 8, 8), "left"),
        ((19, 8, 8), "right"),
        ((8, 0, 8), "posterior"),
        ((8, 17, 8), "anterior"),
        ((8, 8, 0), "inferior"),
        ((8, 8, 15), "superior"),
    ],
    ids=["left", "right", "posterior", "anterior", "inferior", "superior"],
)
def test_lesion_at_the_edge(voxel, side):
    label = lesion()
    label[voxel] = 2
    (said,) = quality_warnings(label, None, ALL, LABELS, (1, 1, 1))
    assert f"edge of the image ({side})" in said


def test_small_pieces_are_not_warned_of_however_many():
    label = np.zeros((30, 18, 16), np.uint8)
    label[4:12, 5:13, 4:12] = 2
    label[12, 13, 12] = 2  # shares a corner
    label[2:28:2, 2, 2] = label[2:28:2, 15, 2] = 2
    assert quality_warnings(label, None, ALL, LABELS, (1, 1, 1)) == []  # 26 voxels of 539 in pieces of 1
    label[14:17:2, 5, 5] = 2  # 28 of 541
    (said,) = quality_warnings(label, None, ALL, LABELS, (1, 1, 1))
    assert "in 29 separate pieces" in said


def test_many_pieces():
    label = lesion()
    label[2:18:2, 2, 2] = label[2:18:2, 15, 2] = 1
    (said,) = quality_warnings(label, None, ALL, LABELS, (1, 1, 1))
    assert "in 17 separate pieces, the largest with 93 % of its volume" in said  # 216 of 232 voxels


def test_two_large_pieces():
    label = lesion()
    label[14:18, 5:9, 6:10] = 2
    (said,) = quality_warnings(label, None, ALL, LABELS, (1, 1, 1))
    assert "in 2 separate pieces, the largest with 77 % of its volume" in said  # 216 of 280 voxels


def test_pictures_are_in_radiological_view():
    image = np.full((20, 18, 16), 10.0)
    image[14:, 13:] = 100  # right and front, at all heights
    ((axial, _, _),) = planes({"t2": image}, np.zeros(image.shape, np.uint8))
    assert brightest(axial) == ("top", "left")
    image[:, :, :9] = 10  # now above only
    image[10, 13:, 10:] = 100  # in the sagittal plane through the middle
    ((_, _, sagittal),) = planes({"t2": image}, np.zeros(image.shape, np.uint8))
    assert brightest(sagittal) == ("top", "left")


def test_pictures_cut_through_the_largest_piece():
    label = np.zeros((40, 40, 40), np.uint8)
    label[22:34, 22:34, 22:34] = 4
    label[24:32, 24:32, 24:32] = 0  # hollow: its centre of mass is not in it
    label[3:6, 3:6, 3:6] = 2
    images = {name: np.random.default_rng(0).random(label.shape) for name in ("t1c", "flair")}
    for drawn in planes(images, label):
        for panel in drawn:
            assert shows(panel, OUTLINES[2])  # ET
    for drawn in planes(images, np.zeros_like(label)):
        assert not any(shows(panel, colour) for panel in drawn for colour in OUTLINES)


def test_pictures_are_cut_to_the_head_and_keep_its_proportions():
    image = np.zeros((60, 60, 60))
    image[20:40, 25:35, 5:10] = 50  # 20 x 10 x 20 mm
    ((axial, coronal, _),) = planes({"t2": image}, np.zeros(image.shape, np.uint8), spacing=(1, 1, 4))
    for panel, height in ((axial, 10), (coronal, 20)):
        bright = panel.mean(axis=2) > 0.9
        box = np.ptp(np.argwhere(bright), axis=0) + 1
        assert box[0] / box[1] == pytest.approx(height / 20, rel=0.1)
        assert box[1] > 0.4 * panel.shape[1]


def probabilities(sure: float) -> np.ndarray:
    """Of the three regions of `lesion`: so sure inside, as sure outside."""
    regions = np.stack([lesion() > 0, np.isin(lesion(), (1, 4)), lesion() == 4])
    return np.where(regions, sure, 1 - sure)


def planes(images: dict[str, np.ndarray], label: np.ndarray, spacing=(1, 1, 1)) -> list[tuple[np.ndarray, ...]]:
    """The axial, coronal and sagittal part of each picture, (rows, columns, RGB) in [0, 1]."""
    drawn = pictures(images, label, LABELS, spacing)
    assert list(drawn) == list(images)
    panels = []
    for png in drawn.values():
        picture = imread(BytesIO(base64.b64decode(png, validate=True)))[..., :3]
        assert min(picture.shape[:2]) > 400
        right, middle = round(0.55 * picture.shape[1]), picture.shape[0] // 2
        panels.append((picture[:, :right], picture[:middle, right:], picture[middle:, right:]))
    return panels


def brightest(panel: np.ndarray) -> tuple[str, str]:
    rows, columns = (part.mean() for part in np.nonzero(panel.mean(axis=2) > 0.9))
    return "top" if rows < panel.shape[0] / 2 else "bottom", "left" if columns < panel.shape[1] / 2 else "right"


def shows(panel: np.ndarray, colour: str) -> bool:
    return bool((np.abs(panel - to_rgb(colour)).max(axis=2) < 0.02).sum() > 20)
