"""Brains cut out of heads by deepbet, on the phantom at 3 mm."""

import re

import numpy as np
import pytest
import torch
from heads import with_heads

from common.cohorts.phantom.simulation import SPACING, simulate
from common.cohorts.registry import PHANTOM
from mmb.clinic.study.alignment import AlignedStudy
from mmb.clinic.study.grid import Image
from mmb.clinic.study.skull import find_brain, why_no_brain

CPU = torch.device("cpu")
ADULT = PHANTOM.brain_ml
RAS = np.diag([SPACING, SPACING, SPACING, 1.0])


@pytest.fixture(scope="module")
def brains() -> dict[str, np.ndarray]:
    """Images of a phantom case, in RAS."""
    return {name: image[::-1, ::-1] for name, image in simulate(1000 * 2023 + 29)[0].items()}


def aligned(images: dict[str, np.ndarray]) -> AlignedStudy:
    volumes = {name: Image(image.astype(np.float32), RAS) for name, image in images.items()}
    return AlignedStudy(volumes, {}, dict.fromkeys(images, 1.0), {"t2": "said before"})


def ellipsoid(*axes: float) -> np.ndarray:
    """Return the mask of an ellipsoid with these half-axes in mm on the phantom's grid."""
    places = [
        (np.arange(size) - (size - 1) / 2) * SPACING / axis for size, axis in zip((80, 80, 52), axes, strict=True)
    ]
    return sum(place**2 for place in np.meshgrid(*places, indexing="ij")) < 1


def uneven(mask: np.ndarray) -> np.ndarray:
    """Return a volume that varies within a mask and is 0 around it."""
    return np.where(mask, np.random.default_rng(0).uniform(50, 150, mask.shape), 0).astype(np.float32)


@pytest.mark.slow  # deepbet
def test_the_brain_in_a_head(brains):
    truth = brains["t1c"] > 0
    study = aligned(with_heads({"t1c": brains["t1c"]}))
    found = find_brain(study, ["t1c"], ADULT, CPU)
    assert (found.modality, found.agreement, found.doubts) == ("t1c", {"t1c": 1}, {})
    assert 2 * (found.mask & truth).sum() / (found.mask.sum() + truth.sum()) > 0.95
    assert found.millilitres == pytest.approx(found.mask.sum() * SPACING**3 / 1000)
    cut = study.cut_out(found.mask)
    assert cut.misplaced == study.misplaced
    image = np.asarray(cut.images["t1c"].dataobj)
    assert not image[~found.mask].any()
    assert np.array_equal(image[found.mask], np.asarray(study.images["t1c"].dataobj)[found.mask])


@pytest.mark.slow  # deepbet
def test_an_image_that_was_stripped_before_is_a_mask_too(brains):
    study = aligned(with_heads({"t2": brains["t2"]}) | {"t1": brains["t1"]})
    found = find_brain(study, ["t2"], ADULT, CPU)
    assert (found.modality, found.stripped) == ("t1", True)
    assert np.array_equal(found.mask, brains["t1"] > 0)
    assert 0.8 < found.agreement["t2"] < 1


@pytest.mark.slow  # deepbet on three images
def test_water_is_doubted_beside_a_head_and_refused_alone(brains):
    water = np.where(ellipsoid(75, 75, 75), 1000, np.random.default_rng(0).integers(1, 40, brains["t1"].shape))
    study = aligned({**with_heads({"t1c": brains["t1c"]}), "t1": water})
    found = find_brain(study, ["t1", "t1c"], ADULT, CPU)
    assert (found.modality, list(found.agreement)) == ("t1c", ["t1c"])
    assert re.fullmatch(r"what looks like a brain is as uniform as water .*", found.doubts["t1"])
    for others in ({}, {"t2": uneven(ellipsoid(40, 40, 40))}):  # that stripped image does not show a brain either
        with pytest.raises(ValueError, match=r"No brain was found .* T1: what looks like .* as uniform as water"):
            find_brain(aligned({"t1": water, **others}), ["t1"], ADULT, CPU)
    found = find_brain(aligned({"t1": water, "t2": brains["t2"]}), ["t1"], ADULT, CPU)
    assert (found.modality, found.stripped, list(found.doubts)) == ("t2", True, ["t1"])
    assert np.array_equal(found.mask, brains["t2"] > 0)


@pytest.mark.parametrize(
    ("mask", "said"),
    [
        (ellipsoid(65, 85, 65), None),
        (ellipsoid(65, 85, 65) & (np.arange(52) > 15) & (np.arange(52) < 25), None),
        (np.zeros((80, 80, 52), bool), "nothing looks like a brain"),
        (ellipsoid(40, 40, 40), "only 2[67][0-9] ml"),
        (ellipsoid(100, 110, 75), "has 3[34][0-9][0-9] ml"),
        (ellipsoid(110, 115, 500) & (np.arange(52) > 20) & (np.arange(52) < 32), "a section of (39|40)[0-9] cm2"),
        (ellipsoid(20, 115, 60) | ellipsoid(115, 20, 60), r"does not have its shape \(sphericity 0\.[67]\d\)"),
        (ellipsoid(65, 85, 65) & (abs(np.arange(80) - 40) > 6)[:, None, None], "is in 2 pieces"),
    ],
    ids=["brain", "slab", "nothing", "small", "large", "slab-of-a-trunk", "odd", "pieces"],
)
def test_what_is_no_brain_by_its_shape(mask, said):
    found = why_no_brain(mask, uneven(mask), [SPACING] * 3, ADULT)
    assert found is None if said is None else re.search(said, found)


def test_what_is_no_brain_by_its_contrast():
    mask, rng = ellipsoid(65, 85, 65), np.random.default_rng(0)
    for noise, said in ((0.03, "varies by 3%"), (0.1, None)):
        volume = (1000 * mask * (1 + noise * rng.standard_normal(mask.shape))).astype(np.float32)
        found = why_no_brain(mask, volume, [SPACING] * 3, ADULT)
        assert found is None if said is None else said in found
