"""Whether label maps of another program have the cohort's classes under other values, or their axes otherwise."""

from collections.abc import Mapping
from itertools import permutations, product

import numpy as np
from scipy.optimize import linear_sum_assignment

from common.modalities import IGNORED, LabelSet

GAIN = 0.1
"""Rise of the mean Dice of the classes concerned from which an exchange is no chance. Maps in another order gain half
or more; those of a network that confuses two classes, as with few sequences, gain hundredths."""
TURNED = 0.3  # rise of the Dice from which other axes are no chance


class ClassOrder:
    """Overlap of every class of predictions with every class of their references, over all voxels that are added."""

    def __init__(self, labels: LabelSet) -> None:
        self._labels = labels
        self._shared = np.zeros((len(labels.values) + 1,) * 2)  # row: value of the prediction, the last is background

    def add(self, prediction: np.ndarray, reference: np.ndarray) -> None:
        """Count the voxels of two label maps of the same shape, in the cohort's values; those ignored do not count."""
        some = ((prediction != 0) | (reference != 0)) & (reference != IGNORED)
        values = [*self._labels.values.values(), 0]
        rows, columns = ([each[some] == value for value in values] for each in (prediction, reference))
        self._shared += [[np.count_nonzero(row & column) for column in columns] for row in rows]

    def doubt(self) -> str | None:
        """Return that other meanings of the values fit better, and how much; None if the cohort's fit best."""
        sizes = self._shared.sum(axis=1)[:-1, None] + self._shared.sum(axis=0)[:-1]
        dice = 2 * self._shared[:-1, :-1] / np.maximum(sizes, 1)
        meant = linear_sum_assignment(dice + 1e-9 * np.eye(len(dice)), maximize=True)[1]  # what is equal stays
        other = np.flatnonzero(meant != np.arange(len(meant)))
        if not len(other) or (dice[other, meant[other]] - dice[other, other]).mean() < GAIN:
            return None
        names = list(self._labels.values)
        meanings = " and ".join(f"{self._labels.values[names[i]]} meant {names[meant[i]]}" for i in other)
        before, after = self._regions(np.arange(len(meant))), self._regions(meant)
        changes = [f"{region} {before[region]:.1f} to {after[region]:.1f}" for region in before]
        known = ", ".join(f"{value} {name}" for name, value in self._labels.values.items())
        return (
            f"its values fit the references better if {meanings}: Dice over all voxels would change from "
            f"{', '.join(changes)}. The cohort has {known}; if the program that wrote the label maps orders them "
            "otherwise, give them the cohort's values and compare again."
        )

    def _regions(self, meant: np.ndarray) -> Mapping[str, float]:
        """Return region -> Dice (%) over all voxels, if the predictions' class ``i`` is the class ``meant[i]``."""
        names, scores = list(self._labels.values), {}
        for region, classes in self._labels.regions.items():
            inside = np.array([name in classes for name in names])
            predicted = inside[meant]
            shared = self._shared[:-1, :-1][predicted][:, inside].sum()
            both = self._shared[:-1][predicted].sum() + self._shared[:, :-1][:, inside].sum()
            scores[region] = 100 * 2 * shared / max(both, 1)
        return scores


def other_axes(prediction: np.ndarray, reference: np.ndarray) -> str:
    """Return the axes with which the foreground of a label map fits its reference, if its own miss it; else nothing."""
    one, other = prediction != 0, (reference != 0) & (reference != IGNORED)
    dice: dict[str, float] = {}
    for axes, steps in product(permutations(range(3)), product((1, -1), repeat=3)):
        turned = one.transpose(axes)[tuple(slice(None, None, step) for step in steps)]
        if turned.shape == other.shape:
            name = ", ".join(f"{'-' * (step < 0)}{'xyz'[axis]}" for axis, step in zip(axes, steps, strict=True))
            dice[name] = float(2 * (turned & other).sum() / max(one.sum() + other.sum(), 1))
            if dice["x, y, z"] > 1 - TURNED:
                break
    best, own = max(dice, key=dice.__getitem__), dice["x, y, z"]
    return f"{best} (Dice {own:.2f} to {dice[best]:.2f})" if dice[best] - own >= TURNED else ""
