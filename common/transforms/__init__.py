"""Transforms: loading of any subset, normalisation, modality dropping, masking, caching."""

from common.transforms.augmentation import RandEachModalityd, RandThickSlices
from common.transforms.cache import CachedDataset
from common.transforms.decision import DecideLabelsd
from common.transforms.file_grid import ToFileGridd
from common.transforms.intensity import NormalizeBrainIntensityd, ScaleBrainIntensityd
from common.transforms.labels import LabelsToClassesd, LabelsToRegionsd
from common.transforms.load import LoadSubjectd
from common.transforms.location import crop_at, locate
from common.transforms.masking import incomplete_subsets, random_patches, random_subsets, uniform_subsets
from common.transforms.spacing import ResampleSpacingd
from common.transforms.staged import GrowingCrops, StagedDataset
from common.transforms.subsets import SubsetDataset
