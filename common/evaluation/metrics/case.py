"""Results of one case: its metrics for every subset, and small arrays for the figures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
import torch

from common.evaluation.metrics.calibration import bin_probabilities
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.overlap import Reference, region_masks
from common.evaluation.metrics.results import BIN_COLUMNS, COLUMNS
from common.modalities import LabelSet, foreground, presence, subset_name

CASE_COLUMNS = (*COLUMNS, "decision")
EPSILON = 1e-7  # bound by which probabilities are clipped, to [EPSILON, 1 - EPSILON], before logarithms


@dataclass
class CaseResult:
    """Results of a case, without the predictions themselves.

    Attributes:
        results: rows with `CASE_COLUMNS`: those of `Evaluation.results` for each decision (`DECISIONS`).
        bins: rows as in `Evaluation.bins`.
        latents: modality -> features of the case when segmented from that modality alone.
        planes: the axial plane through the tumour's centre, RAS: ``image`` (M, X, Y) float16, ``reference`` (X, Y),
            and for each decision and subset (``threshold/t1c+flair``) the predicted label map (X, Y); ``spacing`` (2,)
            in mm.
        seconds: time from image to logits in seconds, divided by the number of subsets. Networks with ``encode`` and
            ``decode`` encode the image once for all subsets.
        memory_mb: peak memory during the case, in MB.
    """

    case: str
    results: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=CASE_COLUMNS))
    bins: pd.DataFrame = field(default_factory=lambda: pd.DataFrame(columns=BIN_COLUMNS))
    latents: dict[str, np.ndarray] = field(default_factory=dict)
    planes: dict[str, np.ndarray] = field(default_factory=dict)
    seconds: float = float("nan")
    memory_mb: float = float("nan")

    def decided(self, decision: str) -> pd.DataFrame:
        """Return the rows of one decision, with `COLUMNS`."""
        return self.results.loc[self.results["decision"] == decision, list(COLUMNS)]


class CaseMeasure:
    """Measure the predictions for one case against its reference.

    The prediction from all modalities of the case has to be added first, since divergences are measured from it.
    Without it they are NaN.

    Args:
        label: reference label map (X, Y, Z) in the cohort's values, RAS.
        image: (M, X, Y, Z) on the same grid, NaN where a modality is missing and at its lowest outside the brain.
        modalities: the M names, in the image's order.
    """

    def __init__(
        self,
        case: str,
        label: np.ndarray,
        image: np.ndarray,
        modalities: Sequence[str],
        spacing: Sequence[float],
        labels: LabelSet,
        conventions: Conventions,
    ) -> None:
        self.case, self.labels, self.conventions = case, labels, conventions
        self.reference = Reference(label, labels, spacing, conventions)
        self.millilitres = float(np.prod(spacing)) / 1000
        counted = self.reference.counted
        batch = torch.from_numpy(image)[None]
        self.brains = dict(zip(modalities, foreground(batch)[0].numpy() & counted, strict=True))
        self.whole_brain = np.logical_or.reduce([*self.brains.values()])
        present = zip(modalities, presence(batch)[0].tolist(), strict=True)
        self.everything = subset_name([modality for modality, used in present if used])
        self.whole: Sequence[np.ndarray | float] = [np.nan] * len(labels.regions)
        label = label * counted
        self.plane = _central_plane(label)
        self.rows: list[tuple] = []
        self.bins: list[pd.DataFrame] = []
        self.planes = {
            "image": image[..., self.plane].astype(np.float16),
            "reference": label[..., self.plane],
            "spacing": np.asarray(spacing[:2], np.float64),
        }

    def add(self, subset: str, predictions: Mapping[str, np.ndarray], probabilities: np.ndarray) -> None:
        """Measure the predictions that decisions make of the probabilities from a subset.

        Reliability bins count the voxels of the brain as the subset shows it: where any of its modalities differs from
        its background. Entropies are over the brain as all modalities of the case show it, so that they are comparable
        between subsets. The predictions are label maps (X, Y, Z) in the cohort's values by decision; the probabilities
        of the regions are (R, X, Y, Z) in [0, 1].
        """
        if not self.reference.counted.all():
            probabilities = probabilities * self.reference.counted
        brain = np.logical_or.reduce([self.brains[modality] for modality in subset.split("+")])
        inside = [probability[self.whole_brain] for probability in probabilities]
        if subset == self.everything:
            self.whole = inside
        totals = [float(probability.sum(dtype=np.float64)) for probability in probabilities]
        unsure = [uncertainty(q, p) for q, p in zip(inside, self.whole, strict=True)]
        for decision, label in predictions.items():
            prediction = self.reference.prepared(label)
            measured, masks = self.reference.compare(prediction), region_masks(prediction, self.labels)
            for number, region in enumerate(self.labels.regions):
                values = {metric: value for (name, metric), value in measured.items() if name == region}
                values["expected_volume"] = totals[number] * self.millilitres
                values["expected_dice"] = expected_dice(probabilities[number], masks[number], totals[number])
                values |= unsure[number]
                self.rows += [(self.case, subset, region, metric, value, decision) for metric, value in values.items()]
            self.planes[f"{decision}/{subset}"] = prediction[..., self.plane]
        for number, region in enumerate(self.labels.regions):
            bins = bin_probabilities(probabilities[number], self.reference.masks[region], brain)
            self.bins.append(bins.assign(case=self.case, modalities=subset, region=region))

    def result(self, latents: Mapping[str, np.ndarray], seconds: float) -> CaseResult:
        """Return all results, with the subsets in the order in which they were added."""
        results = pd.DataFrame(self.rows, columns=CASE_COLUMNS)
        none = pd.DataFrame(columns=BIN_COLUMNS)
        bins = pd.concat(self.bins, ignore_index=True)[list(BIN_COLUMNS)] if self.bins else none
        return CaseResult(self.case, results, bins, dict(latents), self.planes, seconds)


def expected_dice(probability: np.ndarray, prediction: np.ndarray, probable: float) -> float:
    """Return the soft Dice of a predicted mask and its own probabilities, an estimate of its Dice without a reference.

    It is ``2 sum(p y) / (sum(p) + sum(y))``, where ``probable`` is ``sum(p)``. For an empty prediction it is 1 if all
    probabilities are 0; otherwise it is 0, however small they are. The estimate is only as good as the calibration of
    the probabilities.
    """
    total = probable + np.count_nonzero(prediction)
    if total == 0:
        return 1.0
    return float(2 * probability[prediction > 0].sum(dtype=np.float64) / total)


def uncertainty(probability: np.ndarray, whole: np.ndarray | float) -> dict[str, float]:
    """Return the entropy of a region's probabilities, and their divergence from those that all modalities give.

    The probabilities are ``(V,)`` for V voxels: q from a subset, and p from all modalities, or NaN, which makes the
    divergence NaN. ``entropy`` is the mean of the Bernoulli entropy ``-q log(q) - (1 - q) log(1 - q)``. ``divergence``
    is the mean of the Kullback-Leibler divergence KL(all modalities || subset),
    ``p log(p / q) + (1 - p) log((1 - p) / (1 - q))``. Both are in nats, with probabilities clipped by `EPSILON`. MAG-MS
    (He et al.; Theorem 1, proof in appendix 6.1) defines them for the classes of the softmax.
    """
    q, p = (np.clip(given, EPSILON, 1 - EPSILON, dtype=np.float64) for given in (probability, whole))
    log_q, log_rest = np.log(q), np.log(1 - q)
    return {
        "entropy": float(-(q * log_q + (1 - q) * log_rest).mean()),
        "divergence": float((p * (np.log(p) - log_q) + (1 - p) * (np.log(1 - p) - log_rest)).mean()),
    }


def _central_plane(label: np.ndarray) -> int:
    """Return the axial plane through the centre of mass, or the middle one of an empty label map."""
    planes = np.count_nonzero(label, axis=(0, 1))
    if not planes.any():
        return label.shape[-1] // 2
    return round(float(np.average(np.arange(len(planes)), weights=planes)))
