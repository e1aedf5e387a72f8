"""The cache gives the same results with less work, and nothing outdated."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from monai import transforms
from monai.data import Dataset, MetaTensor
from processes import run

from common.modalities import presence
from common.transforms import CachedDataset, LoadSubjectd, ScaleBrainIntensityd, cache

KEYS = ["image", "label"]
CROP = [8, 16, 6]


def pipeline(upper: float = 99.0) -> transforms.Compose:
    return transforms.Compose(
        [
            LoadSubjectd("brats2020"),
            transforms.Orientationd(KEYS, axcodes="RAS", labels=None),
            ScaleBrainIntensityd("image", upper=upper),
            transforms.Spacingd(KEYS, pixdim=[1.0, 1.0, 1.0], mode=["bilinear", "nearest"]),
            transforms.CropForegroundd(KEYS, source_key="image", margin=1, start_coord_key=None, end_coord_key=None),
            transforms.SpatialPadd(KEYS, spatial_size=CROP),
            transforms.RandSpatialCropd(KEYS, roi_size=CROP, random_size=False),
            transforms.RandFlipd(KEYS, prob=0.5, spatial_axis=0),
            transforms.RandScaleIntensityd("image", factors=0.1, prob=1.0),
        ]
    )


def deterministic() -> transforms.Compose:
    return transforms.Compose(pipeline().transforms[:6])


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "cache"


def entries(folder: Path) -> list[Path]:
    return sorted(folder.iterdir())


def same(one: dict, other: dict) -> None:
    """Assert that two items have the same voxels (images to half a step), affines and metadata."""
    assert one.keys() == other.keys()
    for key, step in zip(KEYS, (1.1 / 32767, 0), strict=True):
        pair = one[key].as_tensor(), other[key].as_tensor()
        torch.testing.assert_close(*pair, rtol=0, atol=0.501 * step, equal_nan=True)
        assert torch.equal(one[key].affine, other[key].affine)
        assert one[key].dtype == other[key].dtype
    for name in ("original_affine", "spatial_shape", "filename_or_obj"):
        mine, theirs = (np.asarray(item["image"].meta[name]) for item in (one, other))
        np.testing.assert_array_equal(mine, theirs)
        assert type(one["image"].meta[name]) is type(other["image"].meta[name])
    plain = one.keys() - set(KEYS)
    assert {key: one[key] for key in plain} == {key: other[key] for key in plain}


def test_equals_the_uncached_result_and_an_unfinished_entry_is_made_anew(subject, folder):
    expected = Dataset([subject], deterministic())[0]
    cached = CachedDataset([subject], deterministic(), folder)
    same(cached[0], expected)  # written
    same(cached[0], expected)  # read
    same(CachedDataset([subject], deterministic(), None)[0], expected)
    expected = cached[0]["image"].as_tensor().clone()
    (entry,) = entries(folder)
    (entry / "meta.json").unlink()
    (entry / "image.npy").write_bytes(b"half")
    assert torch.equal(cached[0]["image"].as_tensor(), expected)


def test_equals_the_uncached_result_after_random_transforms(subject, folder):
    uncached, cached = Dataset([subject], pipeline()), CachedDataset([subject], pipeline(), folder)
    cached[0]
    for seed in range(4):
        uncached.transform.set_random_state(seed=seed)
        cached.transform.set_random_state(seed=seed)
        same(cached[0], uncached[0])


def test_missing_modality_survives(write_subject, folder):
    item = write_subject(modalities=("t1c", "flair"))
    cached = CachedDataset([item], deterministic(), folder)
    cached[0]
    assert presence(cached[0]["image"][None]).tolist() == [[False, True, False, True]]
    expected = Dataset([item], deterministic())[0]
    expected["image"][[0, 2]] = float("nan")  # where padding has put zeros too
    same(cached[0], expected)


def test_deterministic_transforms_run_once_per_case(subject, folder, opened):
    cached = CachedDataset([subject], pipeline(), folder)
    cached[0]
    assert len(opened) == 5
    cached[0]
    CachedDataset([subject], pipeline(), folder)[0]  # another run
    assert len(opened) == 5


def test_random_transforms_run_each_time_and_do_not_reach_the_files(subject, folder):
    cached = CachedDataset([subject], pipeline(), folder)
    draws = [cached[0]["image"] for _ in range(3)]
    assert not torch.equal(draws[0], draws[1])
    path = entries(folder)[0] / "image.npy"
    before = path.read_bytes()
    cached[0]["image"].fill_(5)
    CachedDataset([subject], deterministic(), folder)[0]["image"].fill_(5)
    assert path.read_bytes() == before


def test_another_item_or_deterministic_setting_is_another_entry(subject, folder):
    fewer = {**subject, "image": subject["image"][:2], "modalities": subject["modalities"][:2]}
    other_draws = transforms.Compose([*deterministic().transforms, transforms.RandFlipd(KEYS, prob=1.0)])
    for transform in (pipeline(), other_draws, pipeline(upper=98.0)):
        CachedDataset([subject], transform, folder)[0]
    CachedDataset([fewer], pipeline(), folder)[0]
    assert len(entries(folder)) == 3


@pytest.mark.parametrize("which", ["image", "label"])
def test_changed_file_is_another_entry(subject, folder, which, opened):
    cached = CachedDataset([subject], pipeline(), folder)
    cached[0]
    path = Path(subject["image"][1] if which == "image" else subject["label"])
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 1))  # another time
    cached[0]
    assert len(entries(folder)) == 2
    path.write_bytes(path.read_bytes() + b"\0")  # another size
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    cached[0]
    assert (len(entries(folder)), len(opened)) == (3, 15)


class Given:
    """A transform that returns an image with negative voxels, whose background is not 0."""

    def __init__(self, image: torch.Tensor, rank: int = 4) -> None:
        self.image, self.rank = image, rank

    def __call__(self, item: dict) -> dict:
        return item | {"image": MetaTensor(self.image, affine=torch.eye(self.rank))}


def test_precision_is_as_stated(subject, folder):
    image = torch.full((4, 60, 60, 60), -0.7)
    image[:, 20:40, 20:40, 20:40] = torch.randn(4, 20, 20, 20, generator=torch.Generator().manual_seed(0))
    image[3, 0, 0, :30] = float("nan")  # padding beside a missing modality
    unlabelled = {key: value for key, value in subject.items() if key != "label"}
    read = CachedDataset([unlabelled], transforms.Compose([Given(image)]), folder)[0]["image"]
    for channel, expected in zip(read[:3].as_tensor(), image, strict=False):
        assert (channel - expected).abs().max() <= 1.01 * (expected + 0.7).abs().max() / 65534
        assert (channel[expected == -0.7] == -0.7).all()
    assert read[3].isnan().all()


@pytest.mark.parametrize("shape", [(1, 9, 8, 7), (2, 9, 8), (4, 9, 8, 7)])
def test_any_part_is_read_as_it_was(subject, folder, shape):
    rng = np.random.default_rng(0)
    image = np.where(rng.random(shape) > 0.8, rng.normal(size=shape), 0).astype(np.float32)
    given = Given(torch.from_numpy(image), len(shape))
    size = [4, 5, 3][: len(shape) - 1]
    item = {key: value for key, value in subject.items() if key != "label"}
    crop = transforms.RandSpatialCropd("image", size, random_size=False)
    cached = CachedDataset([item], transforms.Compose([given, crop]), folder)
    cached[0]
    for seed in range(20):
        cached.transform.set_random_state(seed=seed)
        part = cached[0]["image"]
        corner = part.affine[: len(size), -1].round().int().tolist()
        expected = image[(slice(None), *(slice(at, at + n) for at, n in zip(corner, size, strict=True)))]
        np.testing.assert_allclose(part.numpy(), expected, atol=0.51 * np.abs(image).max() / 32767)


def test_only_the_patch_is_read(subject, folder, monkeypatch):
    asked, cached = [], CachedDataset([subject], pipeline(), folder)
    cached[0]
    read = cache._Stored.read
    monkeypatch.setattr(cache._Stored, "read", lambda self, part: asked.append(part.shape) or read(self, part))
    cached[0]
    assert asked == [(4, *CROP), (1, *CROP)]


def make_entry(item, folder):
    CachedDataset([json.loads(item)], pipeline(), folder)[0]


@pytest.mark.slow  # a process of its own
def test_entry_is_found_by_another_process_with_an_equal_item(subject, folder):
    """Hashes of strings, addresses of objects, and the identity of equal strings differ between processes."""
    code, said = run(make_entry, json.dumps(subject), folder)
    assert code == 0, said
    CachedDataset([subject], pipeline(), folder)[0]
    assert len(entries(folder)) == 1
