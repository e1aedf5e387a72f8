"""Conversions between a cohort's label values, its regions, and the classes of a softmax head."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection
from monai.data import MetaTensor
from monai.transforms import MapTransform

from common.cohorts import get_cohort


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
    """Turn a label map ``(1, X, Y, Z)`` in the cohort's values into region masks ``(R, X, Y, Z)``, uint8.

    Examples:
        >>> import torch
        >>> from common.transforms import LabelsToRegionsd
        >>> label = torch.tensor([0, 1, 2, 4]).reshape(1, 4, 1, 1)  # background, NCR, ED and ET
        >>> LabelsToRegionsd("label", "brats2021")({"label": label})["label"].flatten(1).tolist()  # WT, TC and ET
        [[0, 1, 1, 1], [0, 1, 0, 1], [0, 0, 0, 1]]
    """

    def _convert(self, volume: torch.Tensor, _: Mapping[Hashable, Any]) -> torch.Tensor:
        return self.labels.to_regions(volume)


class LabelsToClassesd(ConvertLabelsd):
    """Turn a label map ``(1, X, Y, Z)`` in the cohort's values into class indices of a softmax head, of type long.

    Index 0 is the background; the others are the targets of the `LabelSet` in their order.

    Examples:
        >>> import torch
        >>> from common.transforms import LabelsToClassesd
        >>> label = torch.tensor([0, 1, 2, 4]).reshape(1, 4, 1, 1)  # background, NCR, ED and ET
        >>> LabelsToClassesd("label", "brats2021")({"label": label})["label"].flatten(1).tolist()
        [[0, 1, 2, 3]]
    """

    def _convert(self, volume: torch.Tensor, _: Mapping[Hashable, Any]) -> torch.Tensor:
        return self.labels.to_classes(volume)
