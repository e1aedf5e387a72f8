"""A bundle's trained network from Python: images in, label map, regions and probabilities out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import nibabel as nib
import numpy as np
from monai.data import MetaTensor
from nibabel.orientations import apply_orientation, io_orientation, ornt_transform

from clinic.study.inference import Inference
from common.cohorts.check import read_modality, zero_background
from common.io.settings import check_choice
from common.modalities import canonical, resolve_subset
from common.transforms.decision import DECISIONS
from common.transforms.load import check_volumes


@dataclass(frozen=True)
class Result:
    """What a network says of a case, on the voxels of its images.

    Attributes:
        label: label map ``(X, Y, Z)`` in the cohort's values.
        regions: region -> bool ``(X, Y, Z)``.
        probabilities: region -> float32 ``(X, Y, Z)``, from 0 to 1.
        affine: of the images: voxels to mm, in RAS.
        warnings: reasons why no result of these weights can be trusted.
    """

    label: np.ndarray
    regions: dict[str, np.ndarray]
    probabilities: dict[str, np.ndarray]
    affine: np.ndarray
    warnings: Sequence[str]


class Bundle:
    """A bundle with its weights, which are loaded once; the arguments are options of the verb ``predict``.

    Raises what `Inference` raises, and ValueError for an unknown decision.
    """

    def __init__(
        self,
        bundle: str = "m3ae",
        recipe: str | None = None,
        ckpt_path: str | None = None,
        device: str | None = None,
        decision: str | None = None,
    ) -> None:
        if decision is not None:
            check_choice("decision", decision, DECISIONS)
        self._folder = TemporaryDirectory()  # which goes with this object
        self._inference = Inference(bundle, recipe, ckpt_path, device, Path(self._folder.name), decision)
        self.cohort = self._inference.cohort

    def segment(self, images: Mapping[str, str | Path | np.ndarray], affine: np.ndarray | None = None) -> Result:
        """Segment a case, from any of the cohort's modalities.

        The images have to be prepared as those of the cohort: on one grid, and skull-stripped for gliomas. For studies
        as scanners write them, use `clinic.study.predict.predict`. Raises FileNotFoundError if a file does not exist;
        ValueError for an unknown modality, an array without ``affine``, and for whatever a training refuses: images of
        other shapes, on other grids, constant ones, the same one twice, NaN or Inf.

        Args:
            images: modality, or an alias such as ``t1ce`` -> its file, or its voxels ``(X, Y, Z)``.
            affine: of arrays ``(4, 4)``: voxels to mm, in RAS.
        """
        modalities = self.cohort.modalities
        resolve_subset(images, modalities)  # refuses unknown names, a modality twice, and none
        names = {canonical(name, modalities): name for name in images}
        volumes = {name: _volume(given, images[given], affine) for name, given in names.items()}
        sources = {name: given if _is_array(images[given]) else str(images[given]) for name, given in names.items()}
        check_volumes(volumes, sources, self.cohort)
        given = {name: nib.Nifti1Image(v.numpy(), v.affine.numpy()) for name, v in volumes.items()}
        before = next(iter(given.values()))
        turned = {name: nib.as_closest_canonical(image) for name, image in given.items()}
        made = self._inference.run(turned)
        back = ornt_transform(io_orientation(next(iter(turned.values())).affine), io_orientation(before.affine))
        regions = self.cohort.labels.regions
        return Result(
            label=apply_orientation(made.label, back),
            regions={name: apply_orientation(mask, back) for name, mask in zip(regions, made.masks, strict=True)},
            probabilities={
                name: apply_orientation(each, back) for name, each in zip(regions, made.probabilities, strict=True)
            },
            affine=before.affine,
            warnings=self._inference.warnings,
        )


def _is_array(image: str | Path | np.ndarray) -> bool:
    return not isinstance(image, str | Path)


def _volume(name: str, image: str | Path | np.ndarray, affine: np.ndarray | None) -> MetaTensor:
    """Return an image ``(X, Y, Z)``; errors name it."""
    if not _is_array(image):
        return read_modality(str(image), None, {})
    if affine is None or np.shape(affine) != (4, 4) or not np.linalg.det(affine):
        raise ValueError(
            f"{name}: an array has no voxel size; give the affine (4, 4) of all arrays, such as "
            "numpy.diag([1, 1, 1, 1]) for voxels of 1 mm with axes to the right, the front and the top."
        )
    if np.ndim(image) != 3:
        raise ValueError(f"{name}: shape {np.shape(image)}; expected (X, Y, Z).")
    return zero_background(MetaTensor(np.array(image, dtype=np.float32), affine=np.array(affine, dtype=float)))
