"""The app behind the server: the bundles as models of MONAI Label, a store of studies, and those that clients send."""

import random
import shutil
from collections import deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import __version__
from common.cohorts.cohort import Cohort
from common.io.files import walk
from mmb.clinic.recognise.site import SiteTable
from mmb.server.datastore import Datastore
from mmb.server.label_files import write_final_label, write_image, write_label
from mmb.server.limits import READ_AT_ONCE
from mmb.server.model import BundleInferTask
from mmb.server.options import InferOptions, Segment, SegmentOptions, options_for
from mmb.server.upload_reading import recognise_upload
from mmb.server.upload_store import Upload, Uploads
from mmb.server.worker import Turns, Worker


class App:
    """The functions of the server; for its options, see `mmb.verbs.serve.serve`.

    Attributes:
        uploads: the studies that clients send.
        reading: turns of uploaded studies to be read; ``fetching`` of requests for images and labels of the store, and
            ``segmenting`` of studies to be segmented.
        worker: segments; ``took`` are the seconds that this took the last times.
    """

    def __init__(
        self,
        studies: str,
        models: Sequence[str],
        recipe: str | None = None,
        device: str | None = None,
        settings: Mapping[str, str] | None = None,
        send: str | None = None,
        site: SiteTable | None = None,
    ) -> None:
        settings, bundles = settings or {}, {Path(bundle).name: bundle for bundle in models}
        known = [f"{name}.{key}" for name in bundles for key in ("recipe", "ckpt_path")]
        unknown = [key for key in settings if key not in known]
        if unknown:
            raise ValueError(f"--{unknown[0]}: no such option; the models' options are {', '.join(known)}.")
        self.worker = Worker("segmented")
        self.models: dict[str, BundleInferTask] = {}
        for name, bundle in bundles.items():
            own = settings.get(f"{name}.recipe", recipe), settings.get(f"{name}.ckpt_path")
            self.models[name] = BundleInferTask(bundle, self.worker, *own, device, site)
        first, *others = self.models.values()
        for other in others:
            if _vocabulary(other.cohort) != _vocabulary(first.cohort):
                raise ValueError(
                    f"{first.bundle} and {other.bundle} differ in classes or modalities; serve them separately."
                )
        self.datastore = Datastore(studies, first.cohort, site)
        self.uploads, self.reading, self.fetching, self.segmenting = Uploads(), Turns(READ_AT_ONCE), Turns(), Turns()
        self.took: deque[float] = deque(maxlen=5)
        self.send, self.cohort, self.site = send, first.cohort, site
        self.segment_options = options_for(SegmentOptions, first.cohort.modalities)
        self.infer_options = options_for(InferOptions, first.cohort.modalities)

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
            "warnings": self.warnings,
        }

    @property
    def warnings(self) -> list[str]:
        """Why no result of some models can be trusted, and which they are."""
        said = dict.fromkeys(text for model in self.models.values() for text in model.warnings)
        names = {
            text: ", ".join(name for name, model in self.models.items() if text in model.warnings) for text in said
        }
        return [f"{names[text]}: {text}" for text in said]

    def copy_own(self, image: str, upload: Upload) -> None:
        """Copy a study of the server's folder, as if a client had sent it."""
        folder = self.datastore.folder(image)
        files = [path for path in walk(folder) if path.is_file()]
        upload.require_room(sum(path.stat().st_size for path in files))
        for path in files:
            copy = upload.study / path.relative_to(folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, copy)
        upload.measure()

    def recognise_upload(self, reader: Worker, folder: Path) -> dict[str, Any]:
        """Return what is in ``folder/study``; see `mmb.server.upload_reading.recognise_upload`."""
        return reader.run(recognise_upload, folder / "study", self.cohort, self.site)

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

    def image(self, reader: Worker, image: str, folder: str | Path) -> Path:
        """Write a study's reference volume; see `write_image`."""
        return Path(folder, reader.run(write_image, self.datastore, image, Path(folder)))

    def label(self, reader: Worker, image: str, tag: str, folder: str | Path) -> Path:
        """Write a study's label map; see `write_label`."""
        return Path(folder, reader.run(write_label, self.datastore, image, tag, Path(folder)))

    def save_label(
        self, reader: Worker, image: str, file: Path, tag: str, info: Sequence[Segment] | None
    ) -> dict[str, Any]:
        """Store a label map that a person has approved; see `write_final_label`.

        ``file`` is the label map as sent by a client, in a folder for temporary files; ``tag`` has to be ``final``.
        """
        if tag != "final":
            raise ValueError(f"tag {tag!r}: expected final; the server stores the results of models itself.")
        name = reader.run(write_final_label, self.datastore, image, file, info, file.parent)
        return {"image": image, "label": self.datastore.save_label(image, tag, file.with_name(name))}

    def close(self) -> None:
        """Stop all processes, and remove all that clients have sent."""
        self.worker.close()
        self.uploads.close()


def _vocabulary(cohort: Cohort) -> tuple[Any, ...]:
    return cohort.labels.values, cohort.labels.regions, cohort.modalities
