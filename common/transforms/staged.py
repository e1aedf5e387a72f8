"""A dataset that changes with the epoch, such as coarse images first and fine ones later."""

from collections.abc import Mapping, Sequence
from typing import Any

from monai.data import Dataset
from monai.transforms import CenterSpatialCropd, Compose, RandCropByLabelClassesd, SpatialPadd, Transform

from common.transforms.cache import CachedDataset
from common.transforms.spacing import ResampleSpacingd

KEYS = ("image", "label")


class StagedDataset(Dataset):
    """Take items from the first dataset, and from each next one as soon as its epoch is reached.

    All datasets have the same cases. The epoch is set by `common.engines.epoch.SetEpoch`, so that a resumed training
    goes on in the right stage.

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


class GrowingCrops(StagedDataset):
    """Crops of voxels that get finer in stages, each turned before it is cut to size.

    A crop that is turned after it was cut has corners that repeat its border. Here a larger one is turned, and its
    centre is cut out.

    Args:
        data: items of a datalist.
        load: steps that give ``image`` and ``label`` ``(C, X, Y, Z)`` in the voxels of the files.
        spacings: voxel size in mm of each stage.
        around: size in voxels of what is cropped around a voxel of a random class, and turned.
        crops: size in voxels of what is cut from its centre.
        turns: step that moves the voxels of a crop, in each stage.
        from_epoch: as in `StagedDataset`.
        sampling: as in `ResampleSpacingd`.
        box: step after it, that cuts the image to the brain.
        classes: step that makes classes or regions of the label map's values.
        ratios: how often crops are centred on a voxel of each value.
        vary: all later steps.
        cache_dir: as in `CachedDataset`.
    """

    def __init__(
        self,
        data: Sequence[Mapping[str, Any]],
        load: Sequence[Transform],
        spacings: Sequence[float],
        around: Sequence[Sequence[int]],
        crops: Sequence[Sequence[int]],
        turns: Sequence[Transform],
        from_epoch: Sequence[int],
        sampling: str,
        box: Transform,
        classes: Transform,
        ratios: Sequence[float],
        vary: Sequence[Transform],
        cache_dir: str | None = None,
    ) -> None:
        datasets = []
        for spacing, outer, crop, turn in zip(spacings, around, crops, turns, strict=True):
            steps = [
                *load,
                ResampleSpacingd(KEYS, spacing, ("bilinear", "nearest"), sampling),
                box,
                SpatialPadd(KEYS, outer),
                RandCropByLabelClassesd(
                    KEYS, label_key="label", spatial_size=outer, ratios=[*ratios], num_classes=len(ratios), warn=False
                ),
                classes,
                turn,
                CenterSpatialCropd(KEYS, crop),
                *vary,
            ]
            datasets.append(CachedDataset(data, Compose(steps), cache_dir))
        super().__init__(datasets, from_epoch)
