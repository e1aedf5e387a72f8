"""Loading any subset of a subject's modalities, and refusing unusable files."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform

from common.cohorts import Cohort, get_cohort
from common.cohorts.check import coarse, findings, read_modality, tilted
from common.cohorts.registry import cohort_of
from common.io.facts import unseen
from common.io.geometry import grid_difference
from common.io.images import label_map, read_volume
from common.modalities import canonical, resolve_subset, subset_name

logger = logging.getLogger(__name__)


class LoadSubjectd(MapTransform):
    """Load a datalist item into ``image`` ``(M, X, Y, Z)``, float32 with missing modalities as NaN, and ``label``.

    The item names one file per modality (keys ``image``, ``modalities``, optionally ``channels``). Files of modalities
    that are not requested are never opened. If ``image`` is a single path, the file has the shape ``(X, Y, Z, M)`` with
    the cohort's channel order, as MONAI Label passes it, and a channel of NaN is a missing modality. ``label`` becomes
    ``(1, X, Y, Z)`` in the cohort's values, of type ``LabelSet.dtype``; if the item names its ``source``, the file has
    the values of that cohort. Affines are in mm, RAS. A constant background other than 0 becomes 0 (see
    `common.cohorts.check.zero_background`). Raises FileNotFoundError if a listed file does not exist; ValueError if the
    subject has none of the requested modalities or no label, a file is corrupt, grids differ (the message says by how
    many mm), an image has NaN or Inf or is constant, one image is given for two modalities, or a label value is
    unknown.

    Args:
        cohort: the cohort (see `get_cohort`), which defines channel order and label values.
        modalities: the requested subset; None takes every modality that the subject has.
        keys: ``image``, or ``image`` and ``label``.
        trained: voxel size in mm that the network was trained at, to warn about coarser or tilted images; None skips
            these warnings.
        seen: modalities that the network saw in training, to warn about others; None skips this.

    Examples:
        >>> from tempfile import TemporaryDirectory
        >>> import nibabel as nib
        >>> import numpy as np
        >>> from common.transforms import LoadSubjectd
        >>> load = LoadSubjectd("brats2021", keys=["image"])
        >>> with TemporaryDirectory() as folder:
        ...     nib.save(nib.Nifti1Image(np.pad(np.arange(64.0).reshape(4, 4, 4), 2), np.eye(4)), f"{folder}/a.nii.gz")
        ...     item = load({"case": "A", "image": [f"{folder}/a.nii.gz"], "modalities": ["flair"]})
        >>> item["image"].shape, item["image"].isnan().all(dim=(1, 2, 3)).tolist(), item["subset"]
        (torch.Size([4, 8, 8, 8]), [True, True, True, False], 'flair')
    """

    def __init__(
        self,
        cohort: str,
        modalities: Sequence[str] | None = None,
        keys: Sequence[str] = ("image", "label"),
        trained: Sequence[float] | None = None,
        seen: Sequence[str] | None = None,
    ) -> None:
        super().__init__(keys, allow_missing_keys=True)
        self.cohort = get_cohort(cohort)
        self.requested = resolve_subset(modalities, self.cohort.modalities)
        self.trained, self.seen = trained, seen

    def __call__(self, data: Mapping[str, Any]) -> dict[str, Any]:
        item = dict(data)
        case = item.get("case") or _stem(item["image"])
        volumes, sources = self._volumes(item, case)
        check_volumes(volumes, sources, self.cohort)
        first = next(iter(volumes.values()))
        if warning := unseen(list(volumes), self.seen):
            logger.warning(f"{case}: {warning}")
        if self.trained is not None:
            affine, in_atlas = first.affine.numpy(), self.cohort.skull_stripped
            for warning in filter(None, (coarse(affine, self.trained), tilted(affine) if in_atlas else None)):
                logger.warning(f"{case}: {warning}.")
        item |= subject(volumes, self.cohort, case)
        if "label" in self.keys:
            if "label" not in item:
                raise ValueError(f"{case}: the datalist names no label; expected a segmentation file (key `label`).")
            item["label"] = self._label(item, first, next(iter(sources.values())))
        else:
            item.pop("label", None)
        return item

    def _volumes(self, item: Mapping[str, Any], case: str) -> tuple[dict[str, MetaTensor], dict[str, str]]:
        """Read the requested modalities of the item: name -> volume ``(X, Y, Z)``, and name -> file."""
        if isinstance(item["image"], str | Path):
            stack, order = read_volume(item["image"]), self.cohort.modalities
            if stack.ndim != 4 or stack.shape[-1] != len(order):
                raise ValueError(
                    f"{item['image']}: shape {tuple(stack.shape)}; expected (X, Y, Z, {len(order)}) with the channels "
                    f"{', '.join(order)}; fill absent channels with NaN."
                )
            paths, names, channels = [str(item["image"])] * len(order), list(order), range(len(order))
            present = [not bool(torch.isnan(stack[..., c]).all()) for c in channels]
            opened = {str(item["image"]): stack}
        else:
            paths, names = item["image"], [canonical(name, self.cohort.modalities) for name in item["modalities"]]
            channels = item.get("channels", [None] * len(paths))
            present = [True] * len(paths)
            opened = {}
        volumes, sources = {}, {}
        for path, name, channel, has_it in zip(paths, names, channels, present, strict=True):
            if name not in self.requested or not has_it:
                continue
            volumes[name], sources[name] = read_modality(path, channel, opened), str(path)
        if not volumes:
            raise ValueError(
                f"{case}: the case has none of the requested modalities ({subset_name(self.requested)}); it has "
                f"{subset_name([n for n, p in zip(names, present, strict=True) if p]) or 'none'}. "
                "Request at least one of them."
            )
        return volumes, sources

    def _label(self, item: Mapping[str, Any], image: MetaTensor, image_path: str) -> MetaTensor:
        path, source = item["label"], cohort_of(item, self.cohort)
        label = label_map(read_volume(path), path)
        _check_grid(label, path, image, image_path)
        values = source.labels.read(label.as_tensor()[None], str(path))
        if source is not self.cohort:
            values = self.cohort.labels.adopt(values, source.labels)
        return MetaTensor(values, affine=label.affine)


def subject(volumes: Mapping[str, MetaTensor], cohort: Cohort, case: str) -> dict[str, Any]:
    """Return a case's item: ``image`` ``(M, X, Y, Z)`` of its volumes ``(X, Y, Z)``, missing modalities as NaN."""
    first = next(iter(volumes.values()))
    absent = torch.full(first.shape, float("nan"))
    image = torch.stack([volumes[m].as_tensor() if m in volumes else absent for m in cohort.modalities])
    meta = {
        "original_affine": first.affine.clone(),
        "spatial_shape": np.asarray(first.shape),
        "filename_or_obj": f"{case}.nii.gz",  # SaveImaged names its output after it
    }
    return {"case": case, "subset": subset_name([*volumes]), "image": MetaTensor(image, affine=first.affine, meta=meta)}


def check_volumes(volumes: Mapping[str, MetaTensor], sources: Mapping[str, str], cohort: Cohort) -> None:
    """Refuse volumes ``(X, Y, Z)`` that cannot be one subject's modalities, and warn about suspicious ones.

    The rules are `common.cohorts.check.findings`, and that all lie on one grid; ``sources`` are the files' names.
    """
    for flaw in findings(volumes, cohort):
        files = " and ".join(sources[name] for name in flaw.modalities)
        message = f"{files} ({', '.join(flaw.modalities)}): {flaw.what}. {flaw.remedy}"
        if flaw.fatal:
            raise ValueError(message)
        logger.warning(message)
    (first, reference), *others = volumes.items()
    for name, volume in others:
        _check_grid(volume, sources[name], reference, sources[first])


def _check_grid(volume: MetaTensor, path: str, reference: MetaTensor, reference_path: str) -> None:
    if difference := grid_difference(volume, reference):
        raise ValueError(
            f"{path}: not on the grid of {reference_path}: {difference}. Register and resample the images to each "
            "other first."
        )


def _stem(path: str | Path | Sequence[str]) -> str:
    first = path if isinstance(path, str | Path) else path[0]
    return Path(first).name.split(".")[0]
