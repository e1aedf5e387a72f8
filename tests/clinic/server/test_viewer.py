"""The summary page in headless Chromium: its viewer scrolls, draws the regions, and gives way to pictures on paper."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import browser
import numpy as np
import pytest
from browser import Page, chromium

from mmb.clinic.report.lesions import lesions
from mmb.clinic.report.page import write_summary
from mmb.clinic.report.pictures import pictures
from mmb.clinic.report.result import StudySummary, UsedModality
from mmb.clinic.report.sheets import sheets

pytestmark = pytest.mark.skipif(not Path(browser.PROGRAM).is_file(), reason="Debian's package chromium")
BLUE, ORANGE = (0x56, 0xB4, 0xE9), (0xD5, 0x5E, 0x00)  # WT, ET
COUNT = """((name, colour) => {
  const canvas = document.querySelector(`canvas[data-name=${name}]`), count = [0, 0, 0, 0]; // left, right, top, bottom
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  for (let i = 0; i < pixels.length; i += 4)
    if (colour.every((value, k) => Math.abs(value - pixels[i + k]) < 12)) {
      count[+((i / 4) % canvas.width > canvas.width / 2)]++;
      count[2 + (i / 4 / canvas.width > canvas.height / 2)]++;
    }
  return count;
})"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory) -> Iterator[Page]:
    folder = tmp_path_factory.mktemp("viewer")
    grid = np.mgrid[:60, :70, :50].astype(float)
    distance = [sum((axis - at) ** 2 for axis, at in zip(grid, c, strict=True)) for c in ((15, 40, 35), (44, 30, 12))]
    masks = {"WT": (distance[0] < 81) | (distance[1] < 25), "TC": distance[0] < 49, "ET": distance[0] < 16}
    images = {name: 50 + np.random.default_rng(0).random(grid[0].shape) for name in ("t1c", "flair")}
    for image in images.values():
        image[0, 0, 0] = 0
    brain, stack, (spacing, origin) = images["t1c"] > 0, np.stack([*masks.values()]), ((1, 1, 1), (-30, -35, -20))
    pieces, specks = lesions(masks, np.diag([*spacing, 1]), brain, 5.0)
    summary = StudySummary(
        "A page", "m3ae", "1", f"model.pt, SHA-256 {4 * '0123456789abcdef'}",
        [UsedModality(name, "series 1", "header") for name in images],
        {"WT": 5.0, "TC": 2.0, "ET": 0.3}, pictures=pictures(images, stack, spacing), lesions=pieces, specks=specks,
        sheets=sheets(images, masks, spacing, origin, [piece.centre for piece in pieces]),
    )  # fmt: skip
    write_summary(summary, folder / "summary.html")
    with chromium(folder) as page:
        page.call("Network.enable")
        page.open((folder / "summary.html").as_uri())
        page.wait("document.documentElement.classList.contains('scrolls')")
        yield page


def position(tab: Page) -> str:
    return tab.evaluate("document.querySelector('output').value")


def choose(tab: Page, name: str, value: str) -> None:
    tab.evaluate(
        f"(() => {{ const field = document.querySelector('[name={name}]'); field.value = '{value}'; "
        "field.dispatchEvent(new Event('input', { bubbles: true })); })()"
    )


def reset(tab: Page) -> None:
    tab.evaluate("document.querySelector('[type=reset]').click()")
    tab.wait("document.querySelector('output').value.startsWith('36 of')")


def test_it_starts_at_the_largest_lesion_and_goes_where_it_is_told(tab):
    assert position(tab) == "36 of 50, S 15 mm"
    choose(tab, "slice", "0")
    assert position(tab) == "1 of 50, I 20 mm"
    tab.evaluate("document.querySelector('canvas').scrollIntoView({ block: 'center' })")
    x, y = tab.evaluate("(r => [r.x + 50, r.y + 50])(document.querySelector('canvas').getBoundingClientRect())")
    tab.call("Input.dispatchMouseEvent", type="mouseWheel", x=x, y=y, deltaX=0, deltaY=-300)
    tab.wait("document.querySelector('output').value.startsWith('4 of')", 10)
    for kind in ("mousePressed", "mouseReleased"):
        tab.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    for kind in ("keyDown", "keyUp"):
        tab.call("Input.dispatchKeyEvent", type=kind, key="ArrowRight", code="ArrowRight", windowsVirtualKeyCode=39)
    tab.wait("document.querySelector('output').value.startsWith('5 of')", 10)
    tab.evaluate("document.querySelector('[data-start=\"1\"]').click()")
    assert position(tab) == "13 of 50, I 8 mm"
    choose(tab, "plane", "coronal")
    assert position(tab) == "40 of 70, P 5 mm"
    choose(tab, "plane", "sagittal")
    assert position(tab) == "16 of 60, R 14 mm"
    reset(tab)


