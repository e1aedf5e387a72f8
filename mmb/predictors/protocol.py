"""What the clinic and evaluations know of whatever segments a case: a predictor, from images to regions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import nibabel as nib
import numpy as np
import torch

from common.cohorts.cohort import Cohort
from mmb.predictors.calibration import Calibration


@dataclass(frozen=True)
class Segmentation:
    """A network's result for a case.

    Attributes:
        label: label map ``(X, Y, Z)`` in the cohort's values.
        masks: its regions, bool ``(R, X, Y, Z)``.
        probabilities: those of the regions, of the same shape as the masks.
    """

    label: np.ndarray
    masks: np.ndarray
    probabilities: np.ndarray


class Predictor(Protocol):
    """A bundle's inference.json (`mmb.predictors.bundle`) or a trained nnU-Net (`mmb.predictors.nnunet`).

    Attributes:
        cohort: defines modalities, label values and regions.
        device: where it runs.
        spacing: voxel size in mm that it was trained at.
        decision: how probabilities become a label map, one of `DECISIONS`.
        method: name of the method.
        title: what it is, in a list of models.
        version: version of the program that made it, or runs it.
        software: name and version, as DICOM states them.
        trained_on: short description of the training data; None if unknown.
        seen: modalities that it saw in training; None if unknown.
        subsets: the only subsets of modalities that it can segment; None for any.
        calibration: what was calibrated for these weights and this decision; None if nothing was.
        warnings: reasons why no result of it can be trusted.
    """

    cohort: Cohort
    device: torch.device
    spacing: Sequence[float]
    decision: str
    method: str
    title: str
    version: str
    software: str
    trained_on: str | None
    seen: Sequence[str] | None
    subsets: Sequence[Sequence[str]] | None
    calibration: Calibration | None
    warnings: Sequence[str]

    @property
    def weights_name(self) -> str:
        """Name and SHA-256 of the weights."""

    def decide_by(self, decision: str) -> None:
        """Make label maps by one of `DECISIONS` from now on; ValueError for another word."""

    def using(self, modalities: Sequence[str]) -> "Predictor":
        """Return the predictor for exactly these modalities; ValueError if there is none."""

    def run(self, images: Mapping[str, nib.Nifti1Image]) -> Segmentation:
        """Segment a case: modality -> volume, all on one grid, on which the result lies too."""
