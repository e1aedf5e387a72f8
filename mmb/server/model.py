"""A bundle or a trained nnU-Net as a model of MONAI Label: from a study to a label map and a DICOM SEG.

The functions that work on a study run in a `Worker`, and return what can stand in JSON.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import cycle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from monai.data import ITKWriter

from common.evaluation.report.slices import OUTLINES
from mmb.clinic.options import MODES, Options
from mmb.clinic.recognise.site import SiteTable
from mmb.clinic.report.document import as_document
from mmb.clinic.report.formats import millilitres
from mmb.clinic.study import Prediction, segment
from mmb.predictors.bundle import load_predictor
from mmb.predictors.protocol import Predictor
from mmb.server.archive import store
from mmb.server.datastore import Datastore, class_label
from mmb.server.errors import private
from mmb.server.options import InferOptions, SegmentOptions
from mmb.server.worker import Worker, report_progress


class BundleInferTask:
    """A bundle or a trained nnU-Net with its weights, checked at creation, which stay loaded from the first study on.

    Raises ValueError if the weights belong to another network.

    Args:
        recipe: recipe that the weights were trained with; None: the settings of inference.json, which are those of the
            bundle's own weights.
        ckpt_path: weights other than the bundle's own.
    """

    def __init__(
        self,
        bundle: str,
        worker: Worker,
        recipe: str | None = None,
        ckpt_path: str | None = None,
        device: str | None = None,
        site: SiteTable | None = None,
    ) -> None:
        self.bundle, self.worker, self.recipe = bundle, worker, recipe
        self.ckpt_path, self.device, self.site = ckpt_path, device, site
        inference = load_predictor(bundle, recipe, ckpt_path, device)
        self.decision = inference.decision
        self.name, self.cohort, self.warnings = inference.title, inference.cohort, inference.warnings
        self.labels = {class_label(name): value for name, value in self.cohort.labels.values.items()}

    def info(self) -> dict[str, Any]:
        """Return the description of the model for clients."""
        use = {f"use_{name}": True for name in self.cohort.modalities}
        rest = {"series": "", "skull_strip": MODES[0], "decision": self.decision, "store": False}
        facts = {"type": "segmentation", "labels": self.labels, "dimension": 3}
        return {**facts, "description": self.name, "config": use | rest}

    def segment_image(self, datastore: Datastore, image: str, asked: InferOptions, folder: Path) -> dict[str, Any]:
        """Segment a study of a store.

        Returns ``file``, the label map in ``folder``; ``dicom_seg``, None for NIfTI studies, if nothing was found, or
        if the result is not to be used; and ``params``: what ``summary.json`` says, the modalities left out, warnings,
        what each series was recognised as, the values of the classes that occur, and the name under which the result
        was stored.
        """
        store, options = asked.store or asked.save_label, self.options(asked)
        made = self.worker.run(_of_store, datastore, image, folder, options, asked.result_extension, store)
        return {
            "file": folder / made["file"],
            "dicom_seg": made["dicom_seg"] and folder / made["dicom_seg"],
            "params": self._params(asked, made),
        }

    def segment_upload(
        self, folder: Path, asked: SegmentOptions, send: str | None, on_progress: Callable[[str], None]
    ) -> dict[str, Any]:
        """Segment the study in ``folder/study``, write the results to ``folder/results``; return ``params`` as above.

        Added is ``shown``: each region's colour, name, volume in ml and verdict, a picture of the reference, PNG in
        base64, and what was used as which sequence. ``send`` is the URL of an archive that gets the DICOM files of the
        results, or None; ``on_progress`` is called with what is being done.
        """
        made = self.worker.run(_of_upload, folder, self.options(asked), send, on_progress=on_progress)
        return {**self._params(asked, made), "shown": made["shown"]}

    def _params(self, asked: SegmentOptions, made: Mapping[str, Any]) -> dict[str, Any]:
        """Return the facts on a result for clients."""
        params, wanted, present = made["params"], asked.modalities, made["present"]
        return {
            "label_names": {name: value for name, value in self.labels.items() if value in present},
            "empty": not present,
            "stored": made["stored"],
            "left_out": [name for name in self.cohort.modalities if name not in wanted],
            **params,
            "missing": [name for name in params["missing"] if name in wanted],
        }

    def options(self, asked: SegmentOptions) -> Options:
        """Return what a request asks for, as a segmentation takes it."""
        return Options(
            self.bundle, self.recipe, self.ckpt_path, self.device, asked.decision or self.decision, asked.series,
            asked.modalities, skull_strip=asked.skull_strip, label=asked.label, site=self.site,
        )  # fmt: skip


_network = lru_cache(maxsize=2)(load_predictor)
"""A network of this process, which stays loaded from one request to the next; clients choose among few at a time."""


def _loaded(asked: Options) -> Predictor:
    """Return what segments a study; how it decides is said for each study."""
    predictor = _network(*asked.network)
    predictor.decide_by(asked.decision or predictor.decision)
    return predictor


def _segment(study: Path, results: Path, asked: Options, sent: bool = False) -> Prediction:
    """Segment a study in a folder; nothing of it stays but the results, and messages are `private`."""
    report_progress("Reading and aligning the images, finding the brain, and telling which sequence each is")

    def explain(_: list[str]) -> None:
        report_progress("Segmenting")

    with private(sent):
        return segment(study, results, _loaded(asked), asked, explain)


def _of_upload(folder: Path, asked: Options, send: str | None) -> dict[str, Any]:
    """Segment an uploaded study, and send its DICOM results to an archive; return the facts."""
    prediction = _segment(folder / "study", folder / "results", asked, sent=True)
    stored = None
    if send:
        report_progress("Storing the result in the archive")
        stored = store(send, sorted((folder / "results").glob("*.dcm")))
    regions = [
        (colour, row.heading, millilitres(row.volume), row.verdict.text if row.verdict else "")
        for colour, row in zip(cycle(OUTLINES), prediction.summary.rows(), strict=False)
    ]
    picture = prediction.summary.pictures.get(prediction.reference)
    shown = {"regions": regions, "picture": picture, "used": prediction.used}
    return {"present": _present(prediction), "stored": stored, "params": _facts(prediction), "shown": shown}


def _present(prediction: Prediction) -> list[int]:
    """Return the values of the classes that occur."""
    return sorted(set(np.unique(np.asarray(prediction.label.dataobj)).tolist()) - {0})


def _of_store(
    datastore: Datastore, image: str, folder: Path, asked: Options, extension: str, store: bool
) -> dict[str, Any]:
    """Segment a study and, if asked, store the result; return names of files in ``folder``, and the facts."""
    prediction = _segment(datastore.folder(image), folder / "results", asked)
    label, files, present = prediction.label, prediction.files, _present(prediction)
    stored = None
    if store and present:
        stored = datastore.save_label(image, "original", files["label map"])
    seg = files.get("DICOM SEG")
    return {
        "file": _write(label, folder / f"label{extension}").name,
        "dicom_seg": seg and str(seg.relative_to(folder)),
        "present": present,
        "stored": stored,
        "params": _facts(prediction),
    }


def _facts(prediction: Prediction) -> dict[str, Any]:
    """Return what ``summary.json`` says, and for people the warnings and what each series was recognised as."""
    summary = prediction.summary
    more = {"reference": prediction.reference, "explanations": prediction.explanations, "warnings": summary.warnings}
    return as_document(summary) | more


def _write(label: nib.Nifti1Image, path: Path) -> Path:
    if path.suffix == ".nrrd":
        writer = ITKWriter(output_dtype=np.uint8)
        writer.set_data_array(np.asarray(label.dataobj), channel_dim=None)
        writer.set_metadata({"affine": label.affine})
        writer.write(path)
    else:
        nib.save(label, path)
    return path
