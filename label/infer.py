"""A bundle as a model of MONAI Label: a study in, a label map and a DICOM SEG out, by `common.engines.predict`."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ITKWriter
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from common.engines.predict import Inference, Prediction, predict
from common.io import flag
from common.io.dicom import CLASSES
from common.modalities import display_name
from label.studies import Studies

EXTENSIONS = (".nii.gz", ".nii", ".nrrd")


class Segmentation(InferTask):
    """A bundle with its weights, which are checked as it is made, and read again, strictly, for each study.

    Args:
        bundle: its name or folder.
        adopted: weights that are served in the place of others once they are there, see `label.train`.
        recipe: that the weights were trained with, see `predict`.
        ckpt_path: weights other than the bundle's own.
        device: to run on; None: a GPU if there is one.

    Raises:
        FileNotFoundError: there is no such bundle, recipe or weights.
        ValueError: the weights are not of this network, or it is not said which ones are to be served.
    """

    def __init__(
        self,
        bundle: str,
        adopted: Path,
        recipe: str | None = None,
        ckpt_path: str | None = None,
        device: str | None = None,
    ) -> None:
        if ckpt_path and adopted.is_file():
            raise ValueError(f"{bundle}: both {ckpt_path} and {adopted} could be served; move one of them away.")
        self.bundle, self.adopted, self.recipe, self.own, self.device = bundle, adopted, recipe, ckpt_path, device
        inference = self.check(self.ckpt_path)
        self.cohort, self.weights = inference.cohort, inference.weights
        values = {class_label(name): value for name, value in self.cohort.labels.values.items()}
        super().__init__(InferType.SEGMENTATION, values, 3, inference.metadata["name"], self._options())

    @property
    def ckpt_path(self) -> str | None:
        """The weights to serve; None: the bundle's own."""
        return str(self.adopted) if self.adopted.is_file() else self.own

    def check(self, ckpt_path: str | None) -> Inference:
        """Build the network and load weights, to see whether they fit; raise as the class does."""
        with tempfile.TemporaryDirectory() as folder:
            return Inference(self.bundle, self.recipe, ckpt_path, self.device, Path(folder))

    def is_valid(self) -> bool:
        """Return True: a model that is not valid is not made."""
        return True

    def _options(self) -> dict[str, Any]:
        use = {f"use_{name}": True for name in self.cohort.modalities}
        return {**use, "series": "", "skull_strip": False, "store": False}

    def __call__(self, request: Mapping[str, Any], studies: Studies) -> dict[str, Any]:
        """Segment a study.

        Args:
            request: ``image`` (a study, or a DICOM series on whose grid the result is wanted) and ``output_dir``; and
                the options in `config`: ``use_t1`` and the like (False leaves a modality out), ``series`` (such as
                ``t1c=7, flair=4`` by SeriesNumber, or a mapping), ``skull_strip``, ``store`` or ``save_label``, and
                ``result_extension``.
            studies: where the image is.

        Returns:
            ``file``, the label map; ``dicom_seg``, None for NIfTI studies and if nothing was found; ``params``: what
            was used, left out and missing, warnings, the values of the classes that occur, and what was stored as.

        Raises:
            FileNotFoundError: there is no such study.
            PermissionError: the image lies outside the store.
            ValueError: the study or the options cannot be used.
        """
        cohort, folder = self.cohort, Path(request["output_dir"])
        wanted = [name for name in cohort.modalities if _flag(request, f"use_{name}", True)]
        if not wanted:
            raise ValueError("All modalities are left out; use one at least.")
        extension = request.get("result_extension") or EXTENSIONS[0]
        if extension not in EXTENSIONS:
            raise ValueError(f"result_extension {extension!r}; expected one of {', '.join(EXTENSIONS)}.")
        store = _flag(request, "store") or _flag(request, "save_label")
        by_hand = _by_hand(request.get("series"))
        study, reference = studies.fetch(str(request["image"]), folder)
        results = folder / "results"
        prediction = _predict(
            study, results, self.bundle, by_hand, wanted, reference, self.recipe, self.ckpt_path, self.device,
            skull_strip=_flag(request, "skull_strip"),
        )  # fmt: skip
        present = set(np.unique(np.asarray(prediction.label.dataobj)).tolist()) - {0}
        found = list(prediction.files) if present else []
        stored = studies.keep_result(str(request["image"]), prediction.files) if store and found else None
        return {
            "file": _write(prediction.label, folder / f"label{extension}"),
            "dicom_seg": prediction.files.get("DICOM SEG"),
            "params": {
                "label_names": {name: value for name, value in self.labels.items() if value in present},
                "empty": not present,
                "stored": stored,
                **_told(prediction, [name for name in cohort.modalities if name not in wanted]),
            },
        }


def class_label(name: str) -> str:
    """Return what clients call a class: as in our DICOM SEG, e.g. ``Oedema`` for ``ED``."""
    return CLASSES.get(name, (name,))[0]


def _predict(study: Path, *arguments: Any, **options: Any) -> Prediction:
    """Call `predict`; no message names a folder of the server."""
    try:
        return predict(study, *arguments, **options)
    except (ValueError, FileNotFoundError) as error:
        kind = ValueError if isinstance(error, ValueError) else FileNotFoundError
        raise kind(str(error).replace(f"{study}", "The study")) from None


def _told(prediction: Prediction, left_out: list[str]) -> dict[str, Any]:
    summary = prediction.summary
    return {
        "modalities": {
            used.modality: {"source": used.source, "reason": used.reason, "confidence": used.confidence}
            for used in summary.used
        },
        "left_out": left_out,
        "missing": [name for name in summary.missing if name not in left_out],
        "reference": prediction.reference,
        "volumes_ml": {region: round(volume, 3) for region, volume in summary.volumes.items()},
        "warnings": list(summary.warnings),
        "explanations": prediction.explanations,
        "summary": f"{summary.title}; {', '.join(map(display_name, summary.missing)) or 'nothing'} missing.",
    }


def _flag(request: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = request.get(key)
    return default if value is None or value == "" else flag(key, value)


def _by_hand(said: Any) -> Mapping[str, Any] | None:
    """Return modality -> SeriesNumber."""
    if not said or isinstance(said, Mapping):
        return said or None
    pairs = [re.fullmatch(r"\s*(\w+)\s*=\s*([\w.]+)\s*", pair) for pair in str(said).split(",")]
    if None in pairs:
        raise ValueError(f"series {said!r}; expected modalities and SeriesNumbers, such as t1c=7, flair=4.")
    return dict(pair.groups() for pair in pairs)


def _write(label: nib.Nifti1Image, path: Path) -> Path:
    if path.suffix == ".nrrd":
        writer = ITKWriter(output_dtype=np.uint8)
        writer.set_data_array(np.asarray(label.dataobj), channel_dim=None)
        writer.set_metadata({"affine": label.affine})
        writer.write(path)
    else:
        nib.save(label, path)
    return path
