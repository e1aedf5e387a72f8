"""A trained network from Python: images in, label map, regions and probabilities out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from torch import nn

from common.cohorts.check import read_modality, zero_background
from common.io.geometry import require_plausible
from common.modalities import canonical, resolve_subset
from common.transforms.load import check_volumes
from mmb.predictors.bundle import Inference, load_predictor

REAL = "fiu"
"""Kinds of NumPy's types that hold real numbers."""


@dataclass(frozen=True)
class Result:
    """What a network says of a case, on the voxels of its images.

    ``label`` is the label map ``(X, Y, Z)`` in the cohort's values; ``regions`` are masks, bool, and ``probabilities``
    float32 from 0 to 1, of the same shape for each region. ``affine`` leads from voxels to mm, in RAS. ``warnings`` are
    reasons why no result of these weights can be trusted.
    """

    label: np.ndarray
    regions: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    affine: np.ndarray
    warnings: Sequence[str]


class Bundle:
    """A bundle with its weights, or a trained nnU-Net, loaded once; the arguments are options of the verb ``predict``.

    Raises what `load_predictor` raises, and ValueError for an unknown decision.

    Examples:
        >>> import numpy as np
        >>> from common.cohorts.phantom.simulation import simulate
        >>> from mmb import Bundle
        >>> images, _ = simulate(seed=1, shape=(24, 24, 24), spacing=6)  # no patient was scanned
        >>> bundle = Bundle("m3ae", recipe="phantom")  # weights that were trained on such images alone
        >>> result = bundle.segment({"flair": images["flair"], "t1ce": images["t1c"]}, affine=np.diag([-6, -6, 6, 1]))
        >>> result.label.shape, list(result.regions)
        ((24, 24, 24), ['WT', 'TC', 'ET'])
    """

    def __init__(
        self,
        bundle: str = "m3ae",
        recipe: str | None = None,
        ckpt_path: str | None = None,
        device: str | None = None,
        decision: str | None = None,
    ) -> None:
        self._predictor = load_predictor(bundle, recipe, ckpt_path, device, decision)
        self.cohort = self._predictor.cohort

    def segment(self, images: Mapping[str, str | Path | np.ndarray], affine: np.ndarray | None = None) -> Result:
        """Segment a case, from any of the cohort's modalities; an nnU-Net needs those that it was trained on.

        ``images`` maps a modality, or an alias such as ``t1ce``, to its file, or to its voxels ``(X, Y, Z)``, which
        need an ``affine`` ``(4, 4)`` to mm, in RAS. They have to be prepared as those of the cohort: on one grid, and
        skull-stripped for gliomas. For studies as scanners write them, use `mmb.clinic.study.predict`. Raises
        FileNotFoundError if a file does not exist; ValueError for an unknown modality, an array without a plausible
        affine, and whatever a training refuses: other shapes or grids, constant images, the same one twice, NaN or Inf.
        """
        given = self._given(images, affine)
        made, regions = self._predictor.run(given), self.cohort.labels.regions
        return Result(
            label=made.label,
            regions=dict(zip(regions, made.masks, strict=True)),
            probabilities=dict(zip(regions, made.probabilities, strict=True)),
            affine=next(iter(given.values())).affine,
            warnings=self._predictor.warnings,
        )

    @property
    def network(self) -> nn.Module:
        """The network with its weights; only a bundle has one, not an nnU-Net."""
        return self._inference().network

    def logits(self, images: Mapping[str, str | Path | np.ndarray], affine: np.ndarray | None = None) -> MetaTensor:
        """Return the logits ``(C, X, Y, Z)`` of a case, on the network's own grid, which their affine tells.

        The images are those of `segment`; they are normalised and resampled as in the training, and go through the
        network in windows. C are the regions, or the background and the classes, by the bundle.
        """
        return self._inference().logits(self._given(images, affine))

    def _inference(self) -> Inference:
        if not isinstance(self._predictor, Inference):
            raise ValueError("network and logits are those of a bundle; this is a trained nnU-Net.")
        return self._predictor

    def _given(
        self, images: Mapping[str, str | Path | np.ndarray], affine: np.ndarray | None
    ) -> dict[str, nib.Nifti1Image]:
        modalities = self.cohort.modalities
        resolve_subset(images, modalities)  # refuses unknown names, a modality twice, and none
        names = {canonical(name, modalities): name for name in images}
        volumes = {name: _volume(given, images[given], affine) for name, given in names.items()}
        files = {given: str(image) for given, image in images.items() if isinstance(image, str | Path)}
        check_volumes(volumes, {name: files.get(given, given) for name, given in names.items()}, self.cohort)
        return {name: nib.Nifti1Image(v.numpy(), v.affine.numpy()) for name, v in volumes.items()}


def _volume(name: str, image: str | Path | np.ndarray, affine: np.ndarray | None) -> MetaTensor:
    """Return an image ``(X, Y, Z)``; errors name it."""
    if isinstance(image, str | Path):
        return read_modality(str(image), None, {})
    voxels, to_mm = np.asarray(image), np.asarray(affine)
    if to_mm.dtype.kind not in REAL or to_mm.shape != (4, 4) or to_mm[3].tolist() != [0, 0, 0, 1]:
        raise ValueError(
            f"{name}: an array has no voxel size; give the affine (4, 4) of all arrays, such as "
            "numpy.diag([1, 1, 1, 1]) for voxels of 1 mm with axes to the right, the front and the top."
        )
    if voxels.dtype.kind not in REAL or voxels.ndim != 3 or not voxels.size:
        raise ValueError(f"{name}: {voxels.dtype}, shape {voxels.shape}; expected real numbers (X, Y, Z).")
    try:
        require_plausible(to_mm, voxels.shape)
    except ValueError as error:
        raise ValueError(f"{name}: {error}.") from None
    return zero_background(MetaTensor(voxels.astype(np.float32), affine=torch.as_tensor(to_mm.astype(float))))
