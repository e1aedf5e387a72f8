"""Names, presence, subsets, label values and regions."""

from dataclasses import replace

import pytest
import torch
from refusals import refused

from common.modalities import (
    ALIASES,
    LabelSet,
    canonical,
    display_name,
    display_subset,
    drop,
    foreground,
    presence,
    resolve_subset,
    subset_name,
    subsets,
    tumour_labels,
)

MODALITIES = ("t1", "t1c", "t2", "flair")
NAN = float("nan")
BRATS = tumour_labels(NCR=1, ED=2, ET=4)
EITHER = replace(tumour_labels(NCR=1, ED=2, ET=3), synonyms={4: 3})


def test_every_alias_leads_to_a_canonical_name():
    assert [canonical(name) for name in ("T1ce", "T1N", "t2w", "T2F", "FLAIR")] == ["t1c", "t1", "t2", "flair", "flair"]
    assert set(ALIASES.values()) == {*MODALITIES, "bssfp", "lge"}
    assert all(canonical(name) == name for name in ALIASES.values())


def test_resolve_subset_is_in_the_cohorts_order():
    assert resolve_subset(["FLAIR", "T1ce"], MODALITIES) == ("t1c", "flair")
    assert resolve_subset("flair+t1", MODALITIES) == ("t1", "flair")
    assert resolve_subset(None, MODALITIES) == MODALITIES


@pytest.mark.parametrize(
    ("call", "facts"),
    [
        (lambda: canonical("adc"), ["Unknown modality 'adc'", "bssfp, c0, ct1, de, fla, flair, lge, "]),
        (lambda: resolve_subset([], MODALITIES), ["No modality was requested", "t1, t1c, t2, flair"]),
        (lambda: resolve_subset(["t1", "pd"], MODALITIES), ["Unknown modality 'pd'; expected one of t1, "]),
        (lambda: resolve_subset(["t1c", "T1ce"], MODALITIES), ["requested twice: ['t1c', 't1c']"]),
        (lambda: resolve_subset(["flair"], ("t1", "t2")), ["'flair' is not in this cohort; it has t1, t2"]),
        (
            lambda: BRATS.check([0, 1, 7], "seg.nii"),
            ["seg.nii: label values [7]", "0, 1 (NCR), 2 (ED), 4 (ET). Choose the cohort", "(key `cohort`)"],
        ),
        (lambda: BRATS.check([0, 1.5, 3], "seg.nii"), ["seg.nii: label values 1.5 are no whole", "nearest"]),
        # 3 and 4 in one file are two different classes, as in BraTS 2015
        (lambda: EITHER.read(torch.tensor([0, 3, 4]), "seg.nii"), ["seg.nii: label values 3 and 4", "both stand for"]),
        (lambda: EITHER.check([4, 5], "seg.nii"), ["label values [5] are not defined", "It has 0, 1 (NCR)"]),
        (lambda: replace(EITHER, synonyms={1: 3}), ["expected values not in"]),
        (lambda: replace(EITHER, synonyms={4: 5}), ["expected values not in"]),
    ],
)
def test_what_is_refused(call, facts):
    with refused(ValueError, *facts):
        call()


def test_subsets_and_names_as_printed():
    found = subsets(MODALITIES)
    assert len(found) == len(set(found)) == 15
    assert found[:5] == [("t1",), ("t1c",), ("t2",), ("flair",), ("t1", "t1c")]
    assert (found[-1], subset_name(found[9])) == (MODALITIES, "t2+flair")
    assert [display_name(name) for name in MODALITIES] == ["T1", "T1c", "T2", "FLAIR"]
    assert [display_name(name) for name in ("bssfp", "lge")] == ["bSSFP", "LGE"]
    assert [display_subset(name) for name in ("t1c+flair", "t2")] == ["T1c + FLAIR", "T2"]


