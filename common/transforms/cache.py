"""A cache from which a training patch is read without decoding or copying the rest of the case."""

import json
import os
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose, RandomizableTrait, RandSpatialCropd

from common.io.command import unwrapped_errors
from common.io.files import replacing
from common.io.fingerprint import files_of, fingerprint

TENSORS = ("image", "label")
FORMAT = 4
"""Version of the cache; increase it when a transform of this package changes its result for the same settings."""
META = ("original_affine", "spatial_shape", "filename_or_obj")
STEPS = 32767
"""Largest whole number that a voxel is stored as."""
PAGE = 4096
"""Size of a file's blocks in bytes."""


class CachedDataset(Dataset):
    """Cache the results of the deterministic transforms as contiguous, memory-mapped ``.npy`` files.

    The transforms before the first random one run once per case; after that, only the cropped patch is read from the
    memory map. Unlike MONAI's PersistentDataset it does not store the whole array behind a cropped view, does not read
    a whole case for one patch, and keeps the affine.

    Images are stored as 16-bit whole numbers: a voxel's difference from the modality's first voxel, its background, in
    steps of 1/32767 of the largest difference. So voxels are off by at most half a step, the background by nothing. A
    modality that holds any NaN is NaN everywhere. Labels are stored in 8 bits if their values fit. Blocks of background
    are holes in the file and take no space on disk.

    The deterministic part of ``transform``, a `Compose`, depends on nothing but the item. The name of an entry has a
    hash of the item, of its files' sizes and modification times, and of these transforms. Without a ``cache_dir``
    everything is computed anew each time.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, cache_dir: str | None = None) -> None:
        super().__init__(data=data, transform=transform)
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.first_random = transform.get_index_of_first(lambda t: isinstance(t, RandomizableTrait))
        end = len(transform) if self.first_random is None else self.first_random
        self._recipe = fingerprint(*transform.transforms[:end])

    def _transform(self, index: int) -> Any:
        with unwrapped_errors():  # Compose wraps a transform's error about a file
            if self.cache_dir is None:
                return super()._transform(index)
            item, scale = self._cached(dict(self.data[index]))
            start = len(self.transform) if self.first_random is None else self.first_random
            if any(isinstance(t, RandSpatialCropd) for t in self.transform.transforms[start : start + 1]):
                item = self.transform(item, start=start, end=start + 1)  # so that only the patch is read
                start += 1
            item["image"] = _decoded(item["image"], scale["step"], scale["background"])
            if "label" in item:
                item["label"] = item["label"].to(getattr(torch, scale["label"]))
            return self.transform(item, start=start)

    def _cached(self, item: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        entry = self.cache_dir / f"{item.get('case', 'case')}-{self._key(item)}"
        if not (entry / "meta.json").is_file():
            self._write(entry, self.transform(item, end=self.first_random))
        return self._read(entry)

    def _key(self, item: Mapping[str, Any]) -> str:
        told = {key: value for key, value in item.items() if key != "patient"}  # says nothing of the images
        return fingerprint(FORMAT, monai.__version__, told, files_of(item), self._recipe)

    def _write(self, entry: Path, item: Mapping[str, Any]) -> None:
        entry.mkdir(parents=True, exist_ok=True)
        meta: dict[str, Any] = {"plain": {k: v for k, v in item.items() if k not in TENSORS}}
        for key in TENSORS:
            if key in item:
                voxels = item[key].numpy()
                if key == "image":
                    voxels, meta["scale"] = _encoded(voxels)
                else:
                    meta["scale"]["label"] = str(voxels.dtype)
                    small = voxels.astype(np.uint8)
                    voxels = small if np.array_equal(small, voxels) else voxels
                with replacing(entry / f"{key}.npy") as path:
                    _save_with_holes(path, np.ascontiguousarray(voxels))
                meta[key] = {name: _plain(item[key].meta[name]) for name in META if name in item[key].meta}
                meta[key]["affine"] = item[key].affine.tolist()
        with replacing(entry / "meta.json") as path:  # written last: it marks the entry as complete
            path.write_text(json.dumps(meta))

    @staticmethod
    def _read(entry: Path) -> tuple[dict[str, Any], dict[str, Any]]:
        meta = json.loads((entry / "meta.json").read_text())
        item, scale = meta.pop("plain"), meta.pop("scale")
        for key, values in meta.items():
            array = np.load(entry / f"{key}.npy", mmap_mode="c")  # copy on write: the file never changes
            affine = torch.tensor(values.pop("affine"), dtype=torch.float64)
            if "original_affine" in values:
                values["original_affine"] = torch.tensor(values["original_affine"], dtype=torch.float64)
                values["spatial_shape"] = np.asarray(values["spatial_shape"])
            item[key] = MetaTensor(torch.from_numpy(array), affine=affine, meta=values)
        return item, scale


def _encoded(image: np.ndarray) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Return an image ``(M, ...)`` as whole numbers, and the arguments with which `_decoded` restores it."""
    space = tuple(range(1, image.ndim))
    background = np.expand_dims(image.reshape(len(image), -1)[:, 0], space)
    largest = np.abs(image - background).max(axis=space, keepdims=True)  # NaN if there is any
    step = np.where(largest == 0, 1, largest / STEPS)
    codes = np.nan_to_num(((image - background) / step).round()).astype(np.int16)
    codes[np.isnan(step).flatten()] = 0
    return codes, {"step": step.flatten().tolist(), "background": background.flatten().tolist()}


def _decoded(codes: MetaTensor, step: Sequence[float], background: Sequence[float]) -> MetaTensor:
    image = np.empty(codes.shape, np.float32)
    for number, (channel, stored) in enumerate(zip(image, codes.numpy(), strict=True)):
        np.multiply(stored, np.float32(step[number]), out=channel, dtype=np.float32, casting="unsafe")  # in one pass
        if background[number] != 0:
            channel += np.float32(background[number])
    return MetaTensor(torch.from_numpy(image)).copy_meta_from(codes)


def _save_with_holes(path: Path, array: np.ndarray) -> None:
    """Write a ``.npy`` file whose blocks of zeros are holes, where the file system has holes."""
    content = array.reshape(-1).view(np.uint8)
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        for start, end in pairwise([0, *range(PAGE - file.tell() % PAGE, len(content), PAGE), len(content)]):
            if content[start:end].any():
                file.write(content[start:end])
            else:
                file.seek(end - start, os.SEEK_CUR)
        file.truncate()


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value
