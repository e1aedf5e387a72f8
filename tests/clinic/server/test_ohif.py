"""OHIF, from MONAI Label's package, in headless Chromium: results of requests are drawn in the right place."""

from __future__ import annotations

import json
import time
from pathlib import Path

import browser
import nibabel as nib
import numpy as np
import pytest
import requests
from archive_stack import Stack, uid
from browser import Page, chromium
from nibabel.affines import apply_affine
from orthanc import PLUGIN

pytestmark = pytest.mark.skipif(
    not (Path(browser.PROGRAM).is_file() and Path(PLUGIN).is_file()),
    reason="Debian's packages chromium, orthanc and orthanc-dicomweb",
)
DRAWN = """(() => {
  const drawn = services.segmentationService.getSegmentations().at(-1), sums = {};
  for (const id of drawn.representationData.Labelmap.imageIds) {
    const image = cornerstone.cache.getImage(id);
    const plane = cornerstone.metaData.get('imagePlaneModule', image.referencedImageId);
    image.voxelManager.getScalarData().forEach((value, i) => {
      if (!value) return;
      const right = (i % image.columns) * plane.columnPixelSpacing;
      const down = Math.floor(i / image.columns) * plane.rowPixelSpacing;
      const sum = (sums[drawn.segments[value].label] ??= [0, 0, 0, 0]);
      for (const k of [0, 1, 2])
        sum[k] += plane.imagePositionPatient[k] + right * plane.rowCosines[k] + down * plane.columnCosines[k];
      sum[3] += 1;
    });
  }
  return Object.fromEntries(
    Object.entries(sums).map(([label, [x, y, z, n]]) => [label, { voxels: n, middle: [x / n, y / n, z / n] }])
  );
})()"""
"""JavaScript: voxels of the newest segmentation by label, and their centre in the patient (mm, LPS)."""


@pytest.fixture(scope="module")
def page(stack, tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser")) as tab:
        yield tab


def press(page: Page, text: str) -> None:
    button = f"[...document.querySelectorAll('button')].find((b) => b.innerText == '{text}' && b.offsetParent)"
    page.wait(button)
    page.evaluate(f"{button}.click()")


def show(page: Page, series: str) -> None:
    """Show a series in the active viewport."""
    chosen = f"services.displaySetService.getActiveDisplaySets().find((d) => d.SeriesInstanceUID == '{series}')"
    page.wait(chosen)
    page.evaluate(
        f"(() => {{ const displaySetInstanceUIDs = [{chosen}.displaySetInstanceUID];"
        "const { viewportGridService } = services, viewportId = viewportGridService.getState().activeViewportId;"
        "viewportGridService.setDisplaySetsForViewports([{ viewportId, displaySetInstanceUIDs }]) })()"
    )
    time.sleep(5)


def connect(page: Page, stack: Stack, study: str) -> None:
    """Open a study in the mode with MONAI Label's panel, and connect the panel."""
    page.open(f"{stack.url}/ohif/monai-label?StudyInstanceUIDs={uid(study)}")
    page.wait("cornerstone.cache._volumeCache.size")
    page.wait("document.getElementById('monailabelServerURL')")
    time.sleep(5)  # the page is drawn more than once
    assert page.evaluate("document.getElementById('monailabelServerURL').value") == f"{stack.url}/"
    page.evaluate("document.getElementById('monailabelServerURL').closest('tr').querySelector('button').click(), 1")
    page.wait("services.segmentationService.getLabelmapVolume('1')")


def said(page: Page, text: str) -> None:
    """Wait until a notice contains this text."""
    page.wait(f"document.body.innerText.includes({json.dumps(text)})", 300)


def middle(label: nib.Nifti1Image, value: int) -> np.ndarray:
    return apply_affine(label.affine, np.argwhere(np.asarray(label.dataobj) == value).mean(axis=0)) * [-1, -1, 1]


def test_the_study_list_and_one_study(page, stack):
    page.open(f"{stack.url}/ohif/")
    press(page, "Confirm and Hide")
    for patient in ("SECRET-0815", "SECRET-4711", "SECRET-0042"):
        said(page, patient)
    page.open(f"{stack.url}/ohif/viewer?StudyInstanceUIDs={uid('two')}")
    page.wait("services.displaySetService.getActiveDisplaySets().length >= 2")
    studies = "[...new Set(services.displaySetService.getActiveDisplaySets().map((d) => d.StudyInstanceUID))]"
    assert page.evaluate(studies) == [uid("two")]


def test_the_panel_draws_what_the_server_found(page, stack, tmp_path):
    connect(page, stack, "four")
    press(page, "Run")
    page.wait(f"Object.keys({DRAWN}).length == 3", 300)
    drawn = page.evaluate(DRAWN)
    shown = page.evaluate("services.segmentationService.getLabelmapVolume('1').metadata.SeriesInstanceUID")
    query = {"image": shown, "output": "image"}
    (tmp_path / "label.nii.gz").write_bytes(requests.post(f"{stack.url}/infer/m3ae", params=query, timeout=300).content)
    label = nib.load(tmp_path / "label.nii.gz")
    for name, value in {"Necrotic core": 1, "Oedema": 2, "Enhancing tumour": 4}.items():
        assert drawn[name]["voxels"] == np.count_nonzero(np.asarray(label.dataobj) == value)
        assert np.allclose(drawn[name]["middle"], middle(label, value), atol=0.01)

    # The panel draws voxel by voxel on the series that was shown when it connected; it must not for another.
    show(page, uid("four", 3))
    press(page, "Run")
    said(page, "The panel draws on the series that was shown when it connected")
    assert page.evaluate(DRAWN) == drawn
