"""Brains cut out of heads by deepbet, on the phantom at 3 mm."""

import re

import numpy as np
import pytest
import torch
from phantom_case import with_heads

from common.cohorts.phantom.simulation import SPACING, simulate
from common.cohorts.registry import PHANTOM
from mmb.clinic.head.alignment import AlignedStudy
from mmb.clinic.head.grid import Image
from mmb.clinic.head.skull import Brain, Masks, agreed, brain_mask, find_masks, run_deepbet, why_no_brain

CPU = torch.device("cpu")
ADULT = PHANTOM.brain_ml
RAS = np.diag([SPACING, SPACING, SPACING, 1.0])


@pytest.fixture(scope="module")
def brains() -> dict[str, np.ndarray]:
    """Images of a phantom case, in RAS."""
    return {name: image[::-1, ::-1] for name, image in simulate(1000 * 2023 + 29)[0].items()}


def aligned(images: dict[str, np.ndarray]) -> AlignedStudy:
    volumes = {name: Image(image.astype(np.float32), RAS) for name, image in images.items()}
    return AlignedStudy(volumes, {}, {"t2": "said before"})


def find_brain(study: AlignedStudy, heads: list[str]) -> Brain:
    return agreed(study, find_masks(study, heads, ADULT, CPU), ADULT)


def ellipsoid(*axes: float) -> np.ndarray:
    """Return the mask of an ellipsoid with these half-axes in mm on the phantom's grid."""
    sizes = zip((80, 80, 52), axes, strict=True)
    places = [(np.arange(size) - (size - 1) / 2) * SPACING / axis for size, axis in sizes]
    return sum(place**2 for place in np.meshgrid(*places, indexing="ij")) < 1


def uneven(mask: np.ndarray) -> np.ndarray:
    """Return a volume that varies within a mask and is 0 around it."""
    return np.where(mask, np.random.default_rng(0).uniform(50, 150, mask.shape), 0).astype(np.float32)


def check(said: str | None, *arguments) -> None:
    """Check whether, and why, a mask is that of no brain."""
    found = why_no_brain(*arguments)
    assert found is None if said is None else re.search(said, found)


@pytest.mark.slow  # deepbet on two images
def test_a_brain_is_found_in_a_head_and_none_in_water(brains, monkeypatch):
    """Water is doubted beside a head, and refused alone."""
    truth, seen = brains["t1c"] > 0, {}

    def look_once(volumes, device):
        seen.update(run_deepbet({name: volume for name, volume in volumes.items() if name not in seen}, device))
        return {name: seen[name] for name in volumes}

    monkeypatch.setattr("mmb.clinic.head.skull.run_deepbet", look_once)
    water = np.where(ellipsoid(75, 75, 75), 1000, np.random.default_rng(0).integers(1, 40, truth.shape))
    study = aligned({**with_heads({"t1c": brains["t1c"]}), "t1": water})
    found = find_brain(study, ["t1", "t1c"])
    assert (found.modality, found.agreement) == ("t1c", {"t1c": 1})
    assert 2 * (found.mask & truth).sum() / (found.mask.sum() + truth.sum()) > 0.95
    assert found.millilitres == pytest.approx(found.mask.sum() * SPACING**3 / 1000)
    assert re.fullmatch(r"what looks like a brain is as uniform as water .*", found.doubts["t1"])
    cut = study.cut_out(found.mask)
    assert cut.misplaced == study.misplaced
    image = np.asarray(cut.images["t1c"].dataobj)
    assert not image[~found.mask].any()
    assert np.array_equal(image[found.mask], np.asarray(study.images["t1c"].dataobj)[found.mask])
    for others in ({}, {"t2": uneven(ellipsoid(40, 40, 40))}):  # that stripped image does not show a brain either
        with pytest.raises(ValueError, match=r"No brain was found .* T1: what looks like .* as uniform as water"):
            find_brain(aligned({"t1": water, **others}), ["t1"])
    found = find_brain(aligned({"t1": water, "t2": brains["t2"]}), ["t1"])
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
    check(said, mask, uneven(mask), [SPACING] * 3, ADULT)


def voxels(*numbers: int) -> np.ndarray:
    """Return a mask of some of 16 voxels in a row."""
    return np.isin(np.arange(16), numbers).reshape(16, 1, 1)


def agreement_of(masks: dict[str, np.ndarray], heads: list[str] | None = None, brain_ml=ADULT):
    """Return the voxels of the brain that masks agree on, and the brain."""
    study = aligned({name: 100.0 * np.ones(mask.shape) for name, mask in masks.items()})
    brain = agreed(study, Masks([*masks] if heads is None else heads, masks, {}), brain_ml)
    return np.flatnonzero(brain.mask).tolist(), brain


def test_the_brain_is_the_best_mask_and_what_more_than_half_of_the_masks_hold():
    """Dice of T1 and T1c is 20/22, that of each with T2 22/24: sums of 1.826, 1.826 and 1.833 count as equal."""
    masks = {"t2": voxels(*range(13)), "t1c": voxels(*range(11)), "t1": voxels(*range(10), 12)}
    found, brain = agreement_of(masks)
    assert (found, brain.modality, brain.stripped) == ([*range(11), 12], "t1", False)  # not 11, which only T2 has
    assert brain.agreement == pytest.approx({"t1": 1, "t1c": 20 / 22, "t2": 22 / 24})
    assert brain.millilitres == pytest.approx(12 * SPACING**3 / 1000)


