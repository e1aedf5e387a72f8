"""What images show beneath heads: at the edge of the brain that was cut out of them, T1 and T1c are not compared."""

from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from heads import with_bright_edge, with_heads
from phantom_case import LPS

from clinic.study import predict
from clinic.study.grid import Grid, resample
from clinic.study.looking import look_at
from clinic.study.reading import Study
from clinic.study.skull import Brain
from common.cohorts.phantom.simulation import simulate
from common.cohorts.registry import PHANTOM

CPU = torch.device("cpu")


@pytest.fixture
def brains(monkeypatch) -> dict[str, np.ndarray]:
    """T1 and T1c of a phantom, of which the T1 is bright at its edge; its brain is found without deepbet."""
    made, _ = simulate(77_080)
    images = {"t1": with_bright_edge(made["t1"]), "t1c": made["t1c"]}

    def find_brain(aligned, *_) -> Brain:
        (image, *_) = aligned.images.values()
        there = nib.Nifti1Image((made["t1"] > 0).astype(np.float32), LPS)
        mask = resample(there, Grid(image.shape, image.affine)) > 0
        return Brain(mask, "t1", mask.sum() / 1000, True, {}, {})

    monkeypatch.setattr("clinic.study.looking.find_brain", find_brain)
    monkeypatch.setattr("clinic.study.predict.find_brain", find_brain)
    return images


def looked_at(images: dict[str, nib.Nifti1Image], heads: list[str]) -> dict[str, torch.Tensor]:
    headers = {name: SimpleNamespace(modality=name) for name in images}
    candidates = [
        SimpleNamespace(name=name, frame="frame", verdict=headers[name], read=lambda image=image: image)
        for name, image in images.items()
    ]
    judged = look_at(candidates, PHANTOM, CPU)
    return {name: torch.tensor([*shown.values()]) for name, shown in zip(images, judged, strict=True)}


def prepared(images: dict[str, nib.Nifti1Image], heads: list[str]) -> dict[str, torch.Tensor]:
    said = (dict.fromkeys(images, text) for text in ("frame", "image file", "named by its file"))
    study = Study(images, *said, dict.fromkeys(images), [], [], skulls=heads)
    return predict._prepare(study, None, "auto", SimpleNamespace(cohort=PHANTOM, device=CPU)).judged


@pytest.mark.parametrize("judge", [looked_at, prepared])
def test_a_t1_that_is_bright_at_its_edge_is_known_where_the_brain_was_cut_out_of_a_head(brains, judge):
    for volumes, heads in ((brains, []), (with_heads(brains), ["t1", "t1c"])):
        images = {name: nib.Nifti1Image(volume.astype(np.float32), LPS) for name, volume in volumes.items()}
        native, enhanced = judge(images, heads)["t1"][:2]
        assert (native > enhanced) == bool(heads)
