"""Metrics equal those of MONAI on random masks, and numbers worked out by hand where it leaves a choice."""

import numpy as np
import pytest
import torch
from evaluation.examples import ALWAYS, PROBABILISTIC
from monai import metrics as monai
from monai.metrics.utils import get_mask_edges, get_surface_distance
from scipy.ndimage import gaussian_filter

from common.cohorts import get_cohort
from common.evaluation.metrics.conventions import PENALTY, Conventions
from common.evaluation.metrics.overlap import Reference
from common.modalities import IGNORED, LabelSet, tumour_labels

LESION = LabelSet(values={"lesion": 1}, regions={"lesion": ("lesion",)})
GLIOMA = tumour_labels(NCR=1, ED=2, ET=4)
MEASURED = [name for name in ALWAYS if name not in PROBABILISTIC]
DISTANCES = ("hd95", "hd", "assd")


def measure(prediction, reference, spacing=(1, 1, 1), labels=LESION, **conventions) -> dict[str, float]:
    """Measure masks of one region; return its metrics by name."""
    found = Reference(reference, labels, spacing, Conventions(**conventions)).measure(prediction)
    return {metric: value for (_, metric), value in found.items()}


def noise(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    return (rng.random(shape) < rng.choice([0.01, 0.1, 0.5, 0.9])).astype(np.uint8)


def blob(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Return smooth shapes, most of which touch the edge of the image."""
    field = gaussian_filter(rng.standard_normal(shape), 2)
    return (field > np.quantile(field, rng.choice([0.5, 0.8, 0.95]))).astype(np.uint8)


def voxel(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    mask[tuple(rng.integers(shape))] = 1
    return mask


def wrong(rng: np.random.Generator, mask: np.ndarray) -> np.ndarray:
    """Return a prediction that resembles the reference, with a few voxels moved and some flipped."""
    moved = np.roll(mask, rng.integers(-1, 2, mask.ndim), range(mask.ndim))
    return np.where(rng.random(mask.shape) < 0.01, 1 - moved, moved).astype(np.uint8)


def pairs(kind: str, dimensions: int, count: int):
    """Yield random (prediction, reference, spacing)."""
    draw = {"noise": noise, "blob": blob, "voxel": voxel}
    draw |= {"empty": lambda _, shape: np.zeros(shape, np.uint8), "full": lambda _, shape: np.ones(shape, np.uint8)}
    rng = np.random.default_rng([dimensions, *kind.encode()])
    for _ in range(count):
        shape = tuple(rng.integers(4, 22, dimensions))
        spacing = tuple(rng.choice([0.5, 1.0, 1.2, 3.0], dimensions))
        first, _, second = kind.partition("/")
        reference = draw[second](rng, shape)
        yield wrong(rng, reference) if first == "wrong" else draw[first](rng, shape), reference, spacing


def by_monai(prediction: np.ndarray, reference: np.ndarray, spacing, tolerance: float) -> dict[str, float]:
    """Return MONAI's values in float32; they are infinite or NaN where undefined."""
    y_pred, y = (torch.from_numpy(mask.astype(np.float32))[None, None] for mask in (prediction, reference))
    both, where = {"y_pred": y_pred, "y": y, "include_background": True}, {"spacing": spacing}
    confusion = monai.get_confusion_matrix(**both)
    values = {
        "dice": monai.compute_dice(**both),
        "hd95": monai.compute_hausdorff_distance(**both, percentile=95, **where),
        "hd": monai.compute_hausdorff_distance(**both, **where),
        "assd": monai.compute_average_surface_distance(**both, symmetric=True, **where),
        "surface_dice": monai.compute_surface_dice(**both, class_thresholds=[tolerance], **where),
        "sensitivity": monai.compute_confusion_matrix_metric("sensitivity", confusion),
        "precision": monai.compute_confusion_matrix_metric("precision", confusion),
    }
    return {name: value.item() for name, value in values.items()}


KINDS = {"wrong/blob": 30, "blob/blob": 30, "wrong/noise": 15, "noise/noise": 15, "voxel/voxel": 10, "voxel/blob": 10}
UNDEFINED = {"empty/blob": 5, "empty/voxel": 5, "noise/empty": 5, "empty/empty": 5, "full/blob": 5, "full/full": 3}


@pytest.mark.filterwarnings("ignore:the (ground truth|prediction) of class")  # warnings of MONAI about empty masks
@pytest.mark.parametrize("dimensions", [3, 2])
@pytest.mark.parametrize(("kind", "count"), (KINDS | UNDEFINED).items())
def test_equal_to_monai(kind, count, dimensions):
    """On 276 pairs of masks; where MONAI returns infinity, the convention ``nan`` returns NaN."""
    for prediction, reference, spacing in pairs(kind, dimensions, count):
        found = measure(prediction, reference, spacing, empty="nan", surface_tolerance=1.2)
        for metric, value in by_monai(prediction, reference, spacing, 1.2).items():
            undefined = not np.isfinite(value) or not reference.any()
            assert found[metric] == pytest.approx(np.nan if undefined else value, rel=1e-5, abs=1e-6, nan_ok=True)


@pytest.mark.parametrize("dimensions", [3, 2])
@pytest.mark.parametrize(("kind", "count"), (KINDS | {"full/blob": 5, "full/full": 3}).items())
def test_pooled_distances(kind, count, dimensions):
    """On 236 pairs, except the few that noise makes empty: the percentile of MONAI's distances in both directions."""
    for prediction, reference, spacing in pairs(kind, dimensions, count):
        if prediction.any() and reference.any():
            edges = get_mask_edges(prediction, reference, crop=False)
            distances = [get_surface_distance(*pair, spacing=spacing) for pair in (edges, edges[::-1])]
            expected = np.percentile(np.concatenate(distances), 95)
            assert measure(prediction, reference, spacing, hd95="pooled")["hd95"] == pytest.approx(expected, rel=1e-5)


def test_regions_are_unions_of_classes():
    """For a map of three classes each region equals MONAI's result; one reference serves many predictions."""
    rng = np.random.default_rng(0)
    shape, spacing = (18, 20, 15), (1.0, 0.5, 2.0)

    def draw() -> np.ndarray:
        return np.array([0, 2, 1, 4], np.uint8)[np.digitize(gaussian_filter(rng.random(shape), 2), [0.5, 0.51, 0.52])]

    label, predictions = draw(), [draw() for _ in range(5)]
    reference = Reference(label, GLIOMA, spacing, Conventions(surface_tolerance=2))
    for prediction in predictions:
        found = reference.measure(prediction)
        assert list(found) == [(region, metric) for region in ("WT", "TC", "ET") for metric in MEASURED]
        for region, values in {"WT": [1, 2, 4], "TC": [1, 4], "ET": [4]}.items():
            masks = np.isin(prediction, values), np.isin(label, values)
            for metric, value in by_monai(*masks, spacing, 2).items():
                assert found[region, metric] == pytest.approx(value, rel=1e-5)
            assert found[region, "volume"] == pytest.approx(masks[0].sum() / 1000)
            assert found[region, "reference_volume"] == pytest.approx(masks[1].sum() / 1000)


def line(*voxels: int, length: int = 20, value: int = 1) -> np.ndarray:
    label = np.zeros((length, 1, 1), np.uint8)
    label[list(voxels)] = value
    return label


@pytest.mark.parametrize(("definition", "hd95"), [("max", 18.05), ("pooled", 18)])
def test_a_line_against_its_end(definition, hd95):
    """Distances are 0, 1, ..., 19 one way and 0 the other way: the 95th percentile of 20 values, and of 21."""
    found = measure(line(*range(20)), line(0), hd95=definition)
    expected = {"dice": 2 / 21, "hd95": hd95, "hd": 19, "assd": 190 / 21, "surface_dice": 3 / 21}
    expected |= {"sensitivity": 1, "precision": 1 / 20, "volume": 0.020, "reference_volume": 0.001}
    assert found == pytest.approx(expected)


def test_slice():
    """2D, with a pathology inside the myocardium as labelled by MyoPS; areas count as slices 1 mm thick."""
    labels = LabelSet({"myocardium": 200, "scar": 2221}, {"all": ("myocardium", "scar"), "scar": ("scar",)})
    reference = np.zeros((6, 6), np.int16)
    reference[1:4, 1:4] = 200
    reference[2, 2] = 2221
    prediction = np.where(reference == 2221, 200, reference)
    prediction[2, 3] = 2221
    found = Reference(reference, labels, (2.0, 1.5)).measure(prediction)
    assert (found["all", "dice"], found["all", "hd"]) == (1, 0)
    assert (found["scar", "hd"], found["all", "volume"]) == (1.5, pytest.approx(9 * 3 / 1000))


@pytest.mark.parametrize("position", range(1, 19))
def test_tolerance_is_not_lost_to_rounding(position):
    """A neighbour at 1.2 mm lies within 1.2 mm anywhere, although 6.0 - 4.8 > 1.2 in floating point."""
    assert measure(line(position), line(position + 1), (1.2, 1, 1), surface_tolerance=1.2)["surface_dice"] == 1
    assert measure(line(position), line(position + 1), (1.201, 1, 1), surface_tolerance=1.2)["surface_dice"] == 0


PERFECT = {"dice": 1, "hd95": 0, "hd": 0, "assd": 0, "surface_dice": 1, "sensitivity": 1, "precision": 1}
MISSED = dict.fromkeys(PERFECT, 0) | dict.fromkeys(DISTANCES, PENALTY)
ONE_MM, NAN = dict.fromkeys(DISTANCES, 1.0), dict.fromkeys(PERFECT, np.nan)


@pytest.mark.parametrize(
    ("empty", "both", "missed", "invented"),
    [
        ("brats", PERFECT, MISSED, MISSED),
        ("released", PERFECT, MISSED | ONE_MM, MISSED | ONE_MM),
        ("nan", NAN, MISSED | dict.fromkeys((*DISTANCES, "precision"), np.nan), NAN),
        ("skip", {}, MISSED, {}),
    ],
)
def test_empty_regions(empty, both, missed, invented):
    """Empty in both, in the prediction only, or in the reference only; volumes are not affected."""
    nothing, something = line(), line(3, 4)
    pairs = (nothing, nothing, both), (nothing, something, missed), (something, nothing, invented)
    for prediction, reference, scores in pairs:
        found = measure(prediction, reference, empty=empty)
        volumes = {"volume": prediction.sum() / 1000, "reference_volume": reference.sum() / 1000}
        assert found == pytest.approx(scores | volumes, nan_ok=True)


@pytest.mark.parametrize("empty", ["nan", "skip"])
def test_voxels_cannot_be_pooled_without_all_cases(empty):
    with pytest.raises(ValueError, match=f"average 'voxel' with empty '{empty}'.* expected empty brats or released"):
        Conventions(empty=empty, average="voxel")
    for other in ("brats", "released"):
        Conventions(empty=other, average="voxel")


def test_small_enhancing_tumour_becomes_necrosis():
    """Only a predicted ET below the limit is changed; larger regions and the reference stay as they are."""
    label = line(5, 6, value=1)
    prediction = line(4, value=1) + line(5, 6, 7, value=4)
    kept = prediction.copy()
    limits = (Conventions(et_min_voxels=limit) for limit in (4, 3))
    few, enough = (Reference(label, GLIOMA, (1, 1, 1), limit).measure(prediction) for limit in limits)
    assert (few["ET", "volume"], few["ET", "dice"], few["ET", "hd95"]) == (0, 1, 0)
    assert (enough["ET", "volume"], enough["ET", "dice"], enough["ET", "hd95"]) == (0.003, 0, PENALTY)
    assert few["TC", "dice"] == enough["TC", "dice"] == pytest.approx(4 / 6)
    assert (prediction == kept).all()
    small = Reference(line(5, value=4), GLIOMA, (1, 1, 1), Conventions(et_min_voxels=500)).measure(label)
    assert small["ET", "reference_volume"] == 0.001


def test_bad_input():
    reference = Reference(line(3), LESION, (1, 1, 1))
    with pytest.raises(ValueError, match=r"\(9, 1, 1\); expected the reference's, \(20, 1, 1\)"):
        reference.measure(line(3, length=9))
    with pytest.raises(ValueError, match=r"The prediction: label values \[7\] .* 1 \(lesion\)"):
        reference.measure(line(3) + line(9, value=7))
    with pytest.raises(ValueError, match=r"label values \[-1\]"):
        reference.measure(line(3).astype(np.int8) - line(9).astype(np.int8))
    with pytest.raises(ValueError, match=r"The reference: label values \[3\]"):
        Reference(line(3, value=3), GLIOMA, (1, 1, 1))
    with pytest.raises(ValueError, match="et_min_voxels is 500, but the classes are lesion; it needs ET and NCR"):
        Reference(line(3), LESION, (1, 1, 1), Conventions(et_min_voxels=500))
    for spacing in ((1, 1), (1, 0, 1), (1, float("nan"), 1)):
        with pytest.raises(ValueError, match="expected the 3 sides of a voxel in mm"):
            Reference(line(3), LESION, spacing)


def test_ignored_voxels_belong_to_no_region():
    # one row: the reference's ET in 2 to 5, of which 4 and 5 are ignored; predicted in 3 to 7, and a cavity in 0
    label, prediction = np.zeros((2, 9, 1, 1), np.uint8)
    label[2:4], label[4:6], prediction[3:8], prediction[0] = 3, IGNORED, 3, IGNORED
    labels = get_cohort("brats2024_gli_cavity_ignored").labels
    found = Reference(label, labels, (1.0, 1.0, 1.0)).measure(prediction)
    assert found["ET", "dice"] == pytest.approx(2 * 1 / (2 + 3))  # of 2, 3 and 3, 6, 7
    assert found["ET", "volume"] == pytest.approx(0.003)
    assert found["ET", "reference_volume"] == pytest.approx(0.002)
    assert found["ET", "hd"] == 4  # from 7 to 3
