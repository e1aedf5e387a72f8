"""A cache from which a training patch is read without decoding or copying the rest of the case."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose, RandomizableTrait, RandSpatialCropd

from common.io.digest import UnknownError, digest, files_of
from common.io.errors import unwrapped_errors
from common.io.files import replacing

logger = logging.getLogger(__name__)
TENSORS = ("image", "label")
META = ("original_affine", "spatial_shape", "filename_or_obj")
STEPS = 32767
"""Largest whole number that a voxel is stored as."""


class CachedDataset(Dataset):
    """Cache the results of the deterministic transforms as NumPy files, of which random crops read only their part.

    The transforms before the first random one run once per case. MONAI's PersistentDataset reads a whole case for each
    patch, and a GPU would wait for it: in float32, 4 modalities of a brain of 140 x 175 x 140 voxels are 55 MB, and
    those of a patch of 80^3 voxels 8 MB.

    Images are stored as 16-bit whole numbers: a voxel's difference from the modality's first voxel, its background, in
    steps of 1/32767 of the largest difference. So voxels are off by at most half a step, the background by nothing. A
    modality that holds any NaN is NaN everywhere. Labels are stored in 8 bits if their values fit.

    The deterministic part of ``transform``, a `Compose`, depends on nothing but the item. The name of an entry has a
    `digest` of the item, its files, and these transforms. Without a ``cache_dir``, or if a transform cannot be
    pickled, everything is computed anew each time.
    """

    def __init__(self, data: Sequence[Mapping[str, Any]], transform: Compose, cache_dir: str | None = None) -> None:
        super().__init__(data=data, transform=transform)
        self.cache_dir = None if cache_dir is None else Path(cache_dir)
        self.first_random = transform.get_index_of_first(lambda t: isinstance(t, RandomizableTrait))
        end = len(transform) if self.first_random is None else self.first_random
        try:
            self._recipe = digest(CachedDataset, *transform.transforms[:end])
        except UnknownError as error:
            self.cache_dir = None
            logger.warning(f"The preprocessing is not cached but repeated in each epoch, since {error}.")

    def _transform(self, index: int) -> Any:
        with unwrapped_errors():  # Compose wraps a transform's error about a file
            if self.cache_dir is None:
                return super()._transform(index)
            item, parts = self._cached(self.cache_dir, dict(self.data[index]))
            start = len(self.transform) if self.first_random is None else self.first_random
            if any(isinstance(t, RandSpatialCropd) for t in self.transform.transforms[start : start + 1]):
                item = self.transform(item, start=start, end=start + 1)  # so that only the patch is read
                start += 1
            for key, part in parts.items():
                item[key] = part.read(item[key])
            return self.transform(item, start=start)

    def _cached(self, folder: Path, item: dict[str, Any]) -> tuple[dict[str, Any], dict[str, "_Stored"]]:
        entry = folder / f"{item.get('case', 'case')}-{self._key(item)}"
        if not (entry / "meta.json").is_file():
            self._write(entry, self.transform(item, end=self.first_random))
        return self._read(entry)

    def _key(self, item: Mapping[str, Any]) -> str:
        known = {key: value for key, value in item.items() if key != "patient"}  # says nothing of the images
        return digest(known, files_of(item), self._recipe)

    def _write(self, entry: Path, item: Mapping[str, Any]) -> None:
        entry.mkdir(parents=True, exist_ok=True)
        meta: dict[str, Any] = {"plain": {k: v for k, v in item.items() if k not in TENSORS}}
        for key in TENSORS:
            if key in item:
                voxels = item[key].numpy()
                stored = {"shape": voxels.shape, "dtype": str(voxels.dtype)}
                if key == "image":
                    voxels, scale = _encoded(voxels)
                    stored |= scale
                elif np.array_equal(voxels.astype(np.uint8), voxels):
                    voxels = voxels.astype(np.uint8)
                with replacing(entry / f"{key}.npy") as path, path.open("wb") as file:
                    np.save(file, np.ascontiguousarray(np.moveaxis(voxels, 0, 1)))  # all of a plane lies together
                meta[key] = {name: _plain(item[key].meta[name]) for name in META if name in item[key].meta}
                meta[key] |= {"affine": item[key].affine.tolist(), "stored": stored}
        with replacing(entry / "meta.json") as path:  # written last: it marks the entry as complete
            path.write_text(json.dumps(meta))

    @staticmethod
    def _read(entry: Path) -> tuple[dict[str, Any], dict[str, "_Stored"]]:
        """Return the item, with tensors that take no memory in the place of the stored ones, and what is stored."""
        meta, parts = json.loads((entry / "meta.json").read_text()), {}
        item = meta.pop("plain")
        for key, values in meta.items():
            affine = torch.tensor(values.pop("affine"), dtype=torch.float64)
            parts[key] = _Stored(entry / f"{key}.npy", affine, **values.pop("stored"))
            if "original_affine" in values:
                values["original_affine"] = torch.tensor(values["original_affine"], dtype=torch.float64)
                values["spatial_shape"] = np.asarray(values["spatial_shape"])
            item[key] = MetaTensor(torch.zeros(1).expand(parts[key].shape), affine=affine, meta=values)
        return item, parts


@dataclass(frozen=True)
class _Stored:
    """An image or a label on disk, as whole numbers ``(X, C, ...)``.

    Attributes:
        shape: ``(C, X, ...)``.
        dtype: that of the voxels.
        step: the difference that 1 stands for, for each modality; labels have none.
        background: that of each modality; NaN if the modality is missing.
    """

    path: Path
    affine: torch.Tensor
    shape: Sequence[int]
    dtype: str
    step: Sequence[float] = ()
    background: Sequence[float] = ()

    def read(self, part: MetaTensor) -> MetaTensor:
        """Return the voxels of a part of the tensor; its affine tells where it lies."""
        size = part.shape[1:]
        shift = np.linalg.solve(self.affine.numpy(), part.affine.numpy()[:, -1])[: len(size)]
        box = [slice(at, at + extent) for at, extent in zip(shift.round().astype(int).tolist(), size, strict=True)]
        codes = np.ascontiguousarray(np.moveaxis(np.load(self.path, mmap_mode="r"), 1, 0)[:, *box])
        step = np.reshape(np.asarray(self.step, np.float32), (-1, *[1] * len(size)))
        voxels = (codes * step if self.step else codes).astype(self.dtype, copy=False)
        for channel, background in zip(voxels, self.background, strict=False):  # a label has none
            if background != 0:  # or NaN
                channel += np.float32(background)
        return MetaTensor(torch.from_numpy(voxels)).copy_meta_from(part)


def _encoded(image: np.ndarray) -> tuple[np.ndarray, dict[str, list[float]]]:
    """Return an image ``(M, ...)`` as whole numbers, and each modality's step and background (NaN if it is missing)."""
    space = tuple(range(1, image.ndim))
    background = np.expand_dims(image.reshape(len(image), -1)[:, 0], space)
    largest = np.abs(image - background).max(axis=space, keepdims=True)  # NaN if there is any
    step = np.where(largest == 0, 1, largest / STEPS)
    codes = np.nan_to_num(((image - background) / step).round()).astype(np.int16)
    missing = np.isnan(step).flatten()
    codes[missing] = 0
    background = np.where(missing, np.nan, background.flatten())
    return codes, {"step": np.nan_to_num(step).flatten().tolist(), "background": background.tolist()}


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value