def test_regions_are_drawn_where_they_are_and_can_be_switched_off(tab):
    left, right, top, bottom = tab.evaluate(f"{COUNT}('FLAIR', {list(BLUE)})")
    assert right > 100 > left == 0  # a lesion of the patient's left is on the right
    assert top > 2 * bottom  # it lies in front of the middle
    lines = tab.evaluate(f"{COUNT}('T1c', {list(ORANGE)})")[1]
    choose(tab, "look", "filled")
    assert tab.evaluate(f"{COUNT}('T1c', {list(ORANGE)})")[1] > 3 * lines > 0
    tab.evaluate("document.querySelectorAll('[name=region]')[2].click()")
    assert tab.evaluate(f"{COUNT}('T1c', {list(ORANGE)})") == [0, 0, 0, 0]
    tab.evaluate("document.querySelectorAll('[name=region]')[2].click()")
    choose(tab, "opacity", "0")
    assert tab.evaluate(f"{COUNT}('T1c', {list(BLUE)})") == [0, 0, 0, 0]
    reset(tab)


RECORD = """(() => {
  const own = CanvasRenderingContext2D.prototype;
  window.told = [];
  for (const name of ["fillText", "fillRect"]) {
    const draw = own[name];
    own[name] = function (...given) {
      told.push([...given, this.canvas.width, this.canvas.height]);
      draw.apply(this, given);
    };
  }
})()"""


def test_letters_and_scale_bar(tab):
    tab.evaluate(RECORD)
    sheet = tab.evaluate("JSON.parse(document.querySelector('script[type=\"application/json\"]').textContent)")
    for plane, axis, sides in (("coronal", 0, "RLSI"), ("sagittal", 1, "APSI"), ("axial", 0, "RLAP")):
        tab.evaluate("told = []")
        choose(tab, "plane", plane)
        *letters, (_, _, length, _, width, _) = tab.evaluate("told.slice(-5)")
        at = {(round(x / w, 1), round(y / h, 1)): letter for letter, x, y, w, h in letters}
        assert "".join(at[place] for place in ((0, 0.5), (1, 0.5), (0.5, 0), (0.5, 1))) == sides
        shown = sheet["shape"][axis] * sheet["spacing"][axis]
        assert length / (width - 36) == pytest.approx(50 / shown, rel=0.02)
    reset(tab)


def test_it_fits_a_telephone_and_every_control_has_a_name(tab):
    tab.call("Emulation.setDeviceMetricsOverride", width=420, height=900, deviceScaleFactor=2, mobile=True)
    tab.evaluate("document.querySelector('details').open = true")
    assert tab.evaluate("document.documentElement.scrollWidth") == 420
    nodes = tab.call("Accessibility.getFullAXTree")["nodes"]
    roles = ("slider", "checkbox", "combobox", "button", "image")
    controls = [node for node in nodes if not node["ignored"] and node["role"]["value"] in roles]
    assert len(controls) > 10
    assert all(node["name"]["value"] for node in controls)
    tab.call("Emulation.setDeviceMetricsOverride", width=1400, height=900, deviceScaleFactor=1, mobile=False)


def test_paper_gets_the_pictures_and_all_details(tab):
    shown = "getComputedStyle(document.querySelector('%s')).display != 'none'"
    assert tab.evaluate(shown % "#viewer")
    assert not tab.evaluate(shown % ".printed")
    tab.call("Emulation.setEmulatedMedia", media="print")
    assert not tab.evaluate(shown % "#viewer")
    assert tab.evaluate(shown % ".printed")
    tab.call("Emulation.setEmulatedMedia", media="")
    tab.evaluate("document.querySelector('details').open = false")
    tab.call("Page.printToPDF")
    assert tab.evaluate("document.querySelector('details').open")
