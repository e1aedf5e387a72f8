"""Intensities: scaling and z-scores over the brain, and augmentation of each modality."""

from pathlib import Path

import numpy as np
import pytest
import torch
from draws import follow
from monai.data import MetaTensor
from monai.transforms import Compose, CropForegroundd, RandAdjustContrast, RandGaussianNoise, RandSimulateLowResolution
from refusals import refused

from common.transforms import NormalizeBrainIntensityd, RandEachModalityd, RandThickSlices, ScaleBrainIntensityd

NAN = float("nan")
GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "m3ae_pipeline.npz")


def channel(values: np.ndarray) -> torch.Tensor:
    """Shuffle 101 brain values into a volume of 125 voxels with background 0."""
    flat = np.concatenate([values, np.zeros(24)])
    return torch.tensor(np.random.default_rng(0).permutation(flat).reshape(5, 5, 5), dtype=torch.float32)


def scale(image: torch.Tensor, **options) -> torch.Tensor:
    return ScaleBrainIntensityd("image", **options)({"case": "x", "image": MetaTensor(image)})["image"]


def test_percentiles_by_hand_where_negative_voxels_are_brain():
    image = channel(np.arange(1, 102))  # of 101 values, the 1st percentile is the second and the 99th the 100th
    expected = np.where(image == 0, 0, (np.clip(image, 2, 100) - 2) / 98)
    np.testing.assert_allclose(scale(image[None])[0], expected, atol=1e-6)
    scaled = scale(image[None], lower=10, upper=90)[0]
    np.testing.assert_allclose(scaled, np.where(image == 0, 0, (np.clip(image, 11, 91) - 11) / 80), atol=1e-6)
    image = channel(np.r_[-50:0, 1:52])
    scaled = scale(image[None])[0]
    expected = np.where(image == 0, 0, (np.clip(image, -49, 50) + 49) / 99)
    np.testing.assert_allclose(scaled, expected, atol=1e-6)
    assert (scaled[image == 0] == 0).all()  # and not (0 + 49) / 99
    assert (scaled.min(), scaled.max()) == (0, 1)


def test_input_and_affine_are_kept():
    affine = torch.diag(torch.tensor([-1.0, -1, 3, 1], dtype=torch.float64))
    image = MetaTensor(channel(np.arange(1, 102))[None], affine=affine)
    before = image.clone()
    scaled = scale(image)
    assert torch.equal(image, before)
    assert torch.equal(scaled.affine, affine)


@pytest.fixture
def golden() -> torch.Tensor:
    """Return the published pipeline's input with its axes changed from (z, y, x) to (x, y, z)."""
    return torch.tensor(GOLDEN["raw"].astype(np.float32)).permute(0, 3, 2, 1)


def test_published_scaling(golden):
    scaled = scale(golden).numpy()
    stride = int(GOLDEN["scaled/stride"])
    expected = GOLDEN["scaled"][0].transpose(0, 3, 2, 1)
    np.testing.assert_allclose(scaled[:, ::stride, ::stride, ::stride], expected, atol=2e-6)
    mean, std, total = GOLDEN["scaled/stats"]
    np.testing.assert_allclose([scaled.mean(), scaled.std(), np.abs(scaled).sum()], [mean, std, total], rtol=1e-5)


def test_published_box(golden):
    """The authors' margin of one voxel is only on the low side, MONAI's on both, as far as the image extends."""
    low, high = GOLDEN["box"][:, ::-1]
    crop = CropForegroundd("image", source_key="image", margin=1, allow_smaller=True)
    cropped = crop({"image": scale(golden), "case": "x"})
    assert cropped["foreground_start_coord"].tolist() == low.tolist()
    assert cropped["foreground_end_coord"].tolist() == np.minimum(high + 1, golden.shape[1:]).tolist()


def normalize(image: torch.Tensor) -> torch.Tensor:
    return NormalizeBrainIntensityd("image")({"case": "x", "image": MetaTensor(image)})["image"]


def test_zero_mean_and_unit_variance_over_the_brain_by_hand():
    image = torch.tensor([0.0, 0, 2, 4, 4, 10]).reshape(1, 6, 1, 1)  # mean 5, population variance 36 / 4
    expected = [-5 / 3, -5 / 3, -1, -1 / 3, -1 / 3, 5 / 3]  # the background too
    assert normalize(image).flatten().tolist() == pytest.approx(expected)


