"""The app: the bundles of this collection as models of MONAI Label, on one store of studies."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from typing import Any

import nibabel as nib
import numpy as np
from fastapi import HTTPException
from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp

from common.io import read_volume
from common.study.reading import choose_reference
from label.infer import Segmentation, Worker
from label.studies import Studies, class_label, on_grid, open_studies
from label.train import FineTuning

BUNDLES = ("m3ae", "passion", "gss", "mag_ms", "medmap")
RECIPE = "open_glioma"
"""That the bundles' own weights were trained with."""


class App(MONAILabelApp):
    """What a server does for its clients; the server itself is `label.server`.

    Args:
        app_dir: of MONAI Label.
        studies: a folder with a subfolder for each study, or the URL of a DICOMweb service.
        conf: ``output``, the folder for trainings and adopted weights; and optionally ``models`` (names or folders of
            bundles, by commas; all by default), ``device``, ``recipe`` that the weights were trained with (by
            default `RECIPE`), ``<model>.recipe`` and ``<model>.ckpt_path``.

    Raises:
        OSError, ValueError: a model cannot be served, or the studies cannot be reached; what is wrong is said.
    """

    def __init__(self, app_dir: str, studies: str, conf: Mapping[str, str]) -> None:
        self._output, self._worker, self._starting = Path(conf["output"]), Worker(), Lock()
        self._reading = Lock()  # one at a time: DICOM is read with the process's log held back
        names = [name.strip() for name in conf.get("models", ",".join(BUNDLES)).split(",")]
        self._models = {Path(name).name: self._model(name, conf) for name in names}
        _refuse_unknown(conf, self._models)
        first, *others = self._models.values()
        odd = [one.bundle for one in others if _shared(one) != _shared(first)]
        if odd:
            raise ValueError(f"{first.bundle} and {odd[0]} have other classes or modalities; serve them separately.")
        super().__init__(
            app_dir,
            studies,
            dict(conf),
            name="Missing-modality bundles",
            description="Brain tumours from any subset of T1, T1c, T2 and FLAIR. Research only, not for clinical use.",
            labels=list(first.labels),
        )

    def _model(self, name: str, conf: Mapping[str, str]) -> Segmentation:
        short = Path(name).name
        recipe, weights = conf.get(f"{short}.recipe", conf.get("recipe", RECIPE)), conf.get(f"{short}.ckpt_path")
        return Segmentation(
            name, self._worker, self._output / short / "served.pt", recipe, weights, device=conf.get("device")
        )

    def init_datastore(self) -> Studies:
        """Open the store."""
        cohort = next(iter(self._models.values())).cohort
        user, password = settings.MONAI_LABEL_DICOMWEB_USERNAME, settings.MONAI_LABEL_DICOMWEB_PASSWORD
        return open_studies(self.studies, cohort, user, password)

    def init_infers(self) -> dict[str, Segmentation]:
        """Return the models."""
        return self._models

    def init_trainers(self) -> dict[str, FineTuning]:
        """Return a trainer for each model."""
        return {name: FineTuning(model, self.studies, self._output / name) for name, model in self._models.items()}

    def infer(self, request: Mapping[str, Any], datastore: None = None) -> dict[str, Any]:
        """Segment a study, see `Segmentation.__call__`; ``model`` says by which model."""
        return self._named(self._infers, request.get("model"))(request, self.datastore())

    def next_sample(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return a study without a final label, {} if there is none."""
        strategy = request.get("strategy") or "random"
        found = self._named(self._strategies, strategy)({**request, "strategy": strategy}, self.datastore())
        return {**found, **self.datastore().get_image_info(found["id"])} if found else {}

    def image(self, image: str, folder: str | Path) -> Path:
        """Write the volume of a study that a client is shown, and on whose grid it gets a result, as NIfTI."""
        with self._reading:
            study, reference = self.datastore().read(image, folder)
        path = Path(folder, "image.nii.gz")
        nib.save(study.images[choose_reference(study, reference)[0]], path)
        return path

    def label(self, image: str, tag: str, folder: str | Path) -> Path:
        """Write a study's label map as NIfTI; raise FileNotFoundError if it has none of this tag."""
        path = Path(folder, "label.nii.gz")
        with self._reading:
            study, _ = self.datastore().read(image, folder)
            nib.save(self.datastore().label(image, tag, study, folder)[1], path)
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
        studies, label = self.datastore(), _read_label(file)
        voxels = _by_name(np.asarray(label.dataobj), params.get("label_info"), studies.cohort.labels.values)
        label = nib.Nifti1Image(voxels, label.affine)
        with self._reading, TemporaryDirectory() as folder:
            study, shown = studies.read(image, folder)
            modality = on_grid(study, label, shown)
            return {"image": image, "label": studies.keep_final(image, label, study, modality, folder)}

    def start_training(self, model: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Start a training of a model, or adopt a finished one, see `FineTuning.__call__`.

        Raises:
            HTTPException: one is running, be it of another model (429).
            FileNotFoundError: there is no such model, or no such training to adopt.
            ValueError: nothing can be trained or adopted so.
        """
        trainer = self._named(self._trainers, model)
        with self._starting:
            if not params.get("adopt") and any(one.running for one in self._trainers.values()):
                raise HTTPException(429, "A training is running; stop it, or wait until it has ended.")
            return trainer(params, self.datastore())

    def training(self) -> dict[str, Any]:
        """Return the status of the last training, {} if there was none."""
        return max((one.status() for one in self._trainers.values()), key=lambda one: one.get("id", ""))

    def stop_training(self) -> dict[str, Any]:
        """End the training that is running, and return the status of the last one."""
        for trainer in self._trainers.values():
            trainer.stop()
        return self.training()

    def close(self) -> None:
        """End what is running."""
        self.stop_training()
        self._worker.close()

    def _named(self, tasks: Mapping[str, Any], name: str | None) -> Any:
        if name not in tasks:
            raise FileNotFoundError(f"There is no {str(name)!r}; there are {', '.join(tasks)}.")
        return tasks[name]


def _shared(model: Segmentation) -> tuple[Any, ...]:
    """Return what all models of a store have in common."""
    return model.cohort.labels.values, model.cohort.labels.regions, model.cohort.modalities


def _refuse_unknown(conf: Mapping[str, str], models: Mapping[str, Segmentation]) -> None:
    own = [f"{name}.{key}" for name in models for key in ("recipe", "ckpt_path")]
    known = ["output", "models", "device", "recipe", *own]
    unknown = [key for key in conf if key not in known]
    if unknown:
        raise ValueError(f"--conf {unknown[0]}: no such setting; there are {', '.join(known)}.")


def _read_label(file: str | Path) -> nib.Nifti1Image:
    volume = read_volume(file)
    voxels = volume.numpy().astype(np.uint8)
    if volume.ndim != 3 or not np.array_equal(voxels, volume.numpy()):
        raise ValueError(f"A label map of shape {tuple(volume.shape)}; expected one volume of whole numbers.")
    return nib.Nifti1Image(voxels, volume.affine.numpy())


def _by_name(voxels: np.ndarray, info: Any, values: Mapping[str, int]) -> np.ndarray:
    """Return a label map in the cohort's values.

    Args:
        voxels: the label map of a client.
        info: a list with ``name`` for the values 1, 2, ..., or nothing.
        values: class -> the cohort's value.

    Raises:
        ValueError: a name or value is of no class, or ``idx`` says another value than the place in the list.
    """
    by_name = {class_label(name): value for name, value in values.items()}
    table = {0: 0}
    if info:
        for number, segment in enumerate(info, start=1):
            name = str(segment.get("name"))
            if segment.get("idx", number) != number:
                raise ValueError(f"Segment {name!r} is number {number} in the list and {segment['idx']} by its idx.")
            if name not in by_name:
                raise ValueError(f"Segment {name!r}; expected some of {', '.join(by_name)}. Rename or remove it.")
            table[number] = by_name[name]
    else:
        table.update({value: value for value in values.values()})
    unknown = sorted(set(np.unique(voxels).tolist()) - set(table))
    if unknown:
        raise ValueError(f"The label map has the values {unknown}, which are of no segment; expected {sorted(table)}.")
    return np.array([table.get(value, 0) for value in range(256)], np.uint8)[voxels]
