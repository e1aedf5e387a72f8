"""Decisions: how probabilities become a label map."""

from collections.abc import Hashable, Mapping
from typing import Any

import torch
from monai.config import KeysCollection

from common.io.settings import check_choice
from common.modalities import SHOWN_BY_T1C, LabelSet
from common.transforms.labels import ConvertLabelsd

DECISIONS = ("threshold", "expected_dice", "by_sequences")
"""Values of the key `decision`."""
LEAST_DICE = 0.1
"""Expected Dice below which a region counts as absent. Voxels of a region that is not there may all have a small
probability, and marking some of them would cost a Dice of 1. On the validation cases of `open_glioma` no region that is
there was lost by this; with 0.2 some were."""
LEAST_FOUND = 0.4
"""Expected Dice of the whole tumour below which ``by_sequences`` marks nothing: most brains without a tumour are below.
It is the highest limit, in steps of 0.05, that costs M3AE's shipped weights less than half a point of Dice in every
region on the validation cases."""
LEAST_ENHANCING = 0.4
"""Expected Dice of the enhancing tumour below which ``by_sequences`` marks none of it with T1c. Of 0.3, 0.4 and 0.5 it
gives the highest mean Dice over the 23 patients in docs/open_glioma/members/out_of_fold.csv without costing one that
has 1 ml or more of it more than 5 points."""


class DecideLabelsd(ConvertLabelsd):
    """Turn probabilities into a label map ``(1, X, Y, Z)`` in the cohort's values.

    - ``threshold`` takes the class of highest probability, or with independent regions those of at least 0.5, as the
      papers do.
    - ``expected_dice`` takes, for each region, the voxels that `most_expected_dice` chooses for this case, or none if
      even their expected Dice is below `LEAST_DICE`. It marks more than the threshold where the network is unsure, for
      instance the enhancing tumour without T1c. Regions are then painted from the largest to the smallest, so that they
      stay nested.
    - ``by_sequences`` takes the regions that T1c shows (`SHOWN_BY_T1C`) by the threshold if T1c is among the sequences,
      and all others by the expected Dice: on validation cases each was the better one there. If the expected Dice of
      the first region, the whole tumour, is below `LEAST_FOUND`, nothing is marked; if that of the last one, the
      enhancing tumour, is below `LEAST_ENHANCING` with T1c, the last region is empty.

    The probabilities are those of regions ``(R, X, Y, Z)``, or with ``softmax`` of classes ``(K, X, Y, Z)``. For
    ``by_sequences`` the item has to name its sequences (key ``subset``), as `LoadSubjectd` does.

    Examples:
        >>> import torch
        >>> from common.transforms import DecideLabelsd
        >>> probabilities = torch.tensor([[0.9, 0.4, 0.1], [0.6, 0.1, 0.1], [0, 0, 0]])[..., None, None]  # WT, TC, ET
        >>> for decision in ("threshold", "expected_dice"):
        ...     decide = DecideLabelsd("pred", "brats2021", decision)
        ...     print(decide({"pred": probabilities})["pred"].flatten().tolist())
        [1, 0, 0]
        [1, 2, 0]
    """

    def __init__(self, keys: KeysCollection, cohort: str, decision: str = "threshold", softmax: bool = False) -> None:
        super().__init__(keys, cohort)
        self.decision, self.softmax = check_choice("decision", decision, DECISIONS), softmax

    def _convert(self, volume: torch.Tensor, item: Mapping[Hashable, Any]) -> torch.Tensor:
        probabilities = volume.as_subclass(torch.Tensor)
        if self.softmax:
            best = probabilities.max(dim=0, keepdim=True).indices  # argmax is five times slower on a CPU
            threshold = self.labels.from_classes(best)
        else:
            threshold = self.labels.from_regions(probabilities >= 0.5)
        if self.decision == "threshold":
            return threshold
        regions = region_probabilities(probabilities, self.labels, self.softmax)
        subset = item["subset"] if self.decision == "by_sequences" else ""
        return decide(self.decision, threshold, regions, self.labels, subset)


def decide(
    decision: str, threshold: torch.Tensor, regions: torch.Tensor, labels: LabelSet, subset: str
) -> torch.Tensor:
    """Return the label map ``(1, X, Y, Z)`` of a decision, one of `DECISIONS`.

    Args:
        threshold: the threshold's label map ``(1, X, Y, Z)``, in the values of ``labels``.
        regions: probabilities of the regions ``(R, X, Y, Z)``.
        subset: the sequences from which the case was segmented, e.g. ``t1c+flair``.
    """
    if decision == "threshold":
        return threshold
    shown = SHOWN_BY_T1C if decision == "by_sequences" and "t1c" in subset.split("+") else ()
    masks = labels.to_regions(threshold).bool()
    for number, name in enumerate(labels.regions):
        least = LEAST_FOUND if decision == "by_sequences" and number == 0 else LEAST_DICE
        if name not in shown:
            masks[number] = most_expected_dice(regions[number], least)
        elif name == "ET" and not most_expected_dice(regions[number], LEAST_ENHANCING).any():
            masks[number] = False
    if decision == "by_sequences" and not masks[0].any():
        return torch.zeros_like(threshold)
    return labels.from_regions(masks)


def region_probabilities(probabilities: torch.Tensor, labels: LabelSet, softmax: bool) -> torch.Tensor:
    """Return the probabilities of the regions ``(R, ...)``; a softmax's ``(K, ...)`` are summed over their classes."""
    return labels.region_probabilities(probabilities) if softmax else probabilities


def most_expected_dice(probability: torch.Tensor, least: float = LEAST_DICE) -> torch.Tensor:
    """Return the mask of highest expected Dice, if the probabilities are right.

    The expected Dice of a mask A is approximated by ``2 sum(p in A) / (|A| + sum(p))``. A mask that maximises it holds
    the voxels above a threshold, half its own expected Dice (Lipton et al., Optimal thresholding of classifiers to
    maximize F1 measure, ECML PKDD 2014; Dai and Li, RankSEG, JMLR 2023). Starting from 0.5, each threshold is half the
    expected Dice of the mask before, which rises until it is the maximum (Dinkelbach, Management Science 13, 1967).
    The probabilities are in [0, 1]; the mask has their shape, and is empty if its expected Dice is below ``least``.
    """
    total = float(probability.sum(-1).sum(dtype=torch.float64))  # a sixth of the time of summing all in float64

    def half(chosen: torch.Tensor) -> float:
        """Return half the expected Dice of the mask of these probabilities."""
        return float(chosen.sum(dtype=torch.float64)) / max(len(chosen) + total, 1e-9)

    threshold = half(probability[probability > 0.5])
    chosen = probability[probability > threshold]  # no later threshold is lower
    while (better := half(chosen)) > threshold:
        threshold, chosen = better, chosen[chosen > better]
    return probability > (threshold if 2 * threshold >= least else 1)
