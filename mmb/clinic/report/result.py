"""What a study yields, as plain data: volumes, expectations, pictures, warnings and notes.

A `StudySummary` holds nothing that identifies the patient, no names, dates, identifiers or paths, unless the user's
own label does.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import numpy as np
from nibabel.affines import voxel_sizes

from common.cohorts.cohort import Cohort
from common.evaluation.metrics.case import expected_dice
from common.evaluation.metrics.overlap import region_masks
from common.io.facts import unseen
from common.modalities import SHOWN_BY_T1C, LabelSet, display_name, display_subset, subset_name
from mmb.clinic.head.alignment import AlignedStudy
from mmb.clinic.head.grid import Image, volume_of
from mmb.clinic.head.skull import Brain, brain_mask
from mmb.clinic.recognise.reading import Study
from mmb.clinic.recognise.record import FoundImage
from mmb.clinic.recognise.remarks import contradicted
from mmb.clinic.remark import Gravity, Remark, by_gravity, stop_reasons
from mmb.clinic.report.answer import answer
from mmb.clinic.report.doubts import doubts
from mmb.clinic.report.formats import REGIONS
from mmb.clinic.report.lesions import Lesion, cut_off, lesions
from mmb.clinic.report.pictures import pictures
from mmb.clinic.report.sheets import Sheets, sheets
from mmb.clinic.report.verdicts import (
    Presence,
    Verdict,
    class_verdicts,
    intervals,
    presence,
    presence_remarks,
    verdicts,
)
from mmb.predictors.calibration import GOOD_DICE, WIDEST, Calibration
from mmb.predictors.calibration_table import share
from mmb.predictors.protocol import Predictor, Segmentation

SCHEMA_VERSION = 2
REFUSED: Literal["refused"] = "refused"


@dataclass(frozen=True)
class UsedModality:
    """A modality that a prediction was made from: its series or file, and how surely it was recognised.

    ``confidence`` is open, likely or sure (`recognise.certainty.Grade`); None if it was set by hand or by the site's
    table, named by its file, or decided by the image.
    """

    modality: str
    source: str
    reason: str
    confidence: str | None = None


@dataclass(frozen=True)
class Asked:
    """What was asked for; with the bundle, its version and the weights, the result can be made again.

    Attributes:
        recipe: name of the recipe, or of its file, that the weights were trained with; None: that of the bundle.
        device: that it was computed on, e.g. ``cpu``.
        decision: how probabilities became a label map, by request or by default.
        series: modality -> SeriesNumber that was set by hand; None if it was to be left out.
        files: modalities whose image files were given one by one.
        modalities: those that might be used.
        reference: modality on whose grid the result was asked for; None: chosen by default.
        skull_strip: ``auto``, ``yes`` or ``no``.
        site: SHA-256 of the site's table; None: there was none.
    """

    recipe: str | None
    device: str
    decision: str
    series: Mapping[str, str | None]
    files: Sequence[str]
    modalities: Sequence[str]
    reference: str | None
    skull_strip: str
    site: str | None = None


class RegionRow(NamedTuple):
    """What is said of a region: `StudySummary` has the units, and None stands for what is not known."""

    region: str
    volume: float
    interval: tuple[float, float] | None
    expected: float | None
    verdict: Verdict | None

    @property
    def heading(self) -> str:
        """The region's name, e.g. ``Whole tumour (WT)``."""
        return f"{REGIONS[self.region].capitalize()} ({self.region})" if self.region in REGIONS else self.region


@dataclass(frozen=True)
class Refusal:
    """Why a study was not segmented: ``summary.json`` instead of that of a result.

    Attributes:
        code: the kind of reason, e.g. ``two_examinations``.
        text: the reason, and what to do; no file is named.
        about: modalities that a person can decide.
        found: every series or image file that was found, as far as it was read, and what became of it.
        asked: what was asked for.
        bundle: name of the bundle, or of the method of other weights.
        version: version of the bundle.
        weights: name of the weights' file and its SHA-256.
        answer: ``refused``.
        schema_version: as that of a result.
    """

    code: str
    text: str
    about: Sequence[str]
    found: Sequence[FoundImage]
    asked: Asked
    bundle: str
    version: str
    weights: str
    answer: Literal["refused"] = REFUSED
    schema_version: int = SCHEMA_VERSION


