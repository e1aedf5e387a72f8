"""Between a cohort's label values and regions."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from typing import Any

from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from common.cohorts import get_cohort


class LabelsToRegionsd(MapTransform):
    """Turn a label map ``(1, X, Y, Z)`` in the cohort's values into region masks ``(R, X, Y, Z)``, uint8."""

    def __init__(self, keys: KeysCollection, cohort: str) -> None:
        super().__init__(keys)
        self.labels = get_cohort(cohort).labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its label maps converted."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = _like(self.labels.to_regions(item[key]), item[key])
        return item


class RegionsToLabelsd(MapTransform):
    """Turn region masks ``(R, X, Y, Z)`` into one label map ``(1, X, Y, Z)``, uint8, in the cohort's values."""

    def __init__(self, keys: KeysCollection, cohort: str) -> None:
        super().__init__(keys)
        self.labels = get_cohort(cohort).labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        """Return a copy of the item with its region masks converted."""
        item = dict(data)
        for key in self.key_iterator(item):
            item[key] = _like(self.labels.from_regions(item[key]), item[key])
        return item


def _like(result: Any, source: Any) -> MetaTensor:
    """Put the affine, meta data and trace of ``source`` on a plain tensor."""
    out = MetaTensor(result)
    return out.copy_meta_from(source) if isinstance(source, MetaTensor) else out
