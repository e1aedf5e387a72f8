"""A cache from which a training patch is read without decoding or copying the rest of the case."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from monai.data import Dataset, MetaTensor
from monai.transforms import Compose, RandomizableTrait

from common.io.command import unwrapped_errors
from common.io.files import replacing
from common.io.fingerprint import files_of, fingerprint

TENSORS = ("image", "label")
FORMAT = 2
"""Version of the cache; increase it when a transform of this package changes its result for the same settings."""
META = ("original_affine", "spatial_shape", "filename_or_obj")


class CachedDataset(Dataset):
    """Cache the results of the deterministic transforms as contiguous, memory-mapped ``.npy`` files.

    The transforms before the first random one run once per case; after that, only the cropped patch is read from the
    memory map. Unlike MONAI's PersistentDataset it does not store the whole array behind a cropped view, does not read
    a whole case for one patch, and keeps the affine.

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
            item = self._cached(dict(self.data[index]))
            return item if self.first_random is None else self.transform(item, start=self.first_random)

    def _cached(self, item: dict[str, Any]) -> dict[str, Any]:
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
                with replacing(entry / f"{key}.npy") as path:
                    np.save(path, np.ascontiguousarray(item[key].numpy()))
                meta[key] = {name: _plain(item[key].meta[name]) for name in META if name in item[key].meta}
                meta[key]["affine"] = item[key].affine.tolist()
        with replacing(entry / "meta.json") as path:  # written last: it marks the entry as complete
            path.write_text(json.dumps(meta))

    @staticmethod
    def _read(entry: Path) -> dict[str, Any]:
        meta = json.loads((entry / "meta.json").read_text())
        item = meta.pop("plain")
        for key, values in meta.items():
            array = np.load(entry / f"{key}.npy", mmap_mode="c")  # copy on write: the file never changes
            affine = torch.tensor(values.pop("affine"), dtype=torch.float64)
            if "original_affine" in values:
                values["original_affine"] = torch.tensor(values["original_affine"], dtype=torch.float64)
                values["spatial_shape"] = np.asarray(values["spatial_shape"])
            item[key] = MetaTensor(torch.from_numpy(array), affine=affine, meta=values)
        return item


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, torch.Tensor | np.ndarray) else value
