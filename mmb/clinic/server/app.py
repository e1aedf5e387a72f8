"""The app behind the server: the bundles as models of MONAI Label, with one store of studies."""

import random
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import __version__
from common.cohorts.cohort import Cohort
from mmb.clinic.server.datastore import open_datastore
from mmb.clinic.server.label_files import write_final_label, write_image, write_label
from mmb.clinic.server.model import BundleInferTask
from mmb.clinic.server.upload_reading import recognise_upload
from mmb.clinic.server.worker import Worker

BUNDLES = ("m3ae", "passion", "gss", "mag_ms", "medmap")


class App:
    """The functions of the server; for its options, see `mmb.clinic.server.__main__.serve`."""

    def __init__(
        self,
        studies: str,
        models: Sequence[str] = BUNDLES,
        recipe: str | None = None,
        device: str | None = None,
        settings: Mapping[str, str] | None = None,
        send: str | None = None,
    ) -> None:
        settings, bundles = settings or {}, {Path(bundle).name: bundle for bundle in models}
        known = [f"{name}.{key}" for name in bundles for key in ("recipe", "ckpt_path")]
        unknown = [key for key in settings if key not in known]
        if unknown:
            raise ValueError(f"--{unknown[0]}: no such option; the models' options are {', '.join(known)}.")
        self._worker, self._reader = Worker("segmented"), Worker("read")
        self.models: dict[str, BundleInferTask] = {}
        for name, bundle in bundles.items():
            own = settings.get(f"{name}.recipe", recipe), settings.get(f"{name}.ckpt_path")
            self.models[name] = BundleInferTask(bundle, self._worker, *own, device)
        first, *others = self.models.values()
        for other in others:
            if _vocabulary(other.cohort) != _vocabulary(first.cohort):
                raise ValueError(
                    f"{first.bundle} and {other.bundle} differ in classes or modalities; serve them separately."
                )
        self.datastore = open_datastore(studies, first.cohort)
        self.send, self.cohort = send, first.cohort

    def info(self) -> dict[str, Any]:
        """Return the description of the server for its clients."""
        return {
            "name": "Missing-modality bundles",
            "description": "Brain tumours from any subset of T1, T1c, T2 and FLAIR. Research only, not for clinical "
            "use.",
            "version": __version__,
            "labels": list(next(iter(self.models.values())).labels),
            "models": {name: model.info() for name, model in self.models.items()},
            "trainers": {},
            "strategies": {"random": {"description": "Any study without a final label"}},
            "scoring": {},
            "train_stats": {},
            "datastore": self.datastore.status(),
        }

    def infer(self, model: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Segment a study with a model; see `BundleInferTask.__call__`."""
        return self.model(model)(request, self.datastore)

    def recognise_upload(self, folder: Path) -> dict[str, Any]:
        """Return what is in ``folder/study``; see `mmb.clinic.server.upload_reading.recognise_upload`."""
        return self._reader.run(recognise_upload, folder / "study", self.cohort)

    def segment_upload(
        self, model: str, folder: Path, request: Mapping[str, Any], send: bool, on_progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Segment the study in ``folder/study``; see `BundleInferTask.segment_upload`.

        With ``send``, its DICOM results are stored in the archive that the server was given for them, if any.
        """
        return self.model(model).segment_upload(folder, request, self.send if send else None, on_progress)

    def model(self, name: str) -> BundleInferTask:
        """Return a model; FileNotFoundError if there is none of this name."""
        if name not in self.models:
            raise FileNotFoundError(f"Unknown model {name!r}; expected one of {', '.join(self.models)}.")
        return self.models[name]

    def next_sample(self, strategy: str) -> dict[str, Any]:
        """Return a random study without a final label, or {} if there is none."""
        if strategy != "random":
            raise FileNotFoundError(f"Unknown strategy {strategy!r}; expected random.")
        left = sorted(set(self.datastore.list_images()) - self.datastore.labelled_images("final"))
        if not left:
            return {}
        image = random.choice(left)
        return {"id": image, "name": f"{image}.nii.gz"}

    def image(self, image: str, folder: str | Path) -> Path:
        """Write a study's reference volume; see `write_image`."""
        return Path(folder, self._reader.run(write_image, self.datastore, image, Path(folder)))

    def label(self, image: str, tag: str, folder: str | Path) -> Path:
        """Write a study's label map; see `write_label`."""
        return Path(folder, self._reader.run(write_label, self.datastore, image, tag, Path(folder)))

    def save_label(self, image: str, file: str | Path, tag: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Store a label map that a person has approved; see `write_final_label`.

        ``file`` is the label map as sent by a client, in a folder for temporary files; ``tag`` has to be ``final``.
        ``params`` has ``label_info``, a list with a ``name`` for each of the values 1, 2, ..., as 3D Slicer sends it;
        without it the values are those of the model's labels.
        """
        if tag != "final":
            raise ValueError(f"tag {tag!r}: expected final; the server stores the results of models itself.")
        file, info = Path(file), params.get("label_info")
        name = self._reader.run(write_final_label, self.datastore, image, file, info, file.parent)
        return {"image": image, "label": self.datastore.save_label(image, tag, file.with_name(name))}

    def close(self) -> None:
        """Stop all processes."""
        self._worker.close()
        self._reader.close()


def _vocabulary(cohort: Cohort) -> tuple[Any, ...]:
    return cohort.labels.values, cohort.labels.regions, cohort.modalities
