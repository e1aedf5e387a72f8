"""Label maps, regions and the classes of a softmax head are converted to each other, and keep their place in space."""

import pytest
import torch
from monai.data import MetaTensor
from monai.transforms import Flipd
from refusals import refused

from common.cohorts import get_cohort
from common.modalities import IGNORED, LabelSet, tumour_labels
from common.transforms import DecideLabelsd, LabelsToClassesd, LabelsToRegionsd
from common.transforms.decision import region_probabilities

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
    assert classes.dtype == torch.long
    assert classes.flatten().tolist() == list(range(len(values)))
    assert torch.equal(classes.affine, AFFINE)
    one_hot = torch.nn.functional.one_hot(classes.as_tensor()[0, :, 0, 0]).T[..., None, None].float()
    back = DecideLabelsd("label", cohort, softmax=True)({"label": MetaTensor(one_hot, affine=AFFINE)})["label"]
    assert back.dtype == torch.uint8
    assert back.flatten().tolist() == list(values)
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


def test_argmax_is_over_all_classes_and_not_over_regions():
    """A tumour is likely, but no class of it is likelier than the background."""
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