@dataclass(frozen=True)
class StudySummary:
    """What a study yields, in the form that `mmb.clinic.report.page` draws; empty parts are left out.

    Attributes:
        answer: what was found, in a sentence or two, or why not to use it; see `mmb.clinic.report.answer`.
        title: title of the page.
        bundle: name of the bundle, or of the method of other weights.
        version: version of the bundle.
        weights: name of the weights' file and its SHA-256.
        used: modalities that the prediction was made from.
        missing: names of the other modalities that the network can use.
        volumes: region -> volume of its outline in ml, larger regions first.
        expected_dice: region -> expected Dice of its outline, in [0, 1], calibrated if ``calibrated_on`` is not 0.
            Neither this nor ``intervals`` is given for regions that are not to be used at all.
        intervals: region -> lower and upper limit (ml) of an interval for the true volume, where it is known.
        pictures: modality -> PNG in base64; see `mmb.clinic.report.pictures`.
        remarks: what is to be said of the study and the result, the gravest first: why it may be wrong (see
            `mmb.clinic.report.doubts`), and how the images were prepared.
        trained_on: short description of the training data; None if unknown.
        brain_ml: volume of the extracted brain, which is outlined in the pictures; None if none was extracted.
        label: a text of the user's own, which tells whose result it is; else empty.
        created: date, time and offset from UTC at which it was made, ISO 8601; empty if unknown.
        classes: class of the label map, e.g. ``ED`` -> volume in ml.
        lesions: the connected pieces of the outermost region, the largest first; see `mmb.clinic.report.lesions`. None
            if no tumour was found with confidence.
        specks: number of further pieces, which are too small to be called lesions.
        sheets: all slices, for the page's viewer; see `mmb.clinic.report.sheets`.
        verdicts: region -> how far its outline can be used, and why not further.
        class_verdicts: class -> the worse verdict of the two regions between whose borders it lies.
        presence: whether a tumour was found with confidence.
        scores: region -> raw score, in [0, 1]: the Dice that the network's probabilities predict, not calibrated.
        calibrated_on: number of patients that the calibration was fitted on; 0 if there is none.
        asked: what was asked for.
        found: every series or image file of the study, and what became of it.
        unread: number of files of the study that were not read.
        schema_version: raised when a field changes its meaning or goes.
    """

    title: str
    bundle: str
    version: str
    weights: str
    used: Sequence[UsedModality]
    volumes: Mapping[str, float]
    missing: Sequence[str] = ()
    expected_dice: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[Remark] = ()
    trained_on: str | None = None
    brain_ml: float | None = None
    classes: Mapping[str, float] = field(default_factory=dict)
    lesions: Sequence[Lesion] = ()
    specks: int = 0
    sheets: Sheets | None = None
    label: str = ""
    created: str = ""
    answer: str = ""
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    class_verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    presence: Presence = Presence.FOUND
    scores: Mapping[str, float] = field(default_factory=dict)
    calibrated_on: int = 0
    asked: Asked | None = None
    found: Sequence[FoundImage] = ()
    unread: int = 0
    schema_version: int = SCHEMA_VERSION

    @property
    def warnings(self) -> list[str]:
        """Why the result may be wrong, the most important reason first."""
        return [remark.text for remark in self.remarks if remark.gravity is not Gravity.NOTE]

    @property
    def notes(self) -> list[str]:
        """How the images were prepared: what was registered and how well, what was resampled."""
        return [remark.text for remark in self.remarks if remark.gravity is Gravity.NOTE]

    @property
    def stops(self) -> list[str]:
        """Why the result is not to be used, each reason in a few words."""
        return stop_reasons(self.remarks)

    def rows(self) -> list[RegionRow]:
        """Return what is said of each region; console, page and table are written from it."""
        numbers: Any = (self.volumes, self.intervals, self.expected_dice, self.verdicts)
        return [RegionRow(region, *(part.get(region) for part in numbers)) for region in self.volumes]


