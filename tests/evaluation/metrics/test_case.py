"""The results stored for a case, compared with `Reference` and with numbers worked out by hand.

Lesion-wise Dice and HD95 equal those of the challenge's code (BraTS-2023-Metrics, commit 43c9052) on ten pairs.
"""

import numpy as np
import pandas as pd
import pytest
import torch
from evaluation.examples import ALWAYS, PROBABILISTIC

from common.cohorts import get_cohort
from common.evaluation.analysis.reliability import calibration_error
from common.evaluation.metrics.calibration import bin_probabilities
from common.evaluation.metrics.case import CASE_COLUMNS, CaseMeasure, expected_dice, uncertainty
from common.evaluation.metrics.conventions import LESION_WISE, Conventions
from common.evaluation.metrics.overlap import Reference
from common.evaluation.metrics.results import BIN_COLUMNS
from common.modalities import IGNORED, tumour_labels

LABELS = tumour_labels(NCR=1, ED=2, ET=4)
SHAPE, SPACING = (8, 7, 6), (1.0, 1.0, 1.5)
BRAIN = (slice(1, 7), slice(1, 6), slice(0, 6))


def reference() -> np.ndarray:
    label = np.zeros(SHAPE, np.uint8)
    label[2:6, 2:5, 1:4], label[3:5, 2:4, 2:4], label[3, 3, 3] = 2, 1, 4
    return label


def image() -> np.ndarray:
    """Return two modalities, the second of which is missing."""
    found = np.full((2, *SHAPE), np.nan, np.float32)
    found[0] = 0
    found[0][BRAIN] = 1
    return found


def both() -> np.ndarray:
    """Return an image whose second modality shows 90 voxels of brain, 30 of them outside the first one's 180."""
    found = image()
    found[1] = 0
    found[1, 0:3, 1:6] = 5
    return found


def measure(label: np.ndarray | None = None, shown: np.ndarray | None = None, **conventions) -> CaseMeasure:
    label, shown = (reference() if label is None else label), (image() if shown is None else shown)
    return CaseMeasure("case", label, shown, ("t1", "t2"), SPACING, LABELS, Conventions(**conventions))


def probabilities(inside: float = 0.9, outside: float = 0.1) -> np.ndarray:
    """Return probabilities of WT, TC and ET that give the reference this certainty."""
    label = reference()
    masks = np.stack([label > 0, np.isin(label, (1, 4)), label == 4])
    return np.where(masks, inside, outside).astype(np.float32)


@pytest.mark.parametrize(
    ("p", "y", "expected"),
    [
        ([0.9, 0.6, 0.2, 0.1], [1, 1, 0, 0], 2 * 1.5 / (1.8 + 2)),
        ([1, 0, 1], [1, 0, 1], 1),  # sure and right
        ([0] * 5, [0] * 5, 1),
        ([0.4] * 5, [0] * 5, 0),  # nothing predicted, but some probability
    ],
)
def test_expected_dice(p, y, expected):
    assert expected_dice(np.array(p, np.float32), np.array(y, np.uint8), sum(p)) == pytest.approx(expected, abs=1e-7)


def bernoulli(q: float) -> float:
    return -q * np.log(q) - (1 - q) * np.log(1 - q)


@pytest.mark.parametrize(
    ("q", "p", "entropy", "divergence"),
    [
        ([0.5, 0.9], [0.8, 0.9], (0.693147 + 0.325083) / 2, 0.192745 / 2),
        # probabilities are clamped to 1e-7 and 1 - 1e-7: log(1e-7) is -16.118
        ([0.0, 1.0], [1.0, 1.0], 1e-7 * 17.118, 16.1181 / 2),
        ([0.5, 0.5], np.nan, np.log(2), np.nan),  # one subset alone
    ],
)
def test_uncertainty(q, p, entropy, divergence):
    found = uncertainty(np.array(q, np.float32), np.array(p, np.float32))
    assert found == pytest.approx({"entropy": entropy, "divergence": divergence}, rel=1e-4, abs=1e-10, nan_ok=True)


