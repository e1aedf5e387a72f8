"""Sheets, cut apart again as the page's viewer does."""

from base64 import b64decode
from io import BytesIO

import numpy as np
import pytest
from PIL import Image
from small_lesion import lesion, regions

from mmb.clinic.study import sheets as module
from mmb.clinic.study.sheets import Sheets, sheets


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
    assert made.names == ["WT", "brain"]
    assert made.shape == (40, 50, 40)
    assert made.first == (49, 49, 10)
    assert (volume(made, made.masks) // made.unit == 2).sum() == brain.sum()


def test_what_browsers_cannot_hold_is_thinned_out(masks, monkeypatch):
    monkeypatch.setattr(module, "MOST_VOXELS", lesion().size)  # and two images at least are assumed
    image = np.arange(lesion().size, dtype=float).reshape(lesion().shape)
    made = sheets({"t1": image}, masks, (1, 1, 1), (0, 0, 0), [(6, 7, 8)])
    assert (made.step, made.shape, made.spacing) == (2, (10, 9, 8), (2, 2, 2))
    assert np.array_equal(volume(made, made.masks) > 0, masks["WT"][::2, ::2, ::2])
    assert made.first == (18, 16, 0)
    assert made.starts == [(9 - 3, 8 - 3, 4)]
