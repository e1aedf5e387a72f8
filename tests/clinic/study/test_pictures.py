"""Pictures of known images, decoded again."""

import base64
from io import BytesIO

import numpy as np
import pytest
from matplotlib.colors import to_rgb
from matplotlib.image import imread
from small_lesion import regions

from common.evaluation.report.slices import OUTLINES
from mmb.clinic.study.pictures import pictures


def test_pictures_are_in_radiological_view():
    image = np.full((20, 18, 16), 10.0)
    image[14:, 13:] = 100  # right and front, at all heights
    ((axial, _, _),) = planes({"t2": image}, np.zeros(image.shape, np.uint8))
    assert brightest(axial) == ("top", "left")
    image[:, :, :9] = 10  # now above only
    image[10:14, 13:, 10:] = 100  # in the sagittal plane through the middle, too
    ((_, _, sagittal),) = planes({"t2": image}, np.zeros(image.shape, np.uint8))
    assert brightest(sagittal) == ("top", "left")


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
        bright = grey > 0.9
        assert bright.mean() > 0.5
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


def brightest(panel: np.ndarray) -> tuple[str, str]:
    rows, columns = (part.mean() for part in np.nonzero(panel.mean(axis=2) > 0.9))
    return "top" if rows < panel.shape[0] / 2 else "bottom", "left" if columns < panel.shape[1] / 2 else "right"


def shows(panel: np.ndarray, colour: str) -> bool:
    return bool((np.abs(panel - to_rgb(colour)).max(axis=2) < 0.02).sum() > 20)
