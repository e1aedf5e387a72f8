"""Between a cohort's label values and regions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from common.cohorts import get_cohort


class _ConvertLabelsd(MapTransform):
    """Convert label maps by a cohort's `LabelSet`, keeping affine, meta data and trace."""

    def __init__(self, keys: KeysCollection, cohort: str) -> None:
        super().__init__(keys)
        self.labels = get_cohort(cohort).labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its label maps converted."""
        item = dict(data)
        for key in self.key_iterator(item):
            source = item[key]
            result = MetaTensor(self.convert(source))
            item[key] = result.copy_meta_from(source) if isinstance(source, MetaTensor) else result
        return item

    def convert(self, label: torch.Tensor) -> torch.Tensor:
        """Convert one label map."""
        raise NotImplementedError


class LabelsToRegionsd(_ConvertLabelsd):
    """Turn a label map ``(1, X, Y, Z)`` in the cohort's values into region masks ``(R, X, Y, Z)``, uint8."""

    def convert(self, label: torch.Tensor) -> torch.Tensor:
        """Return region masks."""
        return self.labels.to_regions(label)


class RegionsToLabelsd(_ConvertLabelsd):
    """Turn region masks ``(R, X, Y, Z)`` into one label map ``(1, X, Y, Z)``, uint8, in the cohort's values."""

    def convert(self, label: torch.Tensor) -> torch.Tensor:
        """Return a label map."""
        return self.labels.from_regions(label)
