"""Cutting the brain out of a head."""

from __future__ import annotations

from dataclasses import replace

import nibabel as nib
import numpy as np
import torch

from common.study.alignment import AlignedStudy
from common.study.scratch import scratch


def strip_skull(aligned: AlignedStudy, reference: str, device: torch.device) -> AlignedStudy:
    """Return the volumes with 0 outside the brain, which HD-BET finds in the reference.

    Args:
        aligned: volumes on one grid.
        reference: modality in which the brain is looked for.
        device: that HD-BET runs on.

    Raises:
        ModuleNotFoundError: brainles-preprocessing is not installed.
    """
    try:
        from brainles_preprocessing.brain_extraction import HDBetExtractor
    except ImportError as error:
        raise ModuleNotFoundError(
            "--skull_strip needs brainles-preprocessing, which is not installed: "
            "pip install 'missing-modality-bundles[skull_strip]'."
        ) from error
    on_gpu = device.type == "cuda"
    with scratch() as folder:
        whole, cut, mask = (folder / f"{name}.nii.gz" for name in ("whole", "cut", "mask"))
        nib.save(aligned.images[reference], whole)
        HDBetExtractor().extract(
            whole,
            cut,
            mask,
            mode="accurate" if on_gpu else "fast",
            device=device.index or 0 if on_gpu else "cpu",
            do_tta=on_gpu,
        )
        brain = np.asarray(nib.load(mask).dataobj) > 0
    images = {
        name: nib.Nifti1Image(np.where(brain, image.dataobj, np.float32(0)), image.affine)
        for name, image in aligned.images.items()
    }
    return replace(aligned, images=images)