class TestEntropies:
    def measured(self, *added: tuple[str, np.ndarray], shown: np.ndarray | None = None) -> dict[tuple, float]:
        found = measure(shown=both() if shown is None else shown)
        for subset, given in added:
            found.add(subset, {"threshold": reference()}, given)
        return found.result({}, 0).results.set_index(["modalities", "region", "metric"])["value"].to_dict()

    def test_are_over_the_brain_that_all_modalities_show(self):
        whole, part = np.full((3, *SHAPE), 0.8, np.float32), np.full((3, *SHAPE), 0.8, np.float32)
        part[0] = 0.9
        part[0][BRAIN] = 0.5
        values = self.measured(("t1+t2", whole), ("t1", part), ("t2", part))
        near, far = 0.192745, 0.8 * np.log(0.8 / 0.9) + 0.2 * np.log(0.2 / 0.1)  # KL(0.8 || 0.5), KL(0.8 || 0.9)
        for subset in ("t1", "t2"):
            assert values[subset, "WT", "entropy"] == pytest.approx((180 * np.log(2) + 30 * bernoulli(0.9)) / 210)
            assert values[subset, "WT", "divergence"] == pytest.approx((180 * near + 30 * far) / 210, rel=1e-5)
        for subset, region in (("t1", "TC"), ("t1", "ET"), ("t1+t2", "WT")):
            assert values[subset, region, "entropy"] == pytest.approx(bernoulli(0.8))
            assert values[subset, region, "divergence"] == 0

    def test_without_all_modalities_there_is_no_divergence(self):
        values = self.measured(("t1", probabilities()), ("t1+t2", probabilities()), ("t2", probabilities()))
        assert np.isnan(values["t1", "WT", "divergence"])
        assert values["t1", "WT", "entropy"] > 0
        assert values["t2", "WT", "divergence"] == 0


class TestRows:
    def test_are_those_of_reference_and_the_expected_dice(self):
        found = measure()
        predictions = {"t1": np.roll(reference(), 1, axis=0), "t1+t2": reference()}
        for subset, prediction in predictions.items():
            found.add(subset, {"threshold": prediction}, probabilities())
        rows = found.result({}, 1.5).results
        assert (list(rows.columns), set(rows["case"])) == (list(CASE_COLUMNS), {"case"})
        assert list(rows["modalities"].unique()) == ["t1", "t1+t2"]
        values = rows.set_index(["modalities", "region", "metric"])["value"].to_dict()
        assert len(values) == len(rows) == 2 * 3 * len(ALWAYS)
        expected = Reference(reference(), LABELS, SPACING, Conventions())
        for subset, prediction in predictions.items():
            measured = expected.measure(prediction)
            own = {key[1:]: v for key, v in values.items() if key[0] == subset and key[2] not in PROBABILISTIC}
            assert own == measured
        # TC has 2 x 2 x 2 = 8 of the 8 x 7 x 6 = 336 voxels; p is 0.9 in it and 0.1 elsewhere
        soft = 8 * 0.9 + 328 * 0.1
        assert values["t1+t2", "TC", "expected_volume"] == pytest.approx(soft * 1.5e-3, rel=1e-6)
        assert values["t1+t2", "TC", "expected_dice"] == pytest.approx(2 * 8 * 0.9 / (soft + 8), rel=1e-6)
        # moved by one voxel, half of it lies outside
        assert values["t1", "TC", "expected_dice"] == pytest.approx(2 * 4 * (0.9 + 0.1) / (soft + 8), rel=1e-6)

    def test_what_needs_no_reference_is_there_without_one(self):
        """Under ``skip``, a region that the reference lacks has no scores, but all results that need no reference."""
        label, rows = np.where(reference() == 4, 1, reference()).astype(np.uint8), {}
        for empty in ("brats", "skip"):
            found = measure(label, empty=empty)
            found.add("t1", {"threshold": reference()}, probabilities())
            rows[empty] = found.result({}, 0).results.set_index(["region", "metric"])["value"]
        lost = rows["brats"].index.difference(rows["skip"].index)
        kept = ["divergence", "entropy", "expected_dice", "expected_volume", "reference_volume", "volume"]
        assert set(lost.get_level_values("region")) == {"ET"}
        assert sorted(rows["skip"]["ET"].index) == kept
        assert (rows["skip"]["ET"][kept] == rows["brats"]["ET"][kept]).all()
        assert rows["skip"]["ET", "reference_volume"] == 0
        assert rows["skip"]["ET", "volume"] == pytest.approx(1.5e-3)

    def test_are_of_the_prediction_after_post_processing(self):
        found = measure(et_min_voxels=2)
        found.add("t1", {"threshold": reference()}, probabilities())
        values = found.result({}, 0).results.set_index(["region", "metric"])["value"]
        assert (found.planes["threshold/t1"] != 4).all()
        assert (values["ET", "volume"], values["ET", "dice"], values["ET", "expected_dice"]) == (0, 0, 0)


class TestBins:
    def test_hold_the_brain_that_the_subset_shows(self):
        found = measure(shown=both())
        for subset in ("t1", "t2", "t1+t2"):
            found.add(subset, {"threshold": reference()}, probabilities())
        bins = found.result({}, 0).bins
        assert len(bins[["case", "modalities", "region"]].drop_duplicates()) == 3 * 3
        bins = bins.query("region == 'WT'")
        assert bins.groupby("modalities")["voxels"].sum().to_dict() == {"t1": 180, "t2": 90, "t1+t2": 210}
        assert bins.groupby("modalities")["positives"].sum().to_dict() == {"t1": 36, "t2": 9, "t1+t2": 36}


