"""Inference with a bundle's inference.json for one case on one grid: label map and probabilities."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import nibabel as nib
import numpy as np
import torch
from monai.bundle import ConfigWorkflow
from monai.data import MetaTensor
from nibabel.affines import voxel_sizes
from nibabel.orientations import io_orientation
from torch import nn

from common.cohorts.check import zero_background
from common.cohorts.cohort import Cohort
from common.evaluation.metrics.overlap import region_masks
from common.io.bundle import bundle_root, require_same_common
from common.io.errors import unwrapped_errors
from common.io.facts import setting_of_weights
from common.io.files import file_digest
from common.io.settings import check_choice, usable_device
from common.io.weights import metadata_of, trained_on, weights_name
from common.modalities import display_name, subset_name
from common.transforms.decision import DECISIONS, DecideLabelsd, region_probabilities
from common.transforms.load import check_volumes, subject
from mmb.predictors.calibration import Calibration, calibration_file, read_calibration
from mmb.predictors.nnunet import BRATS_AXES, is_nnunet, load_nnunet
from mmb.predictors.protocol import Predictor, Segmentation

SYNTHETIC = "The weights were trained only on synthetic images: never trust their result on a patient."
"""Warning for results with weights of the phantom cohort."""


def load_predictor(
    bundle: str,
    recipe: str | None = None,
    ckpt_path: str | None = None,
    device: str | None = None,
    decision: str | None = None,
) -> Predictor:
    """Return what segments cases: a bundle's `Inference`, whose arguments these are, or a trained nnU-Net.

    ``bundle`` is the name or folder of a bundle, or the folder of a trained nnU-Net, which has neither recipes nor
    other weights than its own, and gets images as BraTS stores them.
    """
    predictor: Predictor
    if not is_nnunet(bundle):
        predictor = Inference(bundle, recipe, ckpt_path, device)
    elif option := "--recipe" if recipe else "--ckpt_path" if ckpt_path else None:
        raise ValueError(f"{option} is for bundles, but {bundle} is a trained nnU-Net. Leave {option} out.")
    else:
        predictor = load_nnunet(bundle, device, BRATS_AXES)
    if decision is not None:
        predictor.decide_by(decision)
    return predictor


class Inference:
    """A bundle's inference.json, prepared to segment cases, one after the other; for the attributes see `Predictor`.

    Raises FileNotFoundError if there is no such bundle, recipe or weights; ValueError if the weights belong to another
    network, or the calibration beside them is of other weights. ``recipe`` is an overlay with the settings of the
    weights' training, ``ckpt_path`` other weights than the bundle's own; None stands for the config's default.
    """

    def __init__(self, bundle: str, recipe: str | None, ckpt_path: str | None, device: str | None) -> None:
        root, files = config_files(bundle, recipe)
        transforms = {"_target_": "Compose", "transforms": "@image_transforms"}
        overrides: dict[str, Any] = {
            "bundle_root": str(root),
            "dataset": {"_target_": "Dataset", "data": [], "transform": transforms},  # volumes instead of files
            "postprocessing": "@to_probabilities",
            "handlers": [],  # no progress bar
            "_first_": ["inferer"],  # there is no folder of cases
            "dataset_dir": None,
            "output_dir": None,
        }
        if ckpt_path is not None:
            overrides["ckpt_path"] = str(ckpt_path)
        if device is not None:
            overrides["device"] = f"$torch.device({str(usable_device('--device', device))!r})"
        with unwrapped_errors():
            self.workflow = ConfigWorkflow(
                [str(path) for path in files], workflow_type="infer", logging_file=False, **overrides
            )
            self.workflow.initialize()  # reads the weights
        metadata = metadata_of(root)
        self.version, self.title = metadata["version"], metadata["name"]
        self.software = f"{metadata['bundle']} {self.version}"
        self.weights = Path(self._content("ckpt_path"))
        self.cohort: Cohort = self._content("cohort_def")
        self.device: torch.device = self._content("device")
        self.spacing: Sequence[float] = self._content("spacing")
        self.decide_by(self._content("decision"))
        self.weights_name, self.trained_on = weights_name(self.weights), trained_on(self.weights, root)
        self.method = setting_of_weights(self.weights, "method", self.title)
        self.subsets: Sequence[Sequence[str]] | None = None
        self.seen: Sequence[str] | None = setting_of_weights(self.weights, "modalities", None)
        self.warnings: Sequence[str] = (
            [SYNTHETIC] if setting_of_weights(self.weights, "cohort", None) == "phantom" else []
        )

    def decide_by(self, decision: str) -> None:
        """Make label maps by one of `DECISIONS` from now on."""
        self.decision = check_choice("decision", decision, DECISIONS)
        for transform in self._content("to_labels").transforms:
            if isinstance(transform, DecideLabelsd):
                transform.decision = decision
        self.calibration = self._calibration()

    def using(self, modalities: Sequence[str]) -> Self:
        """Return itself, for any modalities."""
        return self

    def run(self, images: Mapping[str, nib.Nifti1Image]) -> Segmentation:
        """Segment a case: modality -> volume, all on one grid; ValueError for what `check_volumes` refuses."""
        volumes = self._volumes(images)
        with unwrapped_errors():
            check_volumes(volumes, {name: display_name(name) for name in volumes}, self.cohort)
            self._content("dataset").data = [subject(volumes, self.cohort, "case")]
            self._content("evaluator").run()  # MONAI's workflow evaluates the config's `run` only once
        (output,) = self._content("evaluator").state.output
        label = self._content("to_labels")({**output, "subset": subset_name([*images])})["pred"][0].cpu().numpy()
        regions = region_probabilities(output["pred"], self.cohort.labels, self._content("inferer").softmax)
        return Segmentation(label, region_masks(label, self.cohort.labels), regions.cpu().numpy())

    @property
    def network(self) -> nn.Module:
        """The network with its weights, in evaluation mode."""
        return self._content("network")

    def logits(self, images: Mapping[str, nib.Nifti1Image]) -> MetaTensor:
        """Return the logits ``(C, X, Y, Z)`` of images, on the network's own grid, which their affine tells."""
        image = self._content("dataset").transform(subject(self._volumes(images), self.cohort, "case"))["image"]
        with torch.inference_mode():
            logits = self._content("inferer")(image[None].to(self.device), self.network.eval())
        return MetaTensor(logits[0].cpu().float()).copy_meta_from(image)

    def _volumes(self, images: Mapping[str, nib.Nifti1Image]) -> dict[str, MetaTensor]:
        affine = torch.as_tensor(_straight(next(iter(images.values())).affine))
        return {
            name: zero_background(MetaTensor(np.asarray(image.dataobj, np.float32), affine=affine))
            for name, image in images.items()
        }

    def _calibration(self) -> Calibration | None:
        path = calibration_file(self.weights)
        if not path.is_file():
            return None
        calibration = read_calibration(path)
        if calibration.weights != file_digest(self.weights):
            raise ValueError(
                f"{path}: a calibration of other weights than {self.weights.name} beside it; make it "
                "anew (mmb calibrate), or remove it."
            )
        return calibration if calibration.decision == self.decision else None

    def _content(self, key: str) -> Any:
        return self.workflow.parser.get_parsed_content(key)


