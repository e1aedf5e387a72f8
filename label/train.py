"""Fine-tuning of a served bundle on the studies that have a final label, in a process of its own.

A training writes into a folder of its own under the app's output; what is served changes only when it is told to adopt
a finished one. ``python -m label.train JOB`` is the process; the password of an archive comes through the environment.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from ignite.engine import Events
from monai.bundle import ConfigWorkflow
from monailabel.interfaces.tasks.train import TrainTask

from common.cohorts import get_cohort
from common.cohorts.datalist import write_datalist
from common.io.files import replacing
from common.io.settings import check_number
from common.study.alignment import align
from common.study.grid import resample_label_to
from common.study.inference import config_files
from label.infer import Segmentation
from label.studies import Studies, open_studies

ENDED = ("DONE", "ERROR", "STOPPED")
WEIGHTS = "weights.pt"
AS_THEY_ARE = {"missing_rates": None, "perfect_data": False}
"""Keys of bundles that let studies lack sequences, to be set so that each lacks what it lacks."""


class FineTuning(TrainTask):
    """The trainings of one model.

    Args:
        model: as it is served; its weights are what a training starts from.
        place: of the studies, as `open_studies` takes it.
        output: folder for the trainings, each in a folder of its own.
    """

    def __init__(self, model: Segmentation, place: str, output: Path) -> None:
        super().__init__(f"Fine-tuning of {model.description} on studies with a final label")
        self.model, self.place, self.output = model, place, output
        self.run: Path | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._watcher: threading.Thread | None = None

    def config(self) -> dict[str, Any]:
        """Return the options, with what they are by default."""
        return {"max_epochs": 10, "val_split": 0.2, "adopt": ""}

    def stats(self) -> dict[str, Any]:
        """Return how far the last training is, in the words of MONAI Label's clients."""
        status = self.status()
        names = {"epoch": "epoch", "max_epochs": "total_epochs", "best_metric": "best_metric"}
        stats = {theirs: status[ours] for ours, theirs in names.items() if status.get(ours) is not None}
        return stats if self.running else {**stats, "total_time": status.get("end_ts", "none")}  # that is: it has ended

    def __call__(self, request: Mapping[str, Any], datastore: Studies) -> dict[str, Any]:
        """Start a training, or adopt the weights of a finished one.

        Args:
            request: ``max_epochs``; ``val_split``, the share of the studies that the best epoch is chosen by;
                ``adopt``, the identifier of a finished training, whose weights are then served, those before are kept.
            datastore: the studies.

        Returns:
            The status.

        Raises:
            FileNotFoundError: there is no such training to adopt.
            ValueError: it is not finished, or there is nothing to train on, or the options cannot be used.
        """
        if request.get("adopt"):
            return self.adopt(str(request["adopt"]))
        options = {**self.config(), **{key: value for key, value in request.items() if value not in (None, "")}}
        epochs = _whole("max_epochs", options["max_epochs"])
        share = check_number("val_split", _number("val_split", options["val_split"]), 0, 0.9)
        if not datastore.labelled("final"):
            raise ValueError("No study has a final label; submit some labels first.")
        self.run = self.output / f"{datetime.now():%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:6]}"
        self.run.mkdir(parents=True)
        job = {
            "studies": self.place,
            "cohort": self.model.cohort.name,
            "bundle": str(Path(self.model.bundle).resolve()) if Path(self.model.bundle).is_dir() else self.model.bundle,
            "recipe": self.model.recipe,
            "init_from": str(self.model.ckpt_path or self.model.weights),
            "device": self.model.device,
            "max_epochs": epochs,
            "val_split": share,
        }
        (self.run / "job.json").write_text(json.dumps(job, indent=2))
        _write_status(self.run, {"status": "RUNNING", "epoch": 0, "max_epochs": epochs, "start_ts": _now()})
        data = tempfile.mkdtemp(prefix="training_")
        root = str(Path(__file__).resolve().parents[1])
        with (self.run / "log.txt").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "label.train", str(self.run), data],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONPATH": os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])},
            )
        self._watcher = threading.Thread(target=self._end, args=(self._process, self.run, data), daemon=True)
        self._watcher.start()
        return self.status()

    @property
    def running(self) -> bool:
        """Whether a training is going on."""
        return self._watcher is not None and self._watcher.is_alive()

    def status(self) -> dict[str, Any]:
        """Return what is known of the last training, {} if there was none."""
        if self.run is None:
            return {}
        running = self.running  # asked before: a process may end in between
        status = json.loads((self.run / "status.json").read_text())
        if running:  # what is written is not yet at its place, or memory not yet free
            status["status"] = "RUNNING"
        return {"id": self.run.name, "model": self.model.bundle, "details": [_line(status)], **status}

    def stop(self) -> dict[str, Any]:
        """End the training that is running, if there is one, and return the status."""
        if self.running:
            self._process.terminate()
            self._watcher.join()
        return self.status()

    def adopt(self, run: str) -> dict[str, Any]:
        """Serve the weights of a finished training; those adopted before are kept beside them. See `__call__`."""
        known = sorted(path.parent.name for path in self.output.glob("*/job.json"))
        if run not in known:
            raise FileNotFoundError(f"There is no training {run!r} to adopt; there are {', '.join(known) or 'none'}.")
        weights = self.output / run / WEIGHTS
        if json.loads((self.output / run / "status.json").read_text())["status"] != "DONE":
            raise ValueError(f"The training {run} is not finished, so that it cannot be adopted.")
        self.model.check(str(weights))
        job, status = (json.loads((self.output / run / f"{name}.json").read_text()) for name in ("job", "status"))
        facts = {"run": run, "recipe": job["recipe"], "studies": status["training_studies"], "from": self.model.origin}
        served, kept = self.model.adopted, None
        if served.is_file():
            kept = served.with_name(f"replaced_{datetime.now():%Y%m%d_%H%M%S_%f}.pt")
            shutil.copyfile(served, kept)
        with replacing(self.model.record) as temporary:
            temporary.write_text(json.dumps(facts, indent=2))
        with replacing(served) as temporary:
            shutil.copyfile(weights, temporary)
        return {"adopted": run, "served": str(served), "kept": str(kept or self.model.own or self.model.weights)}

    def _end(self, process: subprocess.Popen[bytes], run: Path, data: str) -> None:
        """Wait for the process; remove the images, and say so if it did not end by itself."""
        process.wait()
        shutil.rmtree(data, ignore_errors=True)
        status = json.loads((run / "status.json").read_text())
        if status["status"] not in ENDED:
            stopped = process.returncode == -signal.SIGTERM
            reason = "stopped" if stopped else f"ended unexpectedly, see {run / 'log.txt'}"
            _write_status(run, {**status, "status": "STOPPED" if stopped else "ERROR", "detail": reason})


