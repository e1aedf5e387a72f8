"""The app behind the server: the bundles as models of MONAI Label, with one store of studies."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from fastapi import HTTPException

from clinic.server.client_files import write_final_label, write_image, write_label
from clinic.server.datastore import open_datastore
from clinic.server.model import BundleInferTask
from clinic.server.training import BundleTrainTask
from clinic.server.worker import Worker
from common import __version__
from common.cohorts.cohort import Cohort

BUNDLES = ("m3ae", "passion", "gss", "mag_ms", "medmap")


class App:
    """The functions of the server; for its options, see `clinic.server.__main__.serve`."""

    def __init__(
        self,
        studies: str,
        output_dir: str | Path,
        models: Sequence[str] = BUNDLES,
        recipe: str | None = None,
        device: str | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> None:
        settings, bundles = settings or {}, {Path(bundle).name: bundle for bundle in models}
        known = [f"{name}.{key}" for name in bundles for key in ("recipe", "ckpt_path")]
        unknown = [key for key in settings if key not in known]
        if unknown:
            raise ValueError(f"--{unknown[0]}: no such option; the models' options are {', '.join(known)}.")
        self._worker, self._reader, self._starting = Worker("segmented"), Worker("read"), Lock()
        self.models: dict[str, BundleInferTask] = {}
        for name, bundle in bundles.items():
            own = settings.get(f"{name}.recipe", recipe), settings.get(f"{name}.ckpt_path")
            self.models[name] = BundleInferTask(bundle, self._worker, Path(output_dir, name), *own, device)
        first, *others = self.models.values()
        for other in others:
            if _vocabulary(other.cohort) != _vocabulary(first.cohort):
                raise ValueError(
                    f"{first.bundle} and {other.bundle} differ in classes or modalities; serve them separately."
                )
        self.datastore = open_datastore(studies, first.cohort)
        self.trainers = {
            name: BundleTrainTask(model, studies, Path(output_dir, name)) for name, model in self.models.items()
        }

    def info(self) -> dict[str, Any]:
        """Return the description of the server for its clients."""
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
        """Segment a study with a model; see `BundleInferTask.__call__`."""
        return _named(self.models, model)(request, self.datastore)

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
        return self._reader.run(write_image, self.datastore, image, Path(folder))

    def label(self, image: str, tag: str, folder: str | Path) -> Path:
        """Write a study's label map; see `write_label`."""
        return self._reader.run(write_label, self.datastore, image, tag, Path(folder))

    def save_label(self, image: str, file: str | Path, tag: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Store a label map that a person has approved; see `write_final_label`.

        ``file`` is the label map as sent by a client, in a folder for temporary files; ``tag`` has to be ``final``.
        ``params`` has ``label_info``, a list with a ``name`` for each of the values 1, 2, ..., as 3D Slicer sends it;
        without it the values are those of the model's labels.
        """
        if tag != "final":
            raise ValueError(f"tag {tag!r}: expected final; the server stores the results of models itself.")
        file = Path(file)
        label = self._reader.run(write_final_label, self.datastore, image, file, params.get("label_info"), file.parent)
        return {"image": image, "label": self.datastore.save_label(image, tag, label)}

    def start_training(self, model: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Start a training of a model, or serve the weights of a finished one, if ``params`` has its id as ``adopt``.

        While a training of any model is running, that is status 429.
        """
        trainer = _named(self.trainers, model)
        if not isinstance(params, Mapping):
            raise ValueError(f"The options of {model} are a {type(params).__name__}; expected a JSON object.")
        with self._starting:
            if params.get("adopt"):
                return trainer.adopt(str(params["adopt"]))
            if any(one.running for one in self.trainers.values()):
                raise HTTPException(429, "A training is running; stop it, or wait until it has ended.")
            return trainer.start(params, self.datastore)

    def training(self) -> dict[str, Any]:
        """Return the status of the last training, or {} if there was none."""
        return max((trainer.status() for trainer in self.trainers.values()), key=lambda status: status.get("id", ""))

    def stop_training(self) -> dict[str, Any]:
        """Stop the running training, and return the status of the last one."""
        for trainer in self.trainers.values():
            trainer.stop()
        return self.training()

    def close(self) -> None:
        """Stop all processes."""
        self.stop_training()
        self._worker.close()
        self._reader.close()


def _vocabulary(cohort: Cohort) -> tuple[Any, ...]:
    return cohort.labels.values, cohort.labels.regions, cohort.modalities


def _named(tasks: Mapping[str, Any], name: str) -> Any:
    if name not in tasks:
        raise FileNotFoundError(f"Unknown model {name!r}; expected one of {', '.join(tasks)}.")
    return tasks[name]