LEFT_OUT = ("pictures", "sheets", "label", "created")
"""Fields of a `StudySummary` that ``summary.json`` leaves out: pictures, and what may tell whose result it is."""


def volumes(label: Image, labels: LabelSet) -> dict[str, float]:
    """Return the volume in ml of each region of a label map."""
    masks, spacing = region_masks(np.asarray(label.dataobj), labels), voxel_sizes(label.affine)
    return {region: volume_of(mask, spacing) for region, mask in zip(labels.regions, masks, strict=True)}


def class_volumes(label: Image, labels: LabelSet) -> dict[str, float]:
    """Return the volume in ml of each class of a label map."""
    values, spacing = np.asarray(label.dataobj), voxel_sizes(label.affine)
    return {name: volume_of(values == value, spacing) for name, value in labels.values.items()}


def calibrated(
    volumes: Mapping[str, float],
    scores: Mapping[str, float],
    used: Sequence[str],
    brain: float,
    cohort: Cohort,
    calibration: Calibration | None,
) -> dict[str, Any]:
    """Return those fields of a `StudySummary` that depend on the calibration, by name.

    ``volumes`` (ml) and raw ``scores`` are those of the regions, ``brain`` is the visible brain in ml.
    """
    t1c, found = "t1c" in used, presence(volumes, scores, calibration)
    fields: dict[str, Any] = {"presence": found, "scores": scores, "expected_dice": scores}
    if calibration is None:
        return fields
    sure = found is Presence.FOUND  # else neither an interval nor the Dice of tumours that are there says anything
    known = [region for region in volumes if region in calibration.regions and volumes[region]]
    expected = {region: calibration.expected(region, scores[region], t1c) for region in known}
    return fields | {
        "expected_dice": {**scores, **expected},
        "intervals": intervals(volumes, scores, t1c, calibration, brain, cohort.labels) if sure else {},
        "calibrated_on": calibration.patients,
    }


def calibration_note(calibration: Calibration) -> Remark:
    """Return a note on how far words and intervals held in patients that the calibration was not fitted on."""
    judged = {region: each.left_out for region, each in calibration.regions.items()}
    held = [f"{name} {share(it.held, it.intervals)}" for name, it in judged.items() if it.intervals_hold]
    right = [f"{name} {share(it.right, it.usable)}" for name, it in judged.items() if it.words_hold]
    text = (
        f"Calibrated on {calibration.patients} patients. In patients left out, intervals held the true volume: "
        f"{', '.join(held) or 'too rarely'}. None is given if it would span more than a factor of {WIDEST:g}, or if "
        f"there may be no tumour. Of outlines called usable, these had an overlap (Dice) of {100 * GOOD_DICE:.0f} % or "
        f"more with the expert's: {', '.join(right) or 'too few'}."
    )
    return Remark("calibrated", Gravity.NOTE, text)


def brain_note(study: Study, brain: Brain) -> Remark:
    """Return a note on the origin of an extracted brain, and on the agreement of the images on it."""
    others = [f"{display_name(name)} {value:.2f}" for name, value in brain.agreement.items() if name != brain.modality]
    agreed = f"; overlap (Dice) with the brain found in the others: {', '.join(others)}" if others else ""
    origin = "it is in the skull-stripped" if brain.stripped else "deepbet found it in the"
    text = (
        f"The brain ({brain.millilitres:.0f} ml) was cut out of all images as {origin} "
        f"{display_name(brain.modality)} ({study.sources[brain.modality]}){agreed}."
    )
    return Remark("brain", Gravity.NOTE, text, (brain.modality,))


def registration_notes(study: Study, aligned: AlignedStudy) -> list[Remark]:
    """Return a note on each registration, with the names of the modalities that it moved."""
    (base,) = (each.candidate for each in study.assignment.records if each.candidate.name == study.base)
    target = next((display_name(name) for name, each in study.used.items() if each.candidate is base), base.source)
    matches: dict[int, list[str]] = defaultdict(list)  # the volumes of one frame of reference share one
    for name, match in aligned.registered.items():
        matches[id(match)].append(name)
    texts = [
        f"{' and '.join(map(display_name, names))} to {target}: {aligned.registered[names[0]].text}."
        for names in matches.values()
    ]
    return [
        Remark("registered", Gravity.NOTE, text, tuple(names))
        for text, names in zip(texts, matches.values(), strict=True)
    ]


