"""Fine-tuning of a served bundle on the studies that have a final label, in a separate process.

Each training writes into its own folder below the app's output; a finished training is served only after a request to
adopt it. ``python -m clinic.server.training JOB`` is the process; an archive's password is passed in the environment.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import uuid
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Events
from monai.bundle import ConfigParser, ConfigWorkflow

from clinic.server.datastore import Datastore, open_datastore
from clinic.server.errors import writing_to
from clinic.server.model import ADOPTED, WEIGHTS, Adopted, BundleInferTask
from clinic.study.alignment import align
from clinic.study.grid import resample_label_to
from clinic.study.inference import config_files
from common.cohorts import get_cohort
from common.cohorts.datalist import write_datalist
from common.io.command import unwrapped_errors
from common.io.disk import full_disk
from common.io.documents import Document, read_json
from common.io.facts import SETTINGS
from common.io.files import replacing
from common.io.settings import check_number

ENDED = ("DONE", "ERROR", "STOPPED")
DEFAULTS = {"max_epochs": 10, "val_split": 0.2, "adopt": ""}
"""Default options of a training."""
MOST_EPOCHS = 10_000
OUTPUT = "the trainings (--output_dir)"
RECIPE = "open_glioma"
"""Recipe that weights without a recipe of their own are fine-tuned with, in windows as large as at inference."""
NOTHING_MASKED = {"missing_rates": None, "perfect_data": False}
"""Keys of bundles that simulate missing sequences, with the values that turn this off."""


class Job(Document):
    """What a training is to do: ``job.json`` in its folder."""

    studies: str
    cohort: str
    bundle: str
    recipe: str | None
    init_from: str
    device: str | None
    max_epochs: int
    val_split: float


class BundleTrainTask:
    """The trainings of one model, which start from its weights; each gets a subfolder of ``output_dir``."""

    def __init__(self, model: BundleInferTask, studies: str, output_dir: Path) -> None:
        self.model, self.studies, self.output_dir = model, studies, output_dir
        self.run: Path | None = None
        self._ended: dict[str, Any] = {}
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    def info(self) -> dict[str, Any]:
        """Return the description for clients, with the default options."""
        description = f"Fine-tuning of {self.model.name} on studies with a final label"
        return {"description": description, "config": DEFAULTS}

    def stats(self) -> dict[str, Any]:
        """Return the progress of the last training, in the terms of MONAI Label's clients."""
        status = self.status()
        names = {"epoch": "epoch", "max_epochs": "total_epochs", "best_metric": "best_metric"}
        stats = {theirs: status[ours] for ours, theirs in names.items() if status.get(ours) is not None}
        return stats if self.running else {**stats, "total_time": status.get("end_ts", "none")}  # marks it as finished

    def start(self, request: Mapping[str, Any], datastore: Datastore) -> dict[str, Any]:
        """Start a training in a separate process, and return its status.

        ``request`` has ``max_epochs``, and ``val_split``, the fraction of the studies used to select the best epoch.
        """
        options = {**DEFAULTS, **{key: value for key, value in request.items() if value not in (None, "")}}
        epochs = _number("max_epochs", options["max_epochs"], 1, MOST_EPOCHS)
        if epochs % 1:
            raise ValueError(f"max_epochs {epochs}: expected a whole number.")
        share = _number("val_split", options["val_split"], 0, 0.9)
        if not datastore.labelled_images("final"):
            raise ValueError("No study has a final label; submit some labels first.")
        run = self.output_dir / f"{datetime.now():%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:6]}"
        job = Job(
            studies=self.studies,
            cohort=self.model.cohort.name,
            bundle=str(Path(self.model.bundle).resolve()) if Path(self.model.bundle).is_dir() else self.model.bundle,
            recipe=self.model.recipe,
            init_from=str(self.model.ckpt_path or self.model.weights),
            device=self.model.device,
            max_epochs=int(epochs),
            val_split=share,
        )
        with writing_to(OUTPUT):
            run.mkdir(parents=True)
            (run / "job.json").write_text(job.model_dump_json(indent=2))
            _update_status(run, status="RUNNING", epoch=0, max_epochs=job.max_epochs)
        data = tempfile.TemporaryDirectory(prefix="training_", ignore_cleanup_errors=True)
        root = str(Path(__file__).resolve().parents[2])
        with (run / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "clinic.server.training", str(run), data.name],
                stdin=subprocess.PIPE,  # ends when this process does
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
            )
        self.run, self._ended = run, {}
        self._watcher = threading.Thread(target=self._end, args=(self._process, run, data), daemon=True)
        self._watcher.start()
        return self.status()

    @property
    def running(self) -> bool:
        """Whether a training is running."""
        return self._watcher is not None and self._watcher.is_alive()

    def status(self) -> dict[str, Any]:
        """Return the status of the last training, or {} if there was none."""
        if self.run is None:
            return {}
        running = self.running  # read first, since the process may end in between
        status = _read_status(self.run) | self._ended
        if running:  # files may not be in place yet, and memory not yet free
            status["status"] = "RUNNING"
        return {"id": self.run.name, "model": self.model.bundle, "details": [_line(status)], **status}

    def stop(self) -> dict[str, Any]:
        """Stop the running training, if there is one, and return the status."""
        if self.running:
            self._process.terminate()
            self._watcher.join()
        return self.status()

    def adopt(self, run: str) -> dict[str, Any]:
        """Serve the weights of a finished training.

        Returns ``adopted``, the training; ``served``, its weights; ``kept``, the weights served before.
        """
        known = sorted(path.parent.name for path in self.output_dir.glob("*/job.json"))
        if run not in known:
            raise FileNotFoundError(f"No training {run!r} to adopt; expected one of {', '.join(known) or 'none'}.")
        folder = self.output_dir / run
        job, status = read_json(folder / "job.json", Job), _read_status(folder)
        if status["status"] != "DONE":
            raise ValueError(f"The training {run} is not finished, so it cannot be adopted.")
        self.model.load_weights(str(folder / WEIGHTS))
        kept = str(self.model.ckpt_path or self.model.weights)
        studies = f"{status['training_studies']} studies here (training {run})"
        adopted = Adopted(run=run, recipe=job.recipe, trained_on=f"{studies}, and before on {self.model.trained_on}")
        with writing_to(OUTPUT), replacing(self.output_dir / ADOPTED) as temporary:
            temporary.write_text(adopted.model_dump_json(indent=2))
        return {"adopted": run, "served": self.model.ckpt_path, "kept": kept}

    def _end(self, process: subprocess.Popen[bytes], run: Path, data: tempfile.TemporaryDirectory) -> None:
        """Wait for the process, remove the images, and record if it ended abnormally."""
        with data:
            process.wait()
        if _read_status(run)["status"] in ENDED:
            return
        if process.returncode == -signal.SIGTERM:
            self._ended = {"status": "STOPPED", "detail": "stopped"}
        else:
            self._ended = {"status": "ERROR", "detail": f"ended unexpectedly, see {run / 'log.txt'}"}
        with contextlib.suppress(OSError):  # on a full disk at least this process keeps the status
            _update_status(run, **self._ended)


