"""A dataset that presents each case with chosen modality subsets."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from monai.transforms import Compose

from common.modalities import drop, resolve_subset, subset_name
from common.transforms.cache import CachedDataset


class SubsetDataset(CachedDataset):
    """Present each case once per modality subset; the other modalities of ``image`` are NaN, ``subset`` has the name.

    A case is loaded once for all its subsets, which follow each other. Subsets with a modality that the case lacks are
    left out. The transforms are deterministic and produce ``image`` ``(M, X, Y, Z)``, without cropping that depends on
    the modalities. Subsets are given by names or aliases; None stands for each modality alone, and all of them.

    Examples:
        >>> import torch
        >>> from monai.transforms import Compose
        >>> from common.transforms import SubsetDataset
        >>> data = [{"image": torch.ones(2, 1, 1, 1)}]  # usually datalist items for `LoadSubjectd`
        >>> dataset = SubsetDataset(data, Compose([]), subsets=None, modalities=["t1c", "flair"])
        >>> [(item["subset"], item["image"].flatten().tolist()) for item in dataset]
        [('t1c', [1.0, nan]), ('flair', [nan, 1.0]), ('t1c+flair', [1.0, 1.0])]
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        transform: Compose,
        subsets: Sequence[Sequence[str]] | None,
        modalities: Sequence[str],
        cache_dir: str | None = None,
    ) -> None:
        super().__init__(data, transform, cache_dir)
        self.modalities = tuple(modalities)
        subsets = [*([name] for name in modalities), modalities] if subsets is None else subsets
        wanted = [resolve_subset(subset, self.modalities) for subset in subsets]
        self.pairs = [
            (number, subset)
            for number, item in enumerate(data)
            for subset in wanted
            if set(subset) <= set(item.get("modalities", self.modalities))
        ]
        self._latest: tuple[int, dict[str, Any]] = (-1, {})

    def __len__(self) -> int:
        return len(self.pairs)

    def _transform(self, index: int) -> dict[str, Any]:
        number, subset = self.pairs[index]
        if self._latest[0] != number:
            self._latest = (number, super()._transform(number))
        item = dict(self._latest[1])
        keep = torch.tensor([[name in subset for name in self.modalities]])
        item["image"] = drop(item["image"][None], keep)[0]
        item["subset"] = subset_name(subset)
        return item