def test_one_of_two_masks_is_not_the_most():
    found, brain = agreement_of({"flair": voxels(*range(11)), "t1c": voxels(*range(10))}, heads=["flair"])
    assert (found, brain.modality, brain.stripped) == ([*range(10)], "t1c", True)


def test_the_mask_that_agrees_best_is_taken_before_the_preferred_one():
    found, brain = agreement_of({"t1": voxels(*range(5)), "t1c": voxels(*range(11)), "t2": voxels(*range(10))})
    assert (found, brain.modality) == ([*range(10)], "t2")  # sums of 1.29, 1.58 and 1.62


def test_masks_are_the_largest_piece_filled_and_the_foreground_of_what_was_stripped(monkeypatch):
    brain, hole = ellipsoid(65, 85, 65), ellipsoid(10, 10, 10)
    beside = np.zeros_like(brain)
    beside[:5, :5, :5] = True
    found_in = {"t1": (brain & ~hole) | beside, "flair": ellipsoid(40, 40, 40)}
    monkeypatch.setattr("mmb.clinic.head.skull.run_deepbet", lambda volumes, device: {n: found_in[n] for n in volumes})
    images = {"t1": uneven(np.ones_like(brain)), "flair": uneven(np.ones_like(brain)), "t2": uneven(brain & ~hole)}
    masks = find_masks(aligned(images), ["t1", "flair"], ADULT, CPU)
    assert list(masks.doubts) == ["flair"]
    assert {name: np.array_equal(mask, brain) for name, mask in masks.masks.items()} == {"t1": True, "t2": True}
    assert np.array_equal(brain_mask(aligned({"t1": 1.0 * brain, "t2": 1.0 * beside}), None), brain | beside)


def ball(radius: float, size: int = 30) -> np.ndarray:
    return sum((axis - (size - 1) / 2) ** 2 for axis in np.mgrid[:size, :size, :size]) < radius**2


BALL = ball(10)
ML = BALL.sum() * 0.027  # of voxels of 3 mm


@pytest.mark.parametrize(
    ("brain_ml", "said"),
    [((ML, ML / 1.24), None), ((ML, ML / 1.26), f"expected at most {1.25 * ML / 1.26:.0f} ml"),
     ((ML / 0.51, 10 * ML), None), ((ML / 0.49, 10 * ML), "only")],
)  # fmt: skip
def test_limits_of_a_brains_volume(brain_ml, said):
    check(said, BALL, uneven(BALL), [3, 3, 3], brain_ml)


@pytest.mark.parametrize(("ratio", "said"), [(1.36, None), (1.38, "a section of 83 cm2")])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_limits_of_a_slabs_section(ratio, said, axis):
    """Of 1.25 times the largest volume m, the section may be 1.37 (1.25 m)^(2/3)."""
    mask = np.moveaxis(np.hypot(*np.mgrid[-19:20, -19:20])[..., None] + np.zeros(4) < 17.1, 2, axis)
    spacing = np.insert([3.0, 3.0], axis, 5.0)
    section = mask.any(axis=axis).sum() * 0.09  # cm2
    check(said, mask, uneven(mask), spacing, (1, (100 * section / ratio) ** 1.5 / 1250))


@pytest.mark.parametrize(("height", "said"), [(6, r"\(sphericity 0\.74\)"), (6.9, None)])
def test_limits_of_a_brains_shape(height, said):
    """Half-axes of 30, 30 and h voxels have a sphericity of 3 r^(2/3) / (1 + 2 r), r = h / 30: about 0.73 and 0.77."""
    x, y, z = np.mgrid[-32:33, -32:33, -9:10]
    mask = (x / 30) ** 2 + (y / 30) ** 2 + (z / height) ** 2 <= 1
    check(said, mask, uneven(mask), [2, 2, 2], (1, 2000))


@pytest.mark.parametrize(("side", "said"), [((8, 8, 8), "in 2 pieces"), ((8, 8, 6), None)])
def test_limits_of_a_brains_pieces(side, said):
    """A ball of 4224 voxels beside a box of 512 or 384: 89 and 92 % are in the largest piece."""
    mask = np.pad(BALL, ((0, 12), (0, 0), (0, 0)))
    mask[tuple(slice(start, start + extent) for start, extent in zip((32, 10, 10), side, strict=True))] = True
    check(said, mask, uneven(mask), [3, 3, 3], (1, 2000))


@pytest.mark.parametrize(("variation", "said"), [(0.044, "varies by 4% in 15 mm"), (0.055, None)])
def test_limits_of_a_brains_contrast(variation, said):
    """Five voxels of 3 mm of a slope s have a standard deviation of s sqrt(18) mm."""
    mask = ellipsoid(65, 85, 65)
    slope = 1 + variation / 18**0.5 * ((np.arange(80) - 39.5) * SPACING)[:, None, None]
    check(said, mask, (1000 * mask * slope).astype(np.float32), [SPACING] * 3, ADULT)