def train(run: Path, data: Path) -> None:
    """Fine-tune as ``job.json`` in a folder says; weights and status go there, images for the time being elsewhere.

    Args:
        run: the folder.
        data: an empty folder, for the images.

    Raises:
        OSError, ValueError: the studies cannot be used.
    """
    job = json.loads((run / "job.json").read_text())
    cohort = get_cohort(job["cohort"])
    user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}", "") for name in ("USERNAME", "PASSWORD"))
    items, refused = collect(open_studies(job["studies"], cohort, user, password), data)
    if not items:
        reason = f"of the first: {refused[0]}" if refused else "no study has a final label; save some."
        raise ValueError(f"None of {len(refused)} labelled studies can be used; {reason}")
    _, configs = config_files(job["bundle"], "train.json", job["recipe"])
    config = json.loads(configs[0].read_text())
    labelled = len(items)
    if "require_complete" in str(config.get("training_cases")):
        items = [item for item in items if item["modalities"] == list(cohort.modalities)]
        if not items:
            raise ValueError(f"It learns from complete studies, and none of {labelled} labelled has all modalities.")
    left_out = labelled - len(items)
    count = round(job["val_split"] * len(items))
    count = min(max(count, int(job["val_split"] > 0)), len(items) - 1)
    parts = {"training": items[count:], "validation": items[:count], "test": []}
    write_datalist({"cohort": cohort.name, "modalities": list(cohort.modalities), **parts}, data / "datalist.json")
    overrides = {
        "cohort": cohort.name,
        "dataset_dir": str(data),
        "datalist": str(data / "datalist.json"),
        "output_dir": str(run),
        "cache_dir": str(data / "cache"),
        "init_from": job["init_from"],
        "epochs": job["max_epochs"],
        "val_interval": max(1, job["max_epochs"] // 5),
        "ema_momentum": None,  # so few steps do not move an average
        **{key: value for key, value in AS_THEY_ARE.items() if key in config},
        **({"device": f"$torch.device({job['device']!r})"} if job["device"] else {}),
    }
    stage = "finetune" if "finetune" in config else "fit"
    workflow = ConfigWorkflow(
        [str(path) for path in configs], workflow_type="train", run_id=stage, logging_file=False, **overrides
    )
    workflow.initialize()
    trainer = workflow.parser.get_parsed_content("train#trainer")
    started = json.loads((run / "status.json").read_text())

    def tell(engine: Any, ended: str | None = None) -> None:
        best = workflow.parser.get_parsed_content("validate#evaluator").state.best_metric if count else None
        state = {"epoch": engine.state.epoch, "best_metric": None if best is None or best < 0 else float(best)}
        facts = {
            "training_studies": len(parts["training"]),
            "validation_studies": count,
            "left_out": left_out + len(refused),
            "refused": refused,
        }
        _write_status(run, {**started, **facts, **state, **({"status": ended, "end_ts": _now()} if ended else {})})

    trainer.add_event_handler(Events.EPOCH_COMPLETED, tell)
    workflow.run()
    workflow.finalize()
    name = "finetuned" if stage == "finetune" else "trained"
    (run / f"{name}.pt").rename(run / WEIGHTS)
    (run / f"{name}_last.pt").unlink()
    tell(trainer, "DONE")


def collect(studies: Studies, folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Write the studies that have a final label as NIfTI files on one grid each; absent modalities are left out.

    Args:
        studies: where they are.
        folder: where to write; what is fetched for the time being is removed again.

    Returns:
        An item of a datalist for each, named by its number: what a study is called may say who the patient is; and why
        others cannot be used.

    Raises:
        OSError: the studies cannot be fetched.
    """
    items, refused = [], []
    for number, image in enumerate(sorted(studies.labelled("final"))):
        case = f"case_{number:03d}"
        try:
            with tempfile.TemporaryDirectory(dir=folder) as fetched:
                study, _ = studies.read(image, fetched)
                reference, label = studies.label(image, "final", study, fetched)
                aligned = align(study.images, study.frames, reference)
        except (FileNotFoundError, ValueError) as error:
            refused.append(str(error))
            continue
        grid = aligned.images[reference]
        voxels = np.asarray(label.dataobj).astype(np.uint8)
        moved = resample_label_to(voxels, label.affine, grid.affine, grid.shape, studies.cohort.labels.values.values())
        volumes = {**aligned.images, "seg": nib.Nifti1Image(moved, grid.affine)}
        for name, volume in volumes.items():
            nib.save(volume, folder / f"{case}_{name}.nii.gz")
        files = {name: f"{case}_{name}.nii.gz" for name in volumes}
        label_file = files.pop("seg")
        items.append({"case": case, "image": list(files.values()), "modalities": list(files), "label": label_file})
    return items, refused


def _line(status: Mapping[str, Any]) -> str:
    text = f"{status['status']}: epoch {status['epoch']} of {status['max_epochs']}"
    best = status.get("best_metric")
    return text + (f", best validation Dice {best:.3f}" if best else "") + f" {status.get('detail', '')}".rstrip()


def _write_status(run: Path, status: Mapping[str, Any]) -> None:
    with replacing(run / "status.json") as temporary:
        temporary.write_text(json.dumps(status))


def _now() -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S")


def _number(key: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{key} {value!r}; expected a number.") from None


def _whole(key: str, value: Any) -> int:
    number = _number(key, value)
    if number != int(number) or number < 1:
        raise ValueError(f"{key} {value!r}; expected a whole number from 1.")
    return int(number)


def main() -> None:
    """Train, and leave the reason in ``status.json`` if it cannot be done."""
    run, data = map(Path, sys.argv[1:])
    warnings.simplefilter("ignore")  # pydicom's quote headers
    try:
        train(run, data)
    except Exception as error:
        cause: BaseException = error
        while not isinstance(cause, ValueError | OSError) and cause.__cause__ is not None:
            cause = cause.__cause__
        status = json.loads((run / "status.json").read_text())
        detail = " ".join(str(cause).split()).replace(str(data), "the data")
        _write_status(run, {**status, "status": "ERROR", "end_ts": _now(), "detail": detail})
        sys.exit(f"{type(cause).__name__}: {detail}")


if __name__ == "__main__":
    main()
