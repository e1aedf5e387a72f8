"""Conversions between a cohort's label values, its regions, and the classes of a softmax head."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from common.cohorts import get_cohort
from common.modalities import IGNORED

IGNORED_SHARE = -1000.0
"""Value of the background's channel where a voxel is `IGNORED`: a mean with any of it is negative."""


class ConvertLabelsd(MapTransform):
    """Convert volumes by a cohort's `LabelSet`, keeping affine, metadata and applied operations."""

    def __init__(self, keys: KeysCollection, cohort: str) -> None:
        super().__init__(keys)
        self.labels = get_cohort(cohort).labels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        item = dict(data)
        for key in self.key_iterator(item):
            source = item[key]
            result = MetaTensor(self._convert(source, item))
            item[key] = result.copy_meta_from(source) if isinstance(source, MetaTensor) else result
        return item

    def _convert(self, volume: torch.Tensor, item: Mapping[Hashable, Any]) -> torch.Tensor:
        raise NotImplementedError


class LabelsToRegionsd(ConvertLabelsd):
    """Turn a label map ``(1, X, Y, Z)`` in the cohort's values into region masks ``(R, X, Y, Z)``, uint8."""

    def _convert(self, volume: torch.Tensor, _: Mapping[Hashable, Any]) -> torch.Tensor:
        return self.labels.to_regions(volume)


class LabelsToClassesd(ConvertLabelsd):
    """Turn a label map ``(1, X, Y, Z)`` in the cohort's values into class indices of a softmax head, of type long.

    Index 0 is the background; the others are the targets of the `LabelSet` in their order.
    """

    def _convert(self, volume: torch.Tensor, _: Mapping[Hashable, Any]) -> torch.Tensor:
        return self.labels.to_classes(volume)


class LabelsToFractionsd(ConvertLabelsd):
    """Turn a label map ``(1, X, Y, Z)`` in the cohort's values into class masks ``(K, X, Y, Z)``, float32.

    Channel 0 is the background; the others are the targets of the `LabelSet` in their order. Resampled by
    `MeanSpacingd`, they become the share of each voxel that each class takes. `IGNORED` voxels are in no class, and
    their background is `IGNORED_SHARE`; zeros, as padding adds them, are in no region.
    """

    def _convert(self, volume: torch.Tensor, _: Mapping[Hashable, Any]) -> torch.Tensor:
        index = self.labels.to_classes(volume)[0]
        masks = torch.stack([index == number for number in range(1 + len(self.labels.targets))]).float()
        masks[0].masked_fill_(index == IGNORED, IGNORED_SHARE)
        return masks


class FractionsToRegionsd(ConvertLabelsd):
    """Turn shares of classes ``(K, X, Y, Z)``, see `LabelsToFractionsd`, into shares of regions ``(R, X, Y, Z)``.

    A voxel of which a part is `IGNORED` is so in every region.
    """

    def _convert(self, volume: torch.Tensor, _: Mapping[Hashable, Any]) -> torch.Tensor:
        fractions = volume.as_subclass(torch.Tensor)
        regions = self.labels.region_probabilities(fractions).clamp(0, 1)
        return regions.masked_fill_(fractions[0] < 0, IGNORED)
