"""Label maps, regions and classes are converted to each other, and probabilities decided."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Flipd
from refusals import refused

from common.cohorts import get_cohort
from common.modalities import IGNORED, LabelSet, tumour_labels
from common.transforms import DecideLabelsd, LabelsToClassesd, LabelsToRegionsd
from common.transforms.decision import most_expected_dice, region_probabilities

AFFINE = torch.diag(torch.tensor([-1.0, -1, 2, 1], dtype=torch.float64))


def volume(*values: float) -> MetaTensor:
    return MetaTensor(torch.tensor(values).reshape(1, -1, 1, 1), affine=AFFINE)


@pytest.mark.parametrize(
    ("cohort", "ed", "ncr", "et"), [("brats2020", 2, 1, 4), ("brats2023", 2, 1, 3), ("msd_task01", 1, 2, 3)]
)
def test_regions_there_and_back(cohort, ed, ncr, et):
    label = torch.tensor([0, ed, ncr, et], dtype=torch.uint8).reshape(1, 4, 1, 1)
    item = {"label": MetaTensor(label, affine=AFFINE), "case": "x"}
    regions = LabelsToRegionsd("label", cohort)(item)
    assert (regions["label"].shape, regions["label"].dtype) == ((3, 4, 1, 1), torch.uint8)
    assert regions["label"][:, :, 0, 0].tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0, 0, 0, 1]]
    back = DecideLabelsd("label", cohort)(regions)
    assert torch.equal(back["label"].as_tensor(), label)
    assert back["label"].dtype == torch.uint8
    for volume in (regions["label"], back["label"]):
        assert torch.equal(volume.affine, AFFINE)
    assert torch.equal(item["label"].as_tensor(), label)


@pytest.mark.parametrize(
    ("cohort", "values"),
    [
        ("brats2020", (0, 1, 2, 4)),  # background, NCR, ED, ET, as the published code's
        ("brats2023", (0, 1, 2, 3)),
        ("msd_task01", (0, 2, 1, 3)),
        ("brats2015", (0, 1, 2, 3, 4)),  # NET before ET
        ("iseg2017", (0, 10, 150, 250)),
    ],
)
def test_published_order_and_back(cohort, values):
    item = {"label": volume(*values)}
    classes = LabelsToClassesd("label", cohort)(item)["label"]
    assert (classes.dtype, classes.flatten().tolist()) == (torch.long, list(range(len(values))))
    assert torch.equal(classes.affine, AFFINE)
    one_hot = torch.nn.functional.one_hot(classes.as_tensor()[0, :, 0, 0]).T[..., None, None].float()
    back = DecideLabelsd("label", cohort, softmax=True)({"label": MetaTensor(one_hot, affine=AFFINE)})["label"]
    assert (back.dtype, back.flatten().tolist()) == (torch.uint8, list(values))
    assert back.shape == (1, len(values), 1, 1)
    assert torch.equal(back.affine, AFFINE)
    assert item["label"].flatten().tolist() == list(values)


def test_classes_that_are_grouped():
    classes = LabelsToClassesd("label", "myops2020")({"label": volume(0, 200, 500, 600, 1220, 2221)})["label"]
    assert classes.flatten().tolist() == [0, 3, 1, 2, 3, 3]
    labels = get_cohort("myops2020").labels
    assert labels.from_classes(classes).flatten().tolist() == [0, 200, 500, 600, 200, 200]
    assert labels.to_classes(torch.tensor([173], dtype=torch.uint8)).tolist() == [0]  # and not 2221 in a byte


def test_regions_are_sums_of_classes():
    p = torch.tensor([0.1, 0.2, 0.3, 0.4]).reshape(4, 1, 1, 1)
    found = region_probabilities(p, get_cohort("brats2020").labels, softmax=True)
    assert found.flatten().tolist() == pytest.approx([0.9, 0.6, 0.4])  # WT, TC = NCR + ET, ET
    found = region_probabilities(p, get_cohort("myops2020").labels, softmax=True)
    assert found.flatten().tolist() == pytest.approx([0.2, 0.3, 0.4])
    five = torch.tensor([0.1, 0.2, 0.3, 0.15, 0.25]).reshape(5, 1, 1, 1)
    found = region_probabilities(five, get_cohort("brats2015").labels, softmax=True)
    assert found.flatten().tolist() == pytest.approx([0.9, 0.6, 0.25])
    # A tumour is likely, but no class of it is likelier than the background
    p = torch.tensor([0.4, 0.2, 0.2, 0.2]).reshape(4, 1, 1, 1)
    assert DecideLabelsd("pred", "brats2020", softmax=True)({"pred": p})["pred"].item() == 0


@pytest.mark.parametrize(("convert", "expected"), [(LabelsToClassesd, [0, 2, 3]), (LabelsToRegionsd, [0, 1, 1])])
def test_trace_of_earlier_transforms_is_kept_for_inversion(convert, expected):
    flip = Flipd("label", spatial_axis=0)
    converted = convert("label", "brats2020")(flip({"label": volume(0, 2, 4)}))
    assert flip.inverse(converted)["label"][0].flatten().tolist() == expected


def test_targets_by_default():
    labels = LabelSet({"CSF": 10, "GM": 150}, {"GM": ("GM",)})
    assert dict(labels.targets) == {"CSF": ("CSF",), "GM": ("GM",)}
    assert list(tumour_labels(ED=1, NCR=2, ET=3).targets) == ["NCR", "ED", "ET"]


def label_set(**targets: tuple[str, ...]) -> LabelSet:
    return LabelSet({"a": 1, "b": 2}, {"A": ("a",)}, targets)


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: label_set(all=("a", "b")), ["Region A", "is not a union of"]),
        (lambda: label_set(A=("a",)), ["expected each of a, b in one target"]),
        (lambda: label_set(A=("a", "b"), B=("b",)), ["expected each of a, b in one target"]),
        (lambda: LabelsToRegionsd("label", "brats1999"), ["Unknown cohort 'brats1999'; expected one of phantom, "]),
        (
            lambda: region_probabilities(torch.ones(4, 1, 1, 1), get_cohort("brats2015").labels, softmax=True),
            ["softmax head has 4 classes; expected 5, the background and NCR, ED, NET, ET"],
        ),
    ],
)
def test_what_is_refused(call, facts):
    with refused(ValueError, *facts):
        call()


def test_an_ignored_cavity_stays_so_in_regions_and_classes():
    labels = get_cohort("brats2024_gli_cavity_ignored").labels
    read = labels.read(torch.tensor([[0.0, 1, 2, 3, 4]]), "file")
    assert (read.dtype, read.tolist()) == (torch.uint8, [[0, 1, 2, 3, IGNORED]])
    item = {"label": MetaTensor(read.reshape(1, 5, 1, 1), affine=AFFINE)}
    regions = LabelsToRegionsd("label", "brats2024_gli_cavity_ignored")(item)["label"][:, :, 0, 0].tolist()
    assert regions == [[0, 1, 1, 1, IGNORED], [0, 1, 0, 1, IGNORED], [0, 0, 0, 1, IGNORED]]
    classes = LabelsToClassesd("label", "brats2024_gli_cavity_ignored")(item)["label"]
    assert (classes.dtype, classes.flatten().tolist()) == (torch.long, [0, 1, 2, 3, IGNORED])
    assert list(labels.targets) == ["NCR", "ED", "ET"]
    with refused(ValueError, "label values [5] are not defined", "4 (RC)"):
        labels.read(torch.tensor([[5.0]]), "file")


def expected(probability: torch.Tensor, mask: torch.Tensor) -> float:
    """Return the expected Dice of a mask."""
    return float(2 * probability[mask].double().sum() / (mask.sum() + probability.double().sum()))


def test_masks_by_hand():
    # Expected Dice of the k largest: 2 * 0.4 / (1 + 1.1), 2 * 0.7 / (2 + 1.1), 2 * 1.0 / (3 + 1.1), 2 * 1.1 / (4 + 1.1)
    assert most_expected_dice(torch.tensor([0.3, 0.1, 0.4, 0.3])).tolist() == [True, False, True, True]
    certain = torch.tensor([0.0, 1.0, 1.0, 0.0])
    assert most_expected_dice(certain).tolist() == certain.bool().tolist()
    faint = torch.full((1000,), 0.04)
    assert not most_expected_dice(faint).any()  # marking all would have an expected Dice of 0.077
    assert most_expected_dice(2 * faint).all()
    lesion = torch.cat([faint, torch.full((100,), 0.9)])
    assert most_expected_dice(lesion).tolist() == [False] * 1000 + [True] * 100


@pytest.mark.parametrize("seed", range(8))
def test_no_mask_of_the_largest_probabilities_is_better(seed):
    generator = torch.Generator().manual_seed(seed)
    probability = torch.rand(6, 7, 8, generator=generator) ** (1 + 0.7 * seed) * (1 if seed % 2 else 0.3)
    ranked = probability.flatten().double().sort(descending=True).values
    best = (2 * ranked.cumsum(0) / (torch.arange(1, len(ranked) + 1) + ranked.sum())).max()
    assert expected(probability, most_expected_dice(probability)) == pytest.approx(float(best), abs=1e-9)


def decided(probabilities: list[list[float]], subset: str = "t1c", **options: object) -> list[int]:
    """Return the label map of voxels in a row, given the probabilities of each channel."""
    volume = MetaTensor(torch.tensor(probabilities)[:, :, None, None], meta={"filename_or_obj": "case.nii"})
    label = DecideLabelsd("pred", "brats2021", **options)({"pred": volume, "subset": subset})["pred"]
    assert label.meta["filename_or_obj"] == "case.nii"
    return label[0, :, 0, 0].tolist()


@pytest.mark.parametrize(("decision", "labels"), [("threshold", [2, 0, 4, 0]), ("expected_dice", [2, 2, 4, 0])])
def test_regions_are_decided_and_painted(decision, labels):
    wt, tc, et = [0.9, 0.45, 0.9, 0.0], [0.0, 0.0, 0.9, 0.0], [0.0, 0.0, 0.8, 0.0]
    assert decided([wt, tc, et], decision=decision) == labels


def test_a_probability_of_one_half_is_marked_by_the_threshold():
    half, less = [0.5, 0.5], [0.4999, 0.5]
    assert (decided([half, less, [0.0, 0.0]]), decided([half, half, less])) == ([2, 1], [1, 4])


@pytest.mark.parametrize(("p", "labels"), [(0.0526, [0, 0]), (0.0527, [2, 2])])
def test_a_region_is_absent_below_an_expected_dice_of_a_tenth(p, labels):
    """Two voxels of p have an expected Dice of 2 p / (1 + p): 0.09994 and 0.10012."""
    assert decided([[p, p], [0.0, 0.0], [0.0, 0.0]], decision="expected_dice") == labels


def test_regions_stay_nested():
    """Enhancing tumour is decided where the core is not; it then belongs to the core and the whole tumour."""
    assert decided([[0.1, 0.9], [0.1, 0.9], [0.45, 0.5]], decision="expected_dice") == [4, 4]


@pytest.mark.parametrize(("decision", "labels"), [("threshold", [0, 4]), ("expected_dice", [2, 4])])
def test_classes_of_a_softmax_are_summed_to_regions(decision, labels):
    background, ncr, ed, et = [0.55, 0.1], [0.15, 0.2], [0.3, 0.2], [0.0, 0.5]
    assert decided([background, ncr, ed, et], decision=decision, softmax=True) == labels


def test_unknown_decision_is_refused_with_the_names():
    with pytest.raises(ValueError, match=r"decision.*best.*threshold.*expected_dice"):
        DecideLabelsd("pred", "brats2021", decision="best")


@pytest.mark.parametrize(("subset", "labels"), [("t1c+t2", [2, 2, 4]), ("t1+t2", [2, 4, 4]), ("t1", [2, 4, 4])])
def test_by_sequences_takes_what_t1c_shows_by_the_threshold(subset, labels):
    wt, tc, et = [0.45, 0.9, 0.9], [0.0, 0.45, 0.9], [0.0, 0.45, 0.8]
    assert decided([wt, tc, et], subset, decision="by_sequences") == labels


@pytest.mark.parametrize(("p", "labels"), [(0.2499, [0, 0, 0]), (0.2501, [2, 2, 2])])
def test_by_sequences_marks_nothing_where_the_whole_tumour_is_not_found(p, labels):
    """Three voxels of p have an expected Dice of 2 p / (1 + p): 0.3999 and 0.4001, below and above the limit."""
    regions = [[p] * 3, [0.0] * 3, [0.0] * 3]
    assert decided(regions, "t1c", decision="by_sequences") == labels
    assert decided(regions, decision="expected_dice") == [2, 2, 2]


@pytest.mark.parametrize(("others", "enhancing"), [(9, True), (10, False)])
def test_by_sequences_marks_no_enhancing_tumour_that_t1c_hardly_shows(others, enhancing):
    """A voxel of 0.6 beside n of 0.15 has an expected Dice of 1.2 / (1.6 + 0.15 n): 0.407 and 0.387."""
    sure, et = [0.9] * (1 + others), [0.6, *[0.15] * others]
    assert decided([sure, sure, et], "t1c", decision="by_sequences") == [4 if enhancing else 1, *[1] * others]
    assert decided([sure, sure, et], "t2", decision="by_sequences")[0] == 4  # without T1c any above 0.1 is marked
    assert decided([sure, et, [0] * len(et)], "t1c", decision="by_sequences")[0] == 1  # the core has no such limit


def test_only_the_whole_tumour_has_to_be_found():
    """The core, of an expected Dice of 0.33, is marked where T1c does not show it."""
    assert decided([[0.9] * 3, [0.2] * 3, [0.0] * 3], "t1+t2", decision="by_sequences") == [1, 1, 1]
    wt, tc = [0.6, *[0.1] * 40], [0.6, *[0.0] * 40]
    assert decided([wt, tc, tc], "t1c", decision="by_sequences") == [0] * 41
    assert decided([wt, tc, tc], "t1c", decision="expected_dice")[0] == 4