class TestPlanes:
    def test_go_through_the_centre_of_the_reference(self):
        found = measure()  # planes 1 to 3 hold 12 voxels each: their mean is 2
        prediction = np.roll(reference(), 1, axis=0)
        found.add("t2", {"threshold": prediction}, probabilities())
        planes = found.result({}, 0).planes
        assert set(planes) == {"image", "reference", "spacing", "threshold/t2"}
        assert (planes["reference"] == reference()[..., 2]).all()
        assert (planes["threshold/t2"] == prediction[..., 2]).all()
        assert (planes["image"].shape, planes["image"].dtype) == ((2, 8, 7), np.float16)
        assert np.isnan(planes["image"][1]).all()
        assert planes["spacing"].tolist() == [1.0, 1.0]

    def test_the_centre_is_weighted_by_voxels(self):
        label = np.zeros(SHAPE, np.uint8)
        assert measure(label).plane == 3  # without a tumour, the middle one
        label[1:4, 1:4, 5], label[2, 2, 4], label[1, 1, 0] = 2, 2, 2  # (9 x 5 + 4 + 0) / 11 = 4.45
        assert (measure(label).planes["reference"] == label[..., 4]).all()
        label[1, 1, 0] = 0  # (9 x 5 + 4) / 10 = 4.9
        assert (measure(label).planes["reference"] == label[..., 5]).all()


def test_ignored_voxels_count_as_if_they_had_been_cut_off():
    label, prediction, shown, p = reference(), reference(), both(), probabilities()
    prediction[2] = 0
    whole = measure(np.where(np.arange(8)[:, None, None] < 5, label, IGNORED), shown)
    cut = measure(label[:5], shown[:, :5])
    for measured, planes in ((whole, 8), (cut, 5)):
        measured.add("t1+t2", {"threshold": prediction[:planes]}, p[:, :planes])
    found, expected = (measured.result({}, 1.0) for measured in (whole, cut))
    pd.testing.assert_frame_equal(found.results, expected.results)
    pd.testing.assert_frame_equal(found.bins, expected.bins)
    assert found.planes["reference"].max() < IGNORED


EVERYWHERE = np.ones(6, bool)


def test_bins_by_hand():
    """There are 15 bins; an edge belongs to the bin above it, and 1 to the last bin."""
    probability = np.array([0, 0.05, 0.5, 0.52, 0.6, 1], np.float32)  # 0.6 begins the tenth bin
    found = bin_probabilities(probability, np.array([0, 1, 0, 1, 1, 1]), EVERYWHERE)
    assert list(found.columns) == ["bin", "voxels", "probability", "positives"]
    assert found["bin"].tolist() == list(range(15))
    there = found[found["voxels"] > 0].set_index("bin")
    assert there["voxels"].to_dict() == {0: 2, 7: 2, 9: 1, 14: 1}
    assert there["positives"].tolist() == [1, 1, 1, 1]
    assert there["probability"].tolist() == pytest.approx([0.05, 1.02, 0.6, 1])


def test_only_the_mask_counts():
    probability, truth = torch.rand(4, 5, 6), torch.rand(4, 5, 6) < 0.5
    mask = torch.zeros(4, 5, 6, dtype=torch.uint8)
    mask[1:3, 2:4] = 1
    found = bin_probabilities(probability, truth, mask)
    assert (len(found), found["voxels"].sum()) == (15, 2 * 2 * 6)
    assert found["positives"].sum() == truth[1:3, 2:4].sum()
    assert found["probability"].sum() == pytest.approx(probability[1:3, 2:4].double().sum().item())
    elsewhere = torch.where(mask > 0, probability, 7.0)
    pd.testing.assert_frame_equal(bin_probabilities(elsewhere, truth | (mask == 0), mask), found)
    assert bin_probabilities(probability, truth, torch.zeros_like(mask))["voxels"].sum() == 0


def test_sums_are_of_64_bit():
    """In 32 bits, the sum of four million times 0.3 would be off by more than one part in a billion."""
    size = 2**22
    found = bin_probabilities(torch.full((size,), 0.3), torch.zeros(size), torch.ones(size))
    assert found["probability"].sum() == pytest.approx(size * float(np.float32(0.3)), rel=1e-9)
    assert bin_probabilities(np.array([1.0009, 0.5]), np.zeros(2), np.ones(2))["voxels"].iloc[14] == 1


