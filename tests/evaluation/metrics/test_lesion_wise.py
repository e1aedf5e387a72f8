"""Lesion-wise Dice and HD95 equal those of the challenge's code (BraTS-2023-Metrics, commit 43c9052) on ten pairs."""

import numpy as np
import pytest

from common.cohorts import get_cohort
from common.evaluation.metrics.conventions import LESION_WISE, Conventions
from common.evaluation.metrics.overlap import Reference

LABELS = get_cohort("brats2023").labels
SHAPE = (72, 64, 56)
FAR, SMALL, NEAR, TINY = ((56, 46, 40), 5), ((12, 12, 12), 3), ((47, 30, 28), 2.5), ((62, 10, 46), 1.8)


def main(shift=(0, 0, 0), scale=1.0):
    return np.add((30, 30, 28), shift), np.multiply((14, 12, 10), scale)


def tumours(*balls) -> np.ndarray:
    """Return a label map of tumours with a core, an enhancing rim and oedema, each given by its centre and radius."""
    label, grid = np.zeros(SHAPE, np.uint8), np.moveaxis(np.indices(SHAPE), 0, -1)
    for centre, radius in balls:
        for value, share in ((2, 1.0), (3, 0.65), (1, 0.35)):
            semi_axes = np.broadcast_to(np.multiply(radius, share), 3)
            label[np.sqrt((((grid - centre) / semi_axes) ** 2).sum(-1)) <= 1] = value
    return label


def bridge() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[2:66, 28:36, 24:30], label[2:66, 30:34, 24:30] = 2, 3
    return label


WRONG = (0, 374)
PAIRS = {
    "shifted": (tumours(main()), tumours(main((3, -2, 1)))),
    "missed": (tumours(main(), FAR, SMALL), tumours(main((1, 1, 0), 0.9))),
    "false": (tumours(main()), tumours(main((0, 2, 1)), FAR, SMALL)),
    "near": (tumours(main(), NEAR), tumours(main((0, 1, 0), 1.05), ((48, 30, 28), 2.5))),
    "small one missed": (tumours(main(), TINY), tumours(main((0, 1, 2)))),
    "small one hit": (tumours(main(), TINY), tumours(main((-2, 1, 0)), ((62, 10, 46), 2.4))),
    "both empty": (tumours(), tumours()),
    "reference empty": (tumours(), tumours(FAR, SMALL)),
    "prediction empty": (tumours(main(), FAR), tumours()),
    "two joined at the edge": (tumours(((4, 32, 27), 8), ((66, 32, 27), 9)), bridge()),
}
PUBLISHED = {  # WT and ET of GLI at 1 mm; WT and ET of MET at 1 x 1 x 2.5 mm
    "shifted": [(0.7832, 3.0), (0.4969, 3.0), (0.7832, 3.6056), (0.4969, 3.3541)],
    "missed": [(0.2817, 250.0787), (0.367, 187.866), (0.2817, 250.2761), (0.2447, 250.1667)],
    "false": [(0.2847, 250.0), (0.2206, 250.0), (0.2847, 250.2309), (0.2206, 250.1667)],
    "near": [(0.9134, 1.4142), (0.8356, 1.0), (0.9134, 2.0), (0.642, 1.2071)],
    "small one missed": [(0.8376, 2.0), (0.6221, 2.0), (0.4188, 188.6771), (0.311, 188.5811)],
    "small one hit": [(0.8765, 1.7321), (0.7038, 1.7321), (0.7597, 2.25), (0.6019, 1.5)],
    "both empty": [(1, 0), (1, 0), (1, 0), (1, 0)],
    "reference empty": [WRONG, WRONG, WRONG, WRONG],
    "prediction empty": [WRONG, WRONG, WRONG, WRONG],
    "two joined at the edge": [(0.1611, 52.1249), (0.0849, 55.5), (0.1611, 53.2096), (0.0849, 55.5046)],
}


@pytest.mark.parametrize("pair", PAIRS)
def test_scores_are_those_of_the_challenge(pair):
    reference, prediction = PAIRS[pair]
    scores = []
    for task, spacing in (("GLI", (1, 1, 1)), ("MET", (1, 1, 2.5))):
        values = Reference(reference, LABELS, spacing, Conventions(lesion_wise=task)).measure(prediction)
        scores += [(values[region, "lesion_dice"], values[region, "lesion_hd95"]) for region in ("WT", "ET")]
    assert np.array(scores) == pytest.approx(np.array(PUBLISHED[pair], float), abs=1e-4)


@pytest.mark.parametrize(
    ("task", "joined", "largest"), [("GLI", 6, 50), ("SSA", 6, 50), ("PED", 6, 50), ("MEN", 2, 50), ("MET", 2, 2)]
)
def test_parts_are_joined_by_a_dilation_and_small_ones_are_not_counted(task, joined, largest):
    """Parts touch if the gap between them is twice the dilation, and a lesion counts if it is larger than a volume."""

    def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
        found = Reference(reference, LABELS, (1, 1, 1), Conventions(lesion_wise=task)).measure(prediction)
        return found["WT", "lesion_dice"]

    first = np.zeros((40, 12, 12), np.uint8)
    first[4:9, 4:9, 4:9] = 2
    for gap, expected in ((joined, 2 * 125 / (125 + 250)), (joined + 1, 0.5)):  # of one lesion; the second is missed
        both = first.copy()
        both[9 + gap : 14 + gap, 4:9, 4:9] = 2
        assert dice(both, first) == pytest.approx(expected)
    for size, expected in ((largest, 1), (largest + 1, 0.5)):
        both = first.copy()
        both[30:36, 1:11, 5] = (np.arange(60) < size).reshape(6, 10) * 2
        assert dice(both, first) == pytest.approx(expected)


def test_they_are_measured_on_request_and_for_known_tasks_alone():
    assert ("WT", "lesion_dice") not in Reference(*PAIRS["near"][:1], LABELS, (1, 1, 1)).measure(PAIRS["near"][1])
    with pytest.raises(ValueError, match=rf"lesion_wise is 'gli'; expected a task .*{', '.join(LESION_WISE)}"):
        Conventions(lesion_wise="gli")