def summarise(
    label: Image,
    segmentation: Segmentation,
    study: Study,
    aligned: AlignedStudy,
    brain: Brain | None,
    inference: Predictor,
    notes: Sequence[Remark],
) -> StudySummary:
    """Return what a study yields; ``label`` lies on the reference's grid, which the first of ``notes`` names."""
    cohort, used, calibration = inference.cohort, [*study.images], inference.calibration
    labels, affine = cohort.labels, next(iter(aligned.images.values())).affine
    measured, masks = volumes(label, labels), dict(zip(labels.regions, segmentation.masks, strict=True))
    scores = {
        region: expected_dice(p, mask, float(p.sum(dtype=np.float64))) if measured[region] else 0.0
        for (region, mask), p in zip(masks.items(), segmentation.probabilities, strict=True)
    }
    spacing, head = voxel_sizes(affine), brain_mask(aligned, brain)
    origin = affine[:3, 3] @ affine[:3, :3] / spacing if study.is_oriented else None  # along the grid's own axes
    drawn = {name: np.asarray(image.dataobj) for name, image in aligned.images.items()}
    fields = calibrated(measured, scores, used, volume_of(head, spacing), cohort, calibration)
    found = fields["presence"]
    remarks = [*notes, *contradicted(study.used), *weights_remarks(inference, used)]
    remarks += presence_remarks(found, measured, scores, calibration)
    sure = found is not Presence.NONE
    remarks += doubts(study, aligned, brain, head, masks, measured, cohort, inference.spacing, sure)
    remarks += [brain_note(study, brain)] if brain else []
    remarks += [calibration_note(calibration)] if calibration else []
    remarks = by_gravity([*remarks, *registration_notes(study, aligned)])
    oriented = study.is_oriented and not cut_off(head)
    pieces, specks = lesions(masks, affine, head, measured[next(iter(masks))], oriented)
    pieces = pieces if sure else []
    given = verdicts(measured, scores, used, calibration, found, remarks)
    stops = stop_reasons(remarks)
    partial = any(remark.code == "partial" and "t1c" in remark.about for remark in remarks)
    unfounded = [*measured] if stops else SHOWN_BY_T1C if partial else []
    for name in ("intervals", "expected_dice"):
        fields[name] = {region: each for region, each in fields.get(name, {}).items() if region not in unfounded}
    confidence = {name: grade.word if (grade := each.stated_grade) else None for name, each in study.used.items()}
    return StudySummary(
        answer=answer(measured, fields["intervals"], given, pieces, found, stops, calibration),
        title=f"Segmentation from {display_subset(subset_name(used))}",
        bundle=inference.method,
        version=inference.version,
        weights=inference.weights_name,
        trained_on=inference.trained_on,
        used=[
            UsedModality(name, each.candidate.source, each.reason, confidence[name])
            for name, each in study.used.items()
        ],
        missing=[name for name in cohort.modalities if name not in used],
        found=study.found,
        unread=study.headers.unread if study.headers else 0,
        volumes=measured,
        pictures=pictures(drawn, segmentation.masks, spacing, brain and brain.mask, origin),
        brain_ml=brain and brain.millilitres,
        classes=class_volumes(label, labels),
        lesions=pieces,
        specks=specks,
        sheets=sheets(drawn, masks, spacing, origin, [piece.centre for piece in pieces], brain and brain.mask),
        remarks=remarks,
        verdicts=given,
        class_verdicts=class_verdicts(given, labels),
        **fields,
    )


def weights_remarks(inference: Predictor, used: Sequence[str]) -> Iterator[Remark]:
    """Yield why weights may not fit the study."""
    for text in inference.warnings:
        brief = "these weights are not made for patients"
        yield Remark("not_for_patients", Gravity.STOP, text, brief=brief)
    if unknown := unseen(used, inference.seen):
        yield Remark("unseen_sequences", Gravity.DOUBT, unknown)