def train(run: Path, data: Path) -> None:
    """Fine-tune by the ``job.json`` in a folder, to which weights and status are written; ``data`` is temporary."""
    job = read_json(run / "job.json", Job)
    cohort = get_cohort(job.cohort)
    items, refused = write_labelled_studies(open_datastore(job.studies, cohort), data)
    if not items:
        reason = f"the first one: {refused[0]}" if refused else "no study has a final label; save some."
        raise ValueError(f"None of {len(refused)} labelled studies can be used; {reason}")
    root, configs = config_files(job.bundle, "train.json", job.recipe or RECIPE)
    served = {} if job.recipe else _served_settings(root, job.init_from)
    config = json.loads(configs[0].read_text())
    labelled = len(items)
    if "require_complete" in str(config.get("training_cases")):
        items = [item for item in items if item["modalities"] == list(cohort.modalities)]
        if not items:
            raise ValueError(f"The model needs complete studies, but none of {labelled} labelled has all modalities.")
    count = round(job.val_split * len(items))
    count = min(max(count, int(job.val_split > 0)), len(items) - 1)
    parts = {"training": items[count:], "validation": items[:count], "test": []}
    write_datalist({"cohort": cohort.name, "modalities": list(cohort.modalities), **parts}, data / "datalist.json")
    overrides = {
        "cohort": cohort.name,
        "dataset_dir": str(data),
        "datalist": str(data / "datalist.json"),
        "output_dir": str(run),
        "cache_dir": str(data / "cache"),
        "init_from": job.init_from,
        "epochs": job.max_epochs,
        "val_interval": max(1, job.max_epochs // 5),
        "ema_momentum": None,  # there are too few steps for an average
        **{key: value for key, value in served.items() if key in config and key != "cohort"},
        **{key: value for key, value in NOTHING_MASKED.items() if key in config},
        **({"device": f"$torch.device({job.device!r})"} if job.device else {}),
    }
    stage = "finetune" if "finetune" in config else "fit"
    workflow = ConfigWorkflow(
        [str(path) for path in configs], workflow_type="train", run_id=stage, logging_file=False, **overrides
    )
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    _update_status(
        run,
        training_studies=len(parts["training"]),
        validation_studies=count,
        left_out=labelled - len(items) + len(refused),
        refused=refused,
    )

    def note_progress(engine: Any) -> None:
        best = workflow.parser.get_parsed_content("validate#evaluator").state.best_metric if count else -1
        _update_status(run, epoch=engine.state.epoch, best_metric=float(best) if best >= 0 else None)

    trainer.add_event_handler(Events.EPOCH_COMPLETED, note_progress)
    workflow.run()
    workflow.finalize()
    name = "finetuned" if stage == "finetune" else "trained"
    (run / f"{name}.pt").rename(run / WEIGHTS)
    (run / f"{name}_last.pt").unlink()
    _update_status(run, status="DONE")


def _served_settings(root: Path, weights: str) -> dict[str, Any]:
    """Return the settings with which inference.json serves weights: those stored with them, or the bundle's."""
    parser = ConfigParser()
    parser.read_config(str(root / "configs" / "inference.json"))
    parser.update({"bundle_root": str(root), "ckpt_path": weights})
    return {key: parser.get_parsed_content(key) for key in SETTINGS if key in parser}


def write_labelled_studies(studies: Datastore, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the studies that have a final label as NIfTI files, each study on one grid, without absent modalities.

    Returns a datalist item for each study, named by a number, since a study's name may identify the patient; and the
    reasons why other studies cannot be used.
    """
    items, refused = [], []
    for number, image in enumerate(sorted(studies.labelled_images("final"))):
        case = f"case_{number:03d}"
        try:
            with tempfile.TemporaryDirectory(dir=folder) as fetched:
                study, _ = studies.read_study(image, fetched)
                reference, label = studies.read_label(image, "final", study, fetched)
                aligned = align(study.images, study.frames, reference)
        except (FileNotFoundError, ValueError) as error:
            refused.append(str(error))
            continue
        grid = aligned.images[reference]
        voxels = np.asarray(label.dataobj).astype(np.uint8)
        moved = resample_label_to(voxels, label.affine, grid.affine, grid.shape, studies.cohort.labels.values.values())
        for name, volume in {**aligned.images, "seg": nib.Nifti1Image(moved, grid.affine)}.items():
            nib.save(volume, folder / f"{case}_{name}.nii.gz")
        names = list(aligned.images)
        files = [f"{case}_{name}.nii.gz" for name in names]
        items.append({"case": case, "image": files, "modalities": names, "label": f"{case}_seg.nii.gz"})
    return items, refused


def _line(status: Mapping[str, Any]) -> str:
    text = f"{status['status']}: epoch {status['epoch']} of {status['max_epochs']}"
    if status.get("best_metric") is not None:
        text += f", best validation Dice {status['best_metric']:.3f}"
    return text + f" {status.get('detail', '')}".rstrip()


def _read_status(run: Path) -> dict[str, Any]:
    return read_json(run / "status.json", dict[str, Any])


def _update_status(run: Path, **changes: Any) -> None:
    """Update the status of a training."""
    file, now = run / "status.json", datetime.now().isoformat(" ", "seconds")
    status = {**(_read_status(run) if file.is_file() else {"start_ts": now}), **changes}
    if status["status"] in ENDED:
        status["end_ts"] = now
    with replacing(file) as temporary:
        temporary.write_text(json.dumps(status))


def _number(key: str, value: Any, low: float, high: float) -> float:
    """Return a number from an option, which some clients send as text; see `check_number`."""
    if not isinstance(value, bool):
        with contextlib.suppress(ValueError, TypeError):
            value = float(value)
    return check_number(key, value, low, high)


def _end_with_server() -> None:
    """Exit when the server's pipe closes, since then nobody would get the result or remove the images."""
    sys.stdin.buffer.read()
    os._exit(1)


def main() -> None:
    """Train, and write the reason into ``status.json`` if that fails."""
    run, data = map(Path, sys.argv[1:])
    threading.Thread(target=_end_with_server, daemon=True).start()
    warnings.simplefilter("ignore")  # those of pydicom quote headers
    try:
        with unwrapped_errors():
            train(run, data)
    except Exception as error:
        detail = " ".join(str(error).split()).replace(str(data), "the data")
        if full_disk(error):
            detail = f"The disk with {OUTPUT} or that with temporary files (TMPDIR) is full. Free some space there."
        _update_status(run, status="ERROR", detail=detail)
        sys.exit(f"{type(error).__name__}: {detail}")


if __name__ == "__main__":
    main()