@pytest.mark.parametrize("value", [-0.5, -0.0001, 1.0011, 1.5, np.nan])
def test_what_is_no_probability(value):
    with pytest.raises(ValueError, match="expected 0 to 1"):
        bin_probabilities(np.array([value, 0.5]), np.zeros(2), np.ones(2))


BINS = pd.DataFrame(
    [
        ("x", "t1", "WT", 0, 60, 6.0, 10),
        ("x", "t1", "WT", 1, 0, 0.0, 0),
        ("x", "t1", "WT", 2, 20, 18.0, 10),
        ("x", "t1+t2", "WT", 0, 10, 0.0, 10),
        ("y", "t1", "WT", 0, 20, 2.0, 10),
        ("y", "t2", "WT", 0, 100, 25.0, 5),
    ],
    columns=BIN_COLUMNS,
)


def test_calibration_error_by_hand():
    """t1: bin 0 has 80 voxels, 0.1 predicted, 0.25 observed; bin 2 has 20, 0.9, 0.5: (80 * 0.15 + 20 * 0.4) / 100."""
    found = calibration_error(BINS)
    assert list(found.columns) == ["modalities", "region", "voxels", "ece"]
    assert found["modalities"].tolist() == ["t1", "t1+t2", "t2"]
    assert found["voxels"].tolist() == [100, 10, 100]
    assert found["ece"].tolist() == pytest.approx([0.2, 1.0, 0.2])


def test_probabilities_that_are_right_have_no_error():
    probability = torch.rand(200_000, generator=torch.Generator().manual_seed(0))
    truth = torch.rand(200_000, generator=torch.Generator().manual_seed(1)) < probability
    keys = {"case": "x", "modalities": "t1", "region": "WT"}
    right = calibration_error(bin_probabilities(probability, truth, torch.ones(200_000)).assign(**keys))
    sure = calibration_error(bin_probabilities(probability**0.5, truth, torch.ones(200_000)).assign(**keys))
    assert right["ece"].item() < 0.005
    assert sure["ece"].item() == pytest.approx(2 / 3 - 1 / 2, abs=0.005)  # the means of sqrt(p) and of p


LESION_LABELS = get_cohort("brats2023").labels
LESION_SHAPE = (72, 64, 56)
FAR, SMALL, NEAR, TINY = ((56, 46, 40), 5), ((12, 12, 12), 3), ((47, 30, 28), 2.5), ((62, 10, 46), 1.8)


def main(shift=(0, 0, 0), scale=1.0):
    return np.add((30, 30, 28), shift), np.multiply((14, 12, 10), scale)


def tumours(*balls) -> np.ndarray:
    """Return a label map of tumours with a core, an enhancing rim and oedema, each given by its centre and radius."""
    label, grid = np.zeros(LESION_SHAPE, np.uint8), np.moveaxis(np.indices(LESION_SHAPE), 0, -1)
    for centre, radius in balls:
        for value, share in ((2, 1.0), (3, 0.65), (1, 0.35)):
            semi_axes = np.broadcast_to(np.multiply(radius, share), 3)
            label[np.sqrt((((grid - centre) / semi_axes) ** 2).sum(-1)) <= 1] = value
    return label


def bridge() -> np.ndarray:
    label = np.zeros(LESION_SHAPE, np.uint8)
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
        values = Reference(reference, LESION_LABELS, spacing, Conventions(lesion_wise=task)).measure(prediction)
        scores += [(values[region, "lesion_dice"], values[region, "lesion_hd95"]) for region in ("WT", "ET")]
    assert np.array(scores) == pytest.approx(np.array(PUBLISHED[pair], float), abs=1e-4)


@pytest.mark.parametrize(
    ("task", "joined", "largest"), [("GLI", 6, 50), ("SSA", 6, 50), ("PED", 6, 50), ("MEN", 2, 50), ("MET", 2, 2)]
)
def test_parts_are_joined_by_a_dilation_and_small_ones_are_not_counted(task, joined, largest):
    """Parts touch if the gap between them is twice the dilation, and a lesion counts if it is larger than a volume."""

    def dice(reference: np.ndarray, prediction: np.ndarray) -> float:
        found = Reference(reference, LESION_LABELS, (1, 1, 1), Conventions(lesion_wise=task)).measure(prediction)
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
    reference, prediction = PAIRS["near"]
    assert ("WT", "lesion_dice") not in Reference(reference, LESION_LABELS, (1, 1, 1)).measure(prediction)
    with pytest.raises(ValueError, match=rf"lesion_wise is 'gli'; expected a task .*{', '.join(LESION_WISE)}"):
        Conventions(lesion_wise="gli")
