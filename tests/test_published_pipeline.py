"""Steps before and after the networks of RFNet's family, compared with numbers of the published code."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from monai import transforms
from monai.data import MetaTensor

from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.overlap import Reference
from common.modalities import presence, tumour_labels
from common.transforms import NormalizeBrainIntensityd

GOLDEN = np.load(Path(__file__).parent / "golden" / "brats_pipeline.npz")
LABELS = tumour_labels(NCR=1, ED=2, ET=3)
CASES = ("random", "few_et_predicted", "et_absent_truth_few_predicted", "et_absent_both", "prediction_empty")


def test_normalisation():
    low, high, shape = GOLDEN["pre_lo"], GOLDEN["pre_hi"], GOLDEN["pre_shape"]
    volume = np.zeros((4, *shape), np.float32)
    rng = np.random.default_rng([json.loads(str(GOLDEN["meta"]))["seed"], 60])
    volume[(slice(None), *map(slice, low, high))] = rng.uniform(50, 600, (4, *(high - low)))
    bounds = GOLDEN["pre_bounds"]
    cropped = volume[(slice(None), *map(slice, bounds[::2], bounds[1::2]))]
    assert cropped.shape == tuple(GOLDEN["pre_cropped_shape"])
    found = NormalizeBrainIntensityd("image")({"image": MetaTensor(cropped)})["image"].numpy()
    np.testing.assert_allclose(found[:, 0, 0, 0], GOLDEN["pre_first_voxel"], rtol=1e-5)  # background, not 0
    np.testing.assert_allclose(found[:, ::16, ::16, ::16], GOLDEN["pre_sub"], atol=1e-5)
    exact = found.astype(np.float64).reshape(4, -1)
    stats = [exact.mean(1), exact.std(1), np.abs(exact).sum(1), exact.min(1), exact.max(1)]
    np.testing.assert_allclose(np.stack(stats, axis=1), GOLDEN["pre_stats"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("case", [*CASES, "all_background"])
@pytest.mark.parametrize("empty", ["released", "brats"])
def test_dice(case, empty):
    """The Dice of nested regions, and of ET after a predicted ET below 500 voxels was changed to NCR."""
    prediction, truth = (GOLDEN[f"dice/{case}/{name}"][0] for name in ("prediction", "truth"))
    expected = GOLDEN[f"dice/{case}/wt_tc_et_etpp"][0]
    for et_min_voxels, columns in ((0, [0, 1, 2]), (500, [0, 1, 3])):
        conventions = Conventions(empty=empty, et_min_voxels=et_min_voxels)
        found = Reference(truth, LABELS, (1, 1, 1), conventions).measure(prediction)
        dice = [found[region, "dice"] for region in ("WT", "TC", "ET")]
        np.testing.assert_allclose(dice, expected[columns], atol=1e-6)


def with_outside(rotation) -> list:
    """Rotate, with -1 outside of the image and 0 outside of the label; MONAI can only fill with 0."""
    return [transforms.ShiftIntensityd("image", 1.0), rotation, transforms.ShiftIntensityd("image", -1.0)]


@pytest.mark.parametrize("number", [0, 1, 2])
def test_rotation(number):
    """As published, except in the half voxel around the image, which scipy leaves empty and MONAI fills."""
    image, label = (GOLDEN[f"rotate_{name}"][None] for name in ("image", "label"))
    *axes, degrees = GOLDEN[f"rotate_{number}_axes_angle"].tolist()
    axis = 3 - sum(axes)
    angle = np.zeros(3)
    angle[axis] = np.deg2rad(degrees) * (1 if axis == 1 else -1)
    rotation = transforms.Rotated(["image", "label"], tuple(angle), mode="nearest", padding_mode="zeros")
    found = transforms.Compose(with_outside(rotation))({"image": MetaTensor(image), "label": MetaTensor(label)})
    expected = GOLDEN[f"rotate_{number}_image"]
    inside = expected != -1
    assert inside.mean() > 0.8
    np.testing.assert_allclose(found["image"][0].numpy()[inside], expected[inside], atol=1e-6)
    assert (found["label"][0].numpy() == GOLDEN[f"rotate_{number}_label"])[inside].all()
    assert (found["image"][0].numpy() == -1).any()


@pytest.mark.parametrize(("shape", "axes"), [((24, 24, 24), "xyz"), ((24, 24, 1), "z")])
def test_augmentation_keeps_what_is_missing_and_what_a_label_may_be(shape, axes):
    """Planes, which are one voxel thick, are rotated about the last axis only."""
    options = {"keys": ["image", "label"], "prob": 1.0, "mode": "nearest", "padding_mode": "zeros"}
    angle = float(np.deg2rad(10))
    rotation = transforms.OneOf([transforms.RandRotated(**options, **{f"range_{axis}": angle}) for axis in axes])
    scale = transforms.RandScaleIntensityd("image", factors=0.1, prob=1.0, channel_wise=True)
    shift = transforms.RandShiftIntensityd("image", offsets=0.1, prob=1.0, channel_wise=True)
    augment = transforms.Compose([*with_outside(rotation), scale, shift])
    generator = torch.Generator().manual_seed(0)
    image = 3 + torch.rand((4, *shape), generator=generator)
    image[[1, 3]] = float("nan")
    label = torch.tensor([0, 500, 2221])[torch.randint(0, 3, (1, *shape), generator=generator)]
    seen = []
    for seed in (*range(6), 0):
        augment.set_random_state(seed)
        found = augment({"image": MetaTensor(image.clone()), "label": MetaTensor(label.clone())})
        seen.append(found["image"].nan_to_num(0).as_tensor())
        assert presence(found["image"][None]).tolist() == [[True, False, True, False]]
        assert torch.isfinite(found["image"][[0, 2]]).all()
        assert set(found["label"].unique().tolist()) == {0, 500, 2221}
        outside = found["image"][0] < 1  # -1, scaled and shifted
        assert (outside.float().mean() < 0.2) & (outside == (found["image"][2] < 1)).all()
    assert torch.equal(seen[0], seen[-1])
    assert not torch.equal(seen[0], seen[1])
