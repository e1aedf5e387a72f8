"""The app: the bundles of this collection as models of MONAI Label, on one store of studies."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import nibabel as nib
import numpy as np
from fastapi import HTTPException

from common import __version__
from common.cohorts.cohort import Cohort
from common.io import read_volume
from common.study import dicom
from common.study.reading import choose_reference
from label.datastore import class_label, labelled_modality, open_datastore
from label.infer import BundleInferTask, Worker
from label.train import BundleTrainTask

BUNDLES = ("m3ae", "passion", "gss", "mag_ms", "medmap")
RECIPE = "open_glioma"
"""That the bundles' own weights were trained with."""


class App:
    """What a server does for its clients; the server itself is `label.server`.

    Args:
        studies: a folder with a subfolder for each study, or the URL of a DICOMweb service.
        output_dir: for trainings and adopted weights.
        models: names or folders of bundles.
        recipe: that the weights were trained with.
        device: to run on; None: a GPU if there is one.
        settings: ``<model>.recipe`` and ``<model>.ckpt_path``, for models that have others.

    Raises:
        OSError, ValueError: a model cannot be served, or the studies cannot be reached; what is wrong is said.
    """

    def __init__(
        self,
        studies: str,
        output_dir: str | Path,
        models: Sequence[str] = BUNDLES,
        recipe: str = RECIPE,
        device: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        settings, bundles = settings or {}, {Path(bundle).name: bundle for bundle in models}
        known = [f"{name}.{key}" for name in bundles for key in ("recipe", "ckpt_path")]
        unknown = [key for key in settings if key not in known]
        if unknown:
            raise ValueError(f"--{unknown[0]}: no such option; of models there are {', '.join(known)}.")
        self._worker, self._starting = Worker(), Lock()
        self._reading = Lock()  # one at a time: DICOM is read with the process's log held back
        self.models: dict[str, BundleInferTask] = {}
        for name, bundle in bundles.items():
            own = settings.get(f"{name}.recipe", recipe), settings.get(f"{name}.ckpt_path")
            self.models[name] = BundleInferTask(bundle, self._worker, Path(output_dir, name), *own, device)
        first, *others = self.models.values()
        for other in others:
            if _vocabulary(other.cohort) != _vocabulary(first.cohort):
                raise ValueError(
                    f"{first.bundle} and {other.bundle} have other classes or modalities; serve them separately."
                )
        self.datastore = open_datastore(studies, first.cohort)
        self.trainers = {
            name: BundleTrainTask(model, studies, Path(output_dir, name)) for name, model in self.models.items()
        }

    def info(self) -> dict[str, Any]:
        """Return what clients are told of the server."""
        return {
            "name": "Missing-modality bundles",
            "description": "Brain tumours from any subset of T1, T1c, T2 and FLAIR. Research only, not for clinical "
            "use.",
            "version": __version__,
            "labels": list(next(iter(self.models.values())).labels),
            "models": {name: model.info() for name, model in self.models.items()},
            "trainers": {name: trainer.info() for name, trainer in self.trainers.items()},
            "strategies": {"random": {"description": "Any study without a final label"}},
            "scoring": {},
            "train_stats": {name: trainer.stats() for name, trainer in self.trainers.items()},
            "datastore": self.datastore.status(),
        }

    def infer(self, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Segment a study by a model, see `BundleInferTask.__call__`."""
        return _named(self.models, model)(request, self.datastore)

    def next_sample(self, strategy: str) -> dict[str, Any]:
        """Return a study without a final label, {} if there is none."""
        if strategy != "random":
            raise FileNotFoundError(f"There is no {strategy!r}; there is random.")
        left = sorted(set(self.datastore.list_images()) - self.datastore.labelled_images("final"))
        if not left:
            return {}
        image = random.choice(left)
        return {"id": image, "name": f"{image}.nii.gz"}

    def image(self, image: str, folder: str | Path) -> Path:
        """Write the volume of a study that a client is shown, and on whose grid it gets a result, as NIfTI."""
        with self._reading:
            study, series = self.datastore.read_study(image, folder)
        path = Path(folder, "image.nii.gz")
        nib.save(study.images[choose_reference(study, series)[0]], path)
        return path

    def label(self, image: str, tag: str, folder: str | Path) -> Path:
        """Write a study's label map as NIfTI; raise FileNotFoundError if it has none of this tag."""
        path = Path(folder, "label.nii.gz")
        with self._reading:
            study, _ = self.datastore.read_study(image, folder)
            nib.save(self.datastore.read_label(image, tag, study, folder)[1], path)
        return path

    def save_label(self, image: str, file: str | Path, tag: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Store a label map that a person has approved of.

        Args:
            image: the study.
            file: NIfTI or NRRD, on the grid of one of the study's images.
            tag: ``final``.
            params: ``label_info``, a list with ``name`` for the values 1, 2, ... as 3D Slicer sends it; without it the
                values are those of the model's labels.

        Raises:
            FileNotFoundError: there is no such study.
            ValueError: another tag; a label map on another grid, or with values or names of no class.
        """
        if tag != "final":
            raise ValueError(f"tag {tag!r}; only final labels are taken, what models make is stored by them.")
        volume, values = read_volume(file), self.datastore.cohort.labels.values
        voxels = _in_values_of(values, volume.numpy(), params.get("label_info"))
        label = nib.Nifti1Image(voxels, volume.affine.numpy())
        with self._reading, TemporaryDirectory() as folder:
            study, series = self.datastore.read_study(image, folder)
            modality = labelled_modality(study, label, series)
            if self.datastore.label_file == "DICOM SEG":
                path = Path(folder, "final.dcm")
                dicom.write_seg(path, voxels, study.series[modality], values, "corrected by hand", "SEMIAUTOMATIC")
            else:
                path = Path(folder, "final.nii.gz")
                nib.save(label, path)
            return {"image": image, "label": self.datastore.save_label(image, tag, path)}

    def start_training(self, model: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Start a training of a model; or serve the weights of a finished one, if ``params`` has its id as ``adopt``.

        Raises:
            HTTPException: one is running, be it of another model (429).
            FileNotFoundError: there is no such model, or no such training to adopt.
            ValueError: nothing can be trained or adopted so.
        """
        trainer = _named(self.trainers, model)
        with self._starting:
            if params.get("adopt"):
                return trainer.adopt(str(params["adopt"]))
            if any(one.running for one in self.trainers.values()):
                raise HTTPException(429, "A training is running; stop it, or wait until it has ended.")
            return trainer.start(params, self.datastore)

    def training(self) -> dict[str, Any]:
        """Return the status of the last training, {} if there was none."""
        return max((trainer.status() for trainer in self.trainers.values()), key=lambda status: status.get("id", ""))

    def stop_training(self) -> dict[str, Any]:
        """End the training that is running, and return the status of the last one."""
        for trainer in self.trainers.values():
            trainer.stop()
        return self.training()

    def close(self) -> None:
        """End what is running."""
        self.stop_training()
        self._worker.close()


def _vocabulary(cohort: Cohort) -> tuple[Any, ...]:
    return cohort.labels.values, cohort.labels.regions, cohort.modalities


def _named(tasks: Mapping[str, Any], name: str) -> Any:
    if name not in tasks:
        raise FileNotFoundError(f"There is no {name!r}; there are {', '.join(tasks)}.")
    return tasks[name]


def _in_values_of(classes: Mapping[str, int], voxels: np.ndarray, info: Any) -> np.ndarray:
    """Return a label map in the cohort's values.

    Args:
        classes: class -> the cohort's value.
        voxels: the label map of a client.
        info: a list with ``name`` for the values 1, 2, ..., or nothing.

    Raises:
        ValueError: it is no label map; a name or value is of no class, or ``idx`` says another value than the place in
            the list.
    """
    whole = voxels.astype(np.uint8)
    if whole.ndim != 3 or not np.array_equal(whole, voxels):
        raise ValueError(f"A label map of shape {voxels.shape}; expected one volume of whole numbers.")
    by_name = {class_label(name): value for name, value in classes.items()}
    table = {0: 0} if info else {0: 0, **{value: value for value in classes.values()}}
    for number, segment in enumerate(info or [], start=1):
        name = str(segment.get("name"))
        if segment.get("idx", number) != number:
            raise ValueError(f"Segment {name!r} is number {number} in the list and {segment['idx']} by its idx.")
        if name not in by_name:
            raise ValueError(f"Segment {name!r}; expected some of {', '.join(by_name)}. Rename or remove it.")
        table[number] = by_name[name]
    unknown = sorted(set(np.unique(whole).tolist()) - set(table))
    if unknown:
        raise ValueError(f"The label map has the values {unknown}, which are of no segment; expected {sorted(table)}.")
    return np.array([table.get(value, 0) for value in range(256)], np.uint8)[whole]
