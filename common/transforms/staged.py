"""A dataset that changes with the epoch, such as coarse images first and fine ones later."""

from collections.abc import Sequence
from typing import Any

from monai.data import Dataset
from monai.transforms import Compose

from common.transforms.cache import CachedDataset


class StagedDataset(Dataset):
    """Take items from the first dataset, and from each next one as soon as its epoch is reached.

    All datasets have the same cases. The epoch is set by `common.engines.SetEpoch`, so that a resumed training goes on
    in the right stage.

    Attributes:
        epoch: number of the epoch, from 0.
        from_epoch: the epoch from which each dataset is used; if it is that of the next one, the dataset never is.
    """

    def __init__(self, datasets: Sequence[CachedDataset], from_epoch: Sequence[int]) -> None:
        if len({len(dataset) for dataset in datasets}) != 1 or len(from_epoch) != len(datasets):
            raise ValueError("expected datasets of the same length, and an epoch for each of them.")
        if from_epoch[0] != 0 or sorted(from_epoch) != list(from_epoch):
            raise ValueError(f"from_epoch {list(from_epoch)}: expected numbers that begin with 0 and never fall.")
        super().__init__(datasets[0].data, Compose([dataset.transform for dataset in datasets]))  # all are reseeded
        self.datasets, self.from_epoch = datasets, tuple(from_epoch)
        self.epoch = 0

    def _transform(self, index: int) -> Any:
        return self.datasets[sum(self.epoch >= first for first in self.from_epoch) - 1][index]