@pytest.mark.parametrize("change", [scale, normalize])
def test_each_modality_by_itself_and_a_missing_one_stays_nan(change):
    one, other = channel(np.arange(1, 102)), 100 * channel(np.arange(51, 152)).flip(0)
    image = torch.stack([one, torch.full_like(one, NAN), other])
    changed = change(image)
    assert torch.isnan(changed[1]).all()
    assert torch.equal(changed[0], change(one[None])[0])
    assert torch.equal(changed[2], change(other[None])[0])
    assert torch.equal(image.nan_to_num(-1), torch.stack([one, -torch.ones_like(one), other]))


@pytest.mark.parametrize(
    ("change", "first", "fact"),
    [
        (scale, 9, "percentiles 1 and 99 over the brain are both 7"),
        (normalize, 7, "the standard deviation over the brain is 0"),
    ],
)
def test_brain_without_contrast(change, first, fact):
    with refused(ValueError, f"x, channel 0: {fact}; expected an image", "Check the file, or leave this modality out"):
        change(channel(np.r_[first, np.full(100, 7.0)])[None])


def test_an_empty_image_is_refused_like_one_without_contrast():
    with refused(ValueError, "percentiles 1 and 99 over the brain are both 0; expected an image with contrast"):
        scale(torch.zeros(1, 4, 4, 4))


IMAGE = torch.rand(4, 8, 8, 8, generator=torch.Generator().manual_seed(0))


def changed(transform, image=IMAGE, seed=0):
    result = Compose([RandEachModalityd("image", transform)]).set_random_state(seed)({"image": MetaTensor(image)})
    return result["image"].as_tensor()


def test_modalities_are_drawn_one_by_one():
    differ = [changed(RandGaussianNoise(prob=0.5), seed=n) != IMAGE for n in range(20)]
    assert len({tuple(one.flatten(1).any(1).tolist()) for one in differ}) > 5
    every = changed(RandGaussianNoise(prob=1.0)) - IMAGE
    assert not torch.equal(every[0], every[1])


@pytest.mark.parametrize(
    "transform",
    [
        RandGaussianNoise(prob=1.0),
        RandSimulateLowResolution(prob=1.0),
        RandAdjustContrast(prob=1.0, gamma=(0.7, 1.5)),
    ],
    ids=lambda transform: type(transform).__name__,
)
def test_a_missing_modality_stays_missing_and_a_seed_fixes_the_draws(transform):
    image = IMAGE.clone()
    image[2] = float("nan")
    before = image.clone()
    first, again = (changed(transform, image, seed=1) for _ in range(2))
    assert first[2].isnan().all()
    assert torch.isfinite(first[[0, 1, 3]]).all()
    assert not torch.equal(first[0], image[0])
    assert torch.equal(first.nan_to_num(), again.nan_to_num())
    assert torch.equal(torch.nan_to_num(image), torch.nan_to_num(before))  # the item itself is not changed


def test_thick_slices_are_means_along_one_axis():
    image = torch.rand(1, 12, 12, 12, generator=torch.Generator().manual_seed(1))
    thick = RandThickSlices(prob=1.0, thickness=(3.0, 3.0)).set_random_state(0)
    axes = set()
    for _ in range(20):
        result = thick(image)
        assert result.shape == image.shape
        means = [image.movedim(1 + a, -1)[..., :3].mean(-1) for a in range(3)]
        (axis,) = [a for a in range(3) if torch.allclose(result.movedim(1 + a, -1)[..., 1], means[a])]
        axes.add(axis)
    assert axes == {0, 1, 2}
    assert torch.equal(RandThickSlices(prob=0.0)(image), image)
    assert float(thick(image * 0 + 2).std()) == 0
    with pytest.raises(ValueError, match="1 or more"):
        RandThickSlices(thickness=(0.5, 2))
    # 12 voxels at 1.6 are 7.5 slices, so 8: no more columns of what becomes of each voxel are independent
    thick = RandThickSlices(prob=1.0, thickness=(1.6, 1.6)).set_random_state(0)
    image = torch.eye(12)[None, ..., None].expand(1, 12, 12, 12)  # constant along the third axis
    assert {int(torch.linalg.matrix_rank(thick(image)[0, ..., 0])) for _ in range(10)} == {8, 12}


def test_thickness_is_drawn_anew_from_its_whole_range():
    thick, drawn = RandThickSlices(prob=1.0, thickness=(1.5, 3.0)).set_random_state(0), []
    for _ in range(100):
        thick(torch.zeros(1, 8, 8, 8))
        drawn.append(thick.drawn)
    assert 1.5 <= min(drawn) < 1.6 < 2.9 < max(drawn) <= 3.0
    assert follow([int((width - 1.5) / 0.3) for width in drawn], dict.fromkeys(range(5), 1 / 5))