def test_presence_and_foreground():
    image = torch.zeros(2, 3, 4, 4, 4)
    image[0, 1] = NAN
    image[1, 2, 1:3, 1:3, 1:3] = NAN  # a missing channel that a stock tool padded with zeros
    image[0, 0] = float("inf")  # which is not absence
    assert presence(image).tolist() == [[True, False, True], [True, True, False]]
    image = torch.tensor([[[-2.0, -2, 0, 1]], [[0, 0, 0, 3]], [[0, 0, -1, 3]], [[4, 4, 4, 4]], [[NAN, 0, 1, 2]]])[None]
    assert foreground(image)[0, :, 0].int().tolist() == [[0, 0, 1, 1], [0, 0, 0, 1], [0, 0, 1, 1], [0] * 4, [0] * 4]


def test_drop_leaves_the_others_and_its_input_as_they_are():
    image = torch.rand(2, 2, 3, 3, 3)
    before = image.clone()
    keep = torch.tensor([[True, False], [False, True]])
    dropped = drop(image, keep)
    assert torch.equal(presence(dropped), keep)
    assert torch.isnan(dropped[0, 1]).all()
    assert torch.equal(dropped[keep], image[keep])
    assert torch.equal(image, before)


def test_predicted_regions_that_do_not_nest():
    only_et = torch.tensor([0, 0, 1]).reshape(3, 1, 1, 1)
    wt_and_et = torch.tensor([1, 0, 1]).reshape(3, 1, 1, 1)
    assert (BRATS.from_regions(only_et).item(), BRATS.from_regions(wt_and_et).item()) == (4, 4)
    assert BRATS.painted() == ["ED", "NCR", "ET"]


def test_regions_that_share_nothing():
    labels = LabelSet({"a": 200, "b": 600, "c": 2221}, {"A": ("a",), "BC": ("b", "c")})
    regions = labels.to_regions(torch.tensor([0, 200, 600, 2221], dtype=torch.int16).reshape(1, 4, 1))
    assert regions[..., 0].tolist() == [[0, 1, 0, 0], [0, 0, 1, 1]]
    assert labels.painted() == ["a", "b"]
    back = labels.from_regions(regions)
    assert (back.dtype, labels.dtype, BRATS.dtype) == (torch.int16, torch.int16, torch.uint8)
    assert back.flatten().tolist() == [0, 200, 600, 600]
    assert labels.from_regions(torch.ones(2, 1, 1)).item() == 600  # if both are predicted, the later one counts


def test_another_publishers_value_becomes_the_cohorts_own():
    labels = EITHER
    read = labels.read(torch.tensor([0.0, 1, 2, 4]).reshape(1, 4, 1), "seg.nii")
    assert (read.dtype, read.flatten().tolist()) == (torch.uint8, [0, 1, 2, 3])
    assert labels.read(torch.tensor([0, 1, 2, 3]), "seg.nii").tolist() == [0, 1, 2, 3]
    assert labels.from_classes(torch.tensor([[0, 1, 2, 3]])).tolist() == [[0, 1, 2, 3]]


@pytest.mark.parametrize("regions", [{"A": ("a", "b"), "B": ("b", "c")}, {"B": ("b",), "A": ("a", "b")}])
def test_regions_that_a_label_map_cannot_show_are_refused(regions):
    with pytest.raises(ValueError, match=r"overlap in [bc], which a label map of the regions cannot show"):
        LabelSet({"a": 1, "b": 2, "c": 3}, regions)


@pytest.mark.parametrize(
    "regions",
    [
        {"A": ("a", "b"), "B": ("b",)},
        {"A": ("a", "b"), "B": ("b", "c"), "both": ("b",)},
        {"A": ("a",), "BC": ("b", "c")},
    ],
)
def test_perfect_masks_stay_what_they_are(regions):
    labels = LabelSet({"a": 1, "b": 2, "c": 3}, regions)
    masks = labels.to_regions(torch.tensor([[0, 1, 2, 3]]))
    assert torch.equal(labels.to_regions(labels.from_regions(masks)), masks)