def config_files(bundle: str, recipe: str | None = None) -> tuple[Path, list[Path]]:
    """Return a bundle's folder, and its inference.json with a recipe (name or file) as overlay.

    A bundle that was packaged with another version of ``common`` is refused.
    """
    here = Path(bundle, "configs", "inference.json").is_file()
    root = Path(bundle).resolve() if here else Path(bundle_root(bundle))
    require_same_common(root)
    configs = root / "configs"
    files = [configs / "inference.json"]
    if recipe is not None:
        files.append(Path(recipe) if Path(recipe).is_file() else configs / "recipes" / f"{recipe}.json")
    if not files[-1].is_file():
        known = ", ".join(sorted(path.stem for path in Path(configs, "recipes").glob("*.json")))
        raise FileNotFoundError(f"--recipe {recipe}: no such file or recipe; the bundle has {known or 'none'}.")
    return root, files


def _straight(affine: np.ndarray) -> np.ndarray:
    """Return an affine with its axes along those of space, each in the nearest direction, and at the origin.

    For oblique axes MONAI's Spacingd rounds the grid's origin inconsistently; the network works on voxels. Values are
    rounded to float32, as NIfTI files hold them.
    """
    axes, straight = io_orientation(affine), np.diag([0.0, 0, 0, 1])
    straight[axes[:, 0].astype(int), range(3)] = axes[:, 1] * voxel_sizes(affine).round(6)
    return straight.astype(np.float32).astype(float)
