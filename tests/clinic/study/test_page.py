"""The contents of the summary page."""

import base64
import re
from base64 import b64decode
from dataclasses import replace
from hashlib import sha256
from io import BytesIO

import nibabel as nib
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from phantom_case import lesion, regions
from PIL import Image

from common.evaluation.report.slices import OUTLINES
from mmb.clinic.remark import Gravity, Remark
from mmb.clinic.report import sheets as module
from mmb.clinic.report.lesions import Lesion
from mmb.clinic.report.page import write_summary
from mmb.clinic.report.pictures import pictures, thumbnail
from mmb.clinic.report.result import StudySummary, UsedModality
from mmb.clinic.report.sheets import Sheets, sheets
from mmb.clinic.report.verdicts import Verdict

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
    pictures={"flair": base64.b64encode(b"a picture").decode()},
    remarks=[
        Remark("no_t1c", Gravity.WARNING, "No T1c.", ("t1c",)),
        Remark("registered", Gravity.NOTE, "FLAIR was registered.", ("flair",)),
    ],
    trained_on="39 cases <of adults>",
    verdicts={
        "WT": Verdict("usable for review"), "TC": Verdict("doubtful", "no T1c"), "ET": Verdict("not reliable", "no T1c")
    },
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
                 "Expected overlap (%)"):  # fmt: skip
        assert text in html
    for row in (
        ["Whole tumour (WT)", "34", "23 to 49", "81"],
        ["Tumour core (TC)", "14", "unknown", "60"],
        ["Enhancing tumour (ET)", "&lt; 0.1", "unknown", "31"],  # an empty region would be 0.0
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
    remarks = [Remark("a", Gravity.WARNING, warning) for warning in warnings]
    html = page(tmp_path, replace(SUMMARY, remarks=[*remarks, SUMMARY.remarks[1]]))
    parts = ["not for clinical use", *warnings[:6], "Volumes", "<img", "Further remarks", *warnings[6:]]
    parts += ["<details>", "Sequences", "How it was made", "trained on"]
    order = [html.index(part) for part in parts]
    assert order == sorted(order)
    assert all(html.count(warning) == 1 for warning in warnings)
    nothing = {"missing": (), "pictures": {}, "remarks": (), "verdicts": {}}
    nothing |= {"calibrated_on": 0}
    least = page(tmp_path, replace(SUMMARY, **nothing, trained_on=None))
    for heading in ("Further remarks", "intervals", "<img", "Warnings", "How it was made", "missing:"):
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
    assert "Without overlap: necrotic core 2.0 ml, oedema 20 ml, enhancing tumour 0.0 ml." in html


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
    remarks = [Remark(nasty, gravity, nasty) for gravity in (Gravity.WARNING, Gravity.NOTE)]
    html = page(tmp_path, StudySummary(*[nasty] * 4, used, volumes, pictures={nasty: nasty}, remarks=remarks))
    assert "<script" not in html
    assert 'alert("' not in html
    assert "&amp;amp;" not in html  # once, not twice


def test_pictures_cut_through_the_largest_piece():
    label = np.zeros((40, 40, 40), np.uint8)
    label[22:34, 22:34, 22:34] = 4
    label[24:32, 24:32, 24:32] = 0  # it is hollow, so its centre of mass lies outside of it
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
        box = [(bright.mean(axis=axis) > 0.2).sum() for axis in (1, 0)]  # letters are smaller
        assert box[0] / box[1] == pytest.approx(height / 20, rel=0.1)
        assert box[1] > 0.35 * panel.shape[1]


def test_the_letters_of_the_sides_are_seen_on_what_is_bright():
    image = np.full((40, 40, 40), 100.0)
    image[:20, 20:] = image[20:, :10] = 10  # bright at the letters
    (panels,) = planes({"t1": image}, np.zeros(image.shape, np.uint8))
    for panel in panels:
        rows, columns = panel.shape[:2]
        grey = panel[2 * rows // 5 : 3 * rows // 5, : columns // 2].mean(axis=2)
        assert (grey > 0.9).mean() > 0.5
        assert (grey < 0.1)[:, : columns // 5].sum() > 50  # the letter's edge


def planes(
    images: dict[str, np.ndarray], label: np.ndarray, spacing=(1, 1, 1), brain: np.ndarray | None = None
) -> list[tuple[np.ndarray, ...]]:
    """Return the axial, coronal and sagittal part of each picture, (rows, columns, RGB) in [0, 1]."""
    drawn = pictures(images, regions(label), spacing, brain)
    assert list(drawn) == list(images)
    panels = []
    for png in drawn.values():
        picture = imread(BytesIO(base64.b64decode(png, validate=True)))[..., :3]
        assert min(picture.shape[:2]) > 400
        right, middle = round(0.55 * picture.shape[1]), picture.shape[0] // 2
        panels.append((picture[:, :right], picture[:middle, right:], picture[middle:, right:]))
    return panels


def shows(panel: np.ndarray, colour: str) -> bool:
    return bool((np.abs(panel - to_rgb(colour)).max(axis=2) < 0.02).sum() > 20)


def volume(made: Sheets, content: str) -> np.ndarray:
    """Return a sheet as ``(X, Y, Z)``, RAS."""
    sheet, (x, y, z), tile = np.asarray(Image.open(BytesIO(b64decode(content)))), made.shape, made.tile
    corners = [(i // made.columns * tile[1], i % made.columns * tile[0]) for i in range(z)]
    return np.stack([sheet[row : row + y, column : column + x].T for row, column in corners], axis=2)[::-1, ::-1]


@pytest.fixture
def masks() -> dict[str, np.ndarray]:
    return dict(zip(("WT", "TC", "ET"), regions(lesion()), strict=True))


def test_masks_are_exact_and_images_nearly(masks):
    image = np.random.default_rng(0).random(lesion().shape).cumsum(axis=0)
    made = sheets({"t1": image}, masks, (1, 1, 2), (-5, -10, 30), [(6, 7, 8)])
    bits = volume(made, made.masks)
    for i, mask in enumerate(masks.values()):
        assert np.array_equal(bits // made.unit >> i & 1, mask)
    assert made.drawn == masks["WT"].sum()
    assert np.corrcoef(volume(made, made.images["t1"]).ravel(), image.ravel())[0, 1] > 0.98
    assert made.first == (-5 + 19, -10 + 17, 30)  # right, front, bottom
    assert made.starts == [(19 - 6, 17 - 7, 8)]
    assert made == sheets({"t1": image}, masks, (1, 1, 2), (-5, -10, 30), [(6, 7, 8)])


def test_an_extracted_brain_is_shown_without_the_face(masks):
    head, brain = np.ones((60, 60, 60)), np.zeros((60, 60, 60), bool)
    brain[20:40, 5:40, 20:40] = True
    made = sheets({"t1": head}, {"WT": np.zeros_like(brain)}, (1, 1, 1), (0, 0, 0), [], brain)
    assert (made.names, made.shape) == (["WT", "brain"], (40, 50, 40))
    assert made.first == (49, 49, 10)
    assert (volume(made, made.masks) // made.unit == 2).sum() == brain.sum()


def test_what_browsers_cannot_hold_is_thinned_out(masks, monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", lesion().size)  # and two images at least are assumed
    image = np.arange(lesion().size, dtype=float).reshape(lesion().shape)
    made = sheets({"t1": image}, masks, (1, 1, 1), (0, 0, 0), [(6, 7, 8)])
    assert (made.step, made.shape, made.spacing) == (2, (10, 9, 8), (2, 2, 2))
    assert np.array_equal(volume(made, made.masks) > 0, masks["WT"][::2, ::2, ::2])
    assert (made.first, made.starts) == ((18, 16, 0), [(9 - 3, 8 - 3, 4)])


def test_a_small_picture_shows_the_patients_right_on_the_left_and_the_front_at_the_top():
    voxels = np.full((20, 30, 7), 100.0)
    voxels[15:, 25:, 3] = 1000  # of axes to the right, front and head
    affine = np.diag([2.0, 2, 5, 1])
    turned = nib.Nifti1Image(voxels[::-1, ::-1], affine @ [[-1, 0, 0, 19], [0, -1, 0, 29], [0, 0, 1, 0], [0, 0, 0, 1]])
    for image in (nib.Nifti1Image(voxels, affine), turned):
        shown = np.asarray(Image.open(BytesIO(b64decode(thumbnail(image, 2)))))
        assert max(shown.shape) == 160
        assert shown[:50, :50].min() > 200
        assert max(shown[:, -30:].max(), shown[-30:].max()) < 50
