"""What a study yields, as plain data: volumes, expectations, pictures, warnings and notes.

A `StudySummary` holds nothing that identifies the patient, no names, dates, identifiers or paths, unless the user's
own label does.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from nibabel.affines import voxel_sizes

from clinic.choice import contradictions
from clinic.study.alignment import AlignedStudy
from clinic.study.doubts import result_warnings
from clinic.study.grid import Image, volume_of
from clinic.study.inference import Inference, Segmentation
from clinic.study.lesions import Lesion, lesions
from clinic.study.pictures import pictures
from clinic.study.reading import Study
from clinic.study.sheets import Sheets, sheets
from clinic.study.skull import Brain, brain_mask
from common.evaluation.analysis.reliability import VOLUMES, calibrated_decision, volume_intervals
from common.evaluation.metrics.case import expected_dice
from common.evaluation.metrics.overlap import region_masks
from common.evaluation.metrics.results import COLUMNS
from common.io.facts import unseen
from common.modalities import LabelSet, display_name, display_subset, subset_name


@dataclass(frozen=True)
class UsedModality:
    """A modality that a prediction was made from; the fields are those of `clinic.choice.Candidate`."""

    modality: str
    source: str
    reason: str
    confidence: float | None = None


@dataclass(frozen=True)
class StudySummary:
    """What a study yields, in the form that `clinic.study.page` draws; empty parts are left out.

    Attributes:
        title: title of the page.
        bundle: name of the bundle, or of the method of other weights.
        version: version of the bundle.
        weights: name of the weights' file and its SHA-256.
        used: modalities that the prediction was made from.
        missing: names of the other modalities that the network can use.
        volumes: region -> volume in ml, larger regions first.
        volume_note: where the volumes come from, if they are not those of the outlines; else empty.
        expected_dice: region -> Dice that the network expects between its outline and the truth, in [0, 1].
        intervals: region -> lower and upper limit (ml) of an interval for the true volume, and its coverage, e.g. 0.9.
        gains: missing modality -> region -> expected gain in Dice if it were added, as a fraction; the largest first.
        pictures: modality -> PNG in base64; see `clinic.study.pictures`.
        warnings: why the result may be wrong, the most important reason first; see `clinic.study.doubts`.
        notes: notes on preparation: what was registered and how well, what was resampled.
        trained_on: short description of the training data; None if unknown.
        brain_ml: volume of the extracted brain, which is outlined in the pictures; None if none was extracted.
        label: a text of the user's own, which tells whose result it is; else empty.
        created: date, time and offset from UTC at which it was made, ISO 8601; empty if unknown.
        classes: class of the label map, e.g. ``ED`` -> volume in ml.
        lesions: the connected pieces of the outermost region, the largest first; see `clinic.study.lesions`.
        specks: number of further pieces, which are too small to be called lesions.
        sheets: all slices, for the page's viewer; see `clinic.study.sheets`.
    """

    title: str
    bundle: str
    version: str
    weights: str
    used: Sequence[UsedModality]
    volumes: Mapping[str, float]
    missing: Sequence[str] = ()
    volume_note: str = ""
    expected_dice: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float, float]] = field(default_factory=dict)
    gains: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()
    notes: Sequence[str] = ()
    trained_on: str | None = None
    brain_ml: float | None = None
    classes: Mapping[str, float] = field(default_factory=dict)
    lesions: Sequence[Lesion] = ()
    specks: int = 0
    sheets: Sheets | None = None
    label: str = ""
    created: str = ""


PICTURES = ("pictures", "sheets")
"""Fields of a `StudySummary` that hold pictures, which ``summary.json`` leaves out."""


def volumes(label: Image, labels: LabelSet) -> dict[str, float]:
    """Return the volume in ml of each region of a label map."""
    masks, spacing = region_masks(np.asarray(label.dataobj), labels), voxel_sizes(label.affine)
    return {region: volume_of(mask, spacing) for region, mask in zip(labels.regions, masks, strict=True)}


def class_volumes(label: Image, labels: LabelSet) -> dict[str, float]:
    """Return the volume in ml of each class of a label map."""
    values, spacing = np.asarray(label.dataobj), voxel_sizes(label.affine)
    return {name: volume_of(values == value, spacing) for name, value in labels.values.items()}


def intervals(
    calibration: pd.DataFrame | None, subset: str, measured: Mapping[str, float], brain: float, decision: str
) -> dict[str, tuple[float, float, float]]:
    """Return the interval of each region's true volume as (low, high, coverage), where the calibration gives one.

    ``calibration`` is an evaluation's table (`volume_intervals`) or None, ``subset`` e.g. ``t1c+flair``; volumes are in
    ml, and that of the visible ``brain`` bounds all intervals. A calibration made with another ``decision`` gives none.
    """
    if calibration is None or calibration.empty or calibrated_decision(calibration) != decision:
        return {}
    rows = [("case", subset, region, VOLUMES[decision], volume) for region, volume in measured.items()]
    bounds = volume_intervals(calibration, pd.DataFrame(rows, columns=COLUMNS))
    coverage = float(calibration["coverage"].iloc[0])
    return {row.region: (row.low, min(row.high, brain), coverage) for row in bounds.itertuples() if row.high < np.inf}


def gains(advice: pd.DataFrame | None, subset: str) -> dict[str, dict[str, float]]:
    """Return missing modality -> region -> expected gain in Dice, as a fraction, from an evaluation's advice table.

    The modality with the largest average gain comes first.
    """
    expected: dict[str, dict[str, float]] = {}
    if advice is not None:
        for row in advice[advice["modalities"] == subset].itertuples():
            expected.setdefault(row.modality, {})[row.region] = row.average
    return dict(sorted(expected.items(), key=lambda gain: -np.mean([*gain[1].values()])))


def brain_note(study: Study, brain: Brain) -> str:
    """Return a note on the origin of an extracted brain, and on the agreement of the images on it."""
    others = [f"{display_name(name)} {value:.2f}" for name, value in brain.agreement.items() if name != brain.modality]
    agreed = f"; overlap (Dice) with the brain found in the others: {', '.join(others)}" if others else ""
    origin = "it is in the skull-stripped" if brain.stripped else "deepbet found it in the"
    return (
        f"The brain ({brain.millilitres:.0f} ml) was cut out of all images as {origin} "
        f"{display_name(brain.modality)} ({study.sources[brain.modality]}){agreed}."
    )


def registration_notes(study: Study, aligned: AlignedStudy) -> list[str]:
    """Return a note on each registration, with the names of the modalities that it moved."""
    (base,) = (each for each in study.headers.candidates if each.name == study.evidence.reference)
    target = next((display_name(name) for name, each in study.used.items() if each is base), base.source)
    matches: dict[int, list[str]] = defaultdict(list)  # the volumes of one frame of reference share one
    for name, match in aligned.registered.items():
        matches[id(match)].append(name)
    return [
        f"{' and '.join(map(display_name, names))} to {target}: {aligned.registered[names[0]].text}."
        for names in matches.values()
    ]


def summarise(
    label: Image,
    segmentation: Segmentation,
    study: Study,
    aligned: AlignedStudy,
    brain: Brain | None,
    inference: Inference,
    notes: Sequence[str],
) -> StudySummary:
    """Return what a study yields; ``label`` lies on the reference's grid, which the first of ``notes`` names."""
    labels, subset = inference.cohort.labels, subset_name(study.images)
    spacing = voxel_sizes(next(iter(aligned.images.values())).affine)
    measured, volume_note = volumes(label, labels), ""
    if VOLUMES[inference.decision] != "volume":
        volume_note = "Volumes are sums of probabilities; where the network is unsure, outlines hold more."
        sums = segmentation.probabilities.sum(axis=(1, 2, 3), dtype=np.float64) * spacing.prod() / 1000
        measured = dict(zip(labels.regions, sums.tolist(), strict=True))
    expected = [
        expected_dice(p, mask, float(p.sum(dtype=np.float64)))
        for p, mask in zip(segmentation.probabilities, segmentation.masks, strict=True)
    ]
    head = brain_mask(aligned, brain)
    visible = volume_of(head, spacing)
    affine = next(iter(aligned.images.values())).affine
    origin = affine[:3, 3] @ affine[:3, :3] / spacing  # along the grid's own axes
    masks = dict(zip(labels.regions, segmentation.masks, strict=True))
    pieces, specks = lesions(masks, spacing, head, measured[next(iter(masks))])
    drawn = {name: np.asarray(image.dataobj) for name, image in aligned.images.items()}
    return StudySummary(
        title=f"Segmentation from {display_subset(subset)}",
        bundle=inference.method,
        version=inference.metadata["version"],
        weights=inference.weights_name,
        trained_on=inference.trained_on,
        used=[
            UsedModality(name, each.source, each.verdict.reason, each.confidence) for name, each in study.used.items()
        ],
        missing=[name for name in inference.cohort.modalities if name not in study.images],
        volumes=measured,
        volume_note=volume_note,
        expected_dice=dict(zip(labels.regions, expected, strict=True)),
        intervals=intervals(inference.intervals, subset, measured, visible, inference.decision),
        gains=gains(inference.advice, subset),
        pictures=pictures(drawn, segmentation.masks, spacing, brain and brain.mask, origin),
        brain_ml=brain and brain.millilitres,
        classes=class_volumes(label, labels),
        lesions=pieces,
        specks=specks,
        sheets=sheets(drawn, masks, spacing, origin, [piece.centre for piece in pieces], brain and brain.mask),
        warnings=[
            *contradictions(study.used),
            *inference.warnings,
            *filter(None, [unseen(list(study.images), inference.seen)]),
            *result_warnings(study, aligned, brain, segmentation, inference.cohort, inference.spacing),
        ],
        notes=[
            *notes,
            *([brain_note(study, brain)] if brain else []),
            *registration_notes(study, aligned),
        ],
    )
