"""Which sequences training subjects lack: drawn, published or listed; the files of these are never opened."""

import logging
from collections import Counter
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from monai.transforms import Compose
from refusals import refused

from common.cohorts import counts_of, mask_cases
from common.cohorts.missing import draw_masks, published_masks, read_masks
from common.cohorts.splits import official_splits
from common.modalities import presence, subset_name, subsets
from common.transforms import CachedDataset, LoadSubjectd

MODALITIES = ("t1", "t1c", "t2", "flair")
CASES = [f"case_{number:03d}" for number in range(219)]
RATES = (0.2, 0.4, 0.8, 0.6)


def item(case: str, *modalities: str, **more) -> dict:
    return {"case": case, "image": [f"{case}_{m}.nii.gz" for m in modalities], "modalities": [*modalities], **more}


def items(*cases: str) -> list[dict]:
    return [item(case, *MODALITIES) for case in cases]


def rates_of(masks: dict) -> list[float]:
    return [np.mean([m not in present for present in masks.values()]) for m in MODALITIES]


class TestDraw:
    def test_every_subset_occurs_as_often_as_its_probability_says_and_rates_are_met(self):
        found = Counter(draw_masks(CASES, RATES, MODALITIES).values())
        assert set(found) == set(subsets(MODALITIES))
        # 219 x 0.8 x 0.6 x 0.2 x 0.4 = 8.4; 219 x 0.8 x 0.4 x 0.8 x 0.6 = 33.6; 219 x 0.2 x 0.4 x 0.2 x 0.6 = 2.1
        assert 8 <= found[MODALITIES] <= 9
        assert 33 <= found["t1",] <= 38
        assert 2 <= found["t2",] <= 4
        empty = np.prod(RATES)
        for found, wanted in zip(rates_of(draw_masks(CASES, RATES, MODALITIES)), RATES, strict=True):
            assert wanted - empty - 0.02 <= found <= wanted + 0.02

    def test_as_the_published_ones(self):
        """The counts of each subset differ from the authors' only by the 8 of 219 subjects drawn at the end."""
        published = published_masks("brats2020")["mr2468"]
        drawn = Counter(draw_masks(list(published), RATES, MODALITIES).values())
        assert sum((drawn - Counter(published.values())).values()) <= 16

    def test_depends_on_names_and_seed_alone(self):
        first = draw_masks(CASES, RATES, MODALITIES)
        assert draw_masks(CASES[::-1], RATES, MODALITIES) == first
        assert draw_masks(CASES, RATES, MODALITIES, seed=1) != first

    def test_three_modalities_a_rate_of_0_and_fewer_cases_than_subsets(self):
        found = draw_masks(CASES[:20], (0.3, 0.5, 0.7), ("bssfp", "lge", "t2"))
        assert set(found.values()) == set(subsets(("bssfp", "lge", "t2")))
        assert all("t1c" in present for present in draw_masks(CASES, (0.5, 0, 0.5, 0.9), MODALITIES).values())
        assert set(draw_masks(CASES, (1, 1, 0, 1), MODALITIES).values()) == {("t2",)}
        found = draw_masks(CASES[:6], RATES, MODALITIES)
        assert found.keys() == set(CASES[:6])
        assert all(found.values())


def test_the_cases_of_a_patient_lack_the_same():
    visits = [item(f"{case}_{visit}", *MODALITIES, patient=case) for case in CASES[:40] for visit in (1, 2)]
    found, other = ([each["modalities"] for each in mask_cases(visits, MODALITIES, RATES, seed=s)] for s in (1037, 1))
    assert found != other
    assert found[::2] == found[1::2]
    assert len({*map(tuple, found)}) == 15


NAN = float("nan")
BAD = (0.2, 0.4, 0.6), (0.2, 0.4, 0.6, 1.1), (1, 1, 1, 1), (-0.1, 0, 0, 0), (0, 0, 0, "0.5"), 0.5, (0, 0, 0, NAN)


@pytest.mark.parametrize("rates", BAD)
def test_bad_rates(rates):
    with refused(ValueError, "missing_rates ", "expected 4 numbers from 0 to 1, not all of them 1, for t1, t1c, t2"):
        mask_cases(items(*CASES), MODALITIES, rates)


class TestPublished:
    REALISED: ClassVar = {  # T1, T1c, T2, FLAIR
        ("brats2020", "mr2468"): (0.160, 0.384, 0.804, 0.589), ("brats2020", "mr1379"): (0.087, 0.288, 0.895, 0.689),
        ("brats2020", "mr2258"): (0.183, 0.178, 0.799, 0.493), ("brats2020", "mr2285"): (0.183, 0.178, 0.484, 0.804),
        ("brats2020", "mr5528"): (0.484, 0.493, 0.808, 0.155), ("brats2020", "mr5582"): (0.484, 0.493, 0.151, 0.808),
        ("brats2020", "mr8825"): (0.790, 0.799, 0.461, 0.137), ("brats2020", "mr8852"): (0.790, 0.799, 0.132, 0.470),
        ("brats2018", "mr2468"): (0.146, 0.392, 0.794, 0.588), ("brats2018", "mr1379"): (0.085, 0.291, 0.899, 0.693),
    }  # fmt: skip

    def test_settings_and_their_rates(self):
        found = {(c, s): rates_of(masks) for c in ("brats2018", "brats2020") for s, masks in published_masks(c).items()}
        assert found.keys() == self.REALISED.keys()
        for setting, rates in self.REALISED.items():
            np.testing.assert_allclose(found[setting], rates, atol=5e-4)

    @pytest.mark.parametrize(("cohort", "split"), [("brats2018", "fold1"), ("brats2020", "fixed")])
    def test_are_of_the_published_split(self, cohort, split, caplog):
        training = official_splits(cohort)[split]["training"]
        caplog.set_level(logging.INFO)
        found = mask_cases(items(*(c.replace("Brats", "BraTS") for c in training)), MODALITIES, None, "mr2468", cohort)
        assert len(found) == len(training)
        assert f"missing rates of the {len(training)} training cases: t1 0.1" in caplog.text
        counts = {"brats2018": [170, 121, 41, 82], "brats2020": [184, 135, 43, 90]}
        assert counts_of(found, MODALITIES) == counts[cohort]
        assert published_masks("brats2020")["mr2285"]["BraTS20_Training_002"] == ("t1", "t1c", "t2")  # index 13, 0111

    def test_of_another_split_or_unknown(self):
        training = items(*official_splits("brats2018")["fold3"]["training"])
        with refused(ValueError, "masks mr2468 of brats2018: 60 cases are not among the training cases", "`split`"):
            mask_cases(training, MODALITIES, None, "mr2468", "brats2018")
        for cohort, known in (("brats2018", "brats2018's settings (mr2468, mr1379)"), ("phantom", "has none")):
            with refused(FileNotFoundError, "masks 'mr2285': expected ", known, " or a CSV file"):
                mask_cases(items("a"), MODALITIES, None, "mr2285", cohort)


class TestFile:
    @pytest.fixture
    def write(self, tmp_path):
        def write(*rows: str, header: str = "case,modalities") -> str:
            path = tmp_path / "masks.csv"
            path.write_text("\n".join([header, *rows]) + "\n")
            return str(path)

        return write

    def test_names_may_be_aliases_in_any_order(self, write):
        found = mask_cases(items("a", "b"), MODALITIES, masks=write("b,FLAIR+T1ce", "a,t2"))
        assert [each["image"] for each in found] == [["a_t2.nii.gz"], ["b_t1c.nii.gz", "b_flair.nii.gz"]]
        assert [each["modalities"] for each in found] == [["t2"], ["t1c", "flair"]]

    @pytest.mark.parametrize(
        ("rows", "fact"),
        [
            (["case,modalities", "a,t1", "b,t1", "c,t1"], "1 cases are not among the training cases: c."),
            (["case,modalities", "a,t1"], "1 cases are training cases that it does not list: b."),
            (["case,modalities", "a,t1", "b,"], "case b: Unknown modality ''; expected one of"),
            (["case,modalities", "a,t1", "b,lge"], "case b: Modality 'lge' is not in this cohort"),
            (["subject,mask", "a,3"], "columns subject, mask; expected case and modalities"),
            (["case,modalities", "a,t1", "b,t1", "A,t2"], "two rows for A; expected one for each case"),
            (["case,modalities", "a,t1", "b,t1,t2,flair"], "cannot be read (Error tokenizing data"),
        ],
    )
    def test_refused(self, write, rows, fact):
        with refused(ValueError, "masks.csv: ", fact):
            mask_cases(items("a", "b"), MODALITIES, masks=write(*rows[1:], header=rows[0]))
        with refused(ValueError, "missing_rates", "and masks", "masks.csv: set one of these keys to null"):
            mask_cases(items("a"), MODALITIES, RATES, write("a,t1"))

    def test_files_that_are_missing_in_truth_stay_missing(self, write):
        path = write("a,t1+t2", "b,t1+t2")
        (one, other) = mask_cases([item("a", "t1", "flair"), item("b", "t2", "flair")], MODALITIES, masks=path)
        assert (one["modalities"], other["modalities"]) == (["t1"], ["t2"])
        with pytest.raises(ValueError, match=r"b: its mask leaves t1\+t2, but the case has only flair; at least one"):
            mask_cases([item("a", "t1"), item("b", "flair")], MODALITIES, masks=path)

    def test_channels_of_one_file(self, write):
        stacked = {**item("a", *MODALITIES), "image": ["a.nii.gz"] * 4, "channels": [1, 2, 3, 0], "label": "s.nii.gz"}
        (found,) = mask_cases([stacked], MODALITIES, masks=write("a,t1c+flair"))
        kept = {"image": ["a.nii.gz"] * 2, "modalities": ["t1c", "flair"], "channels": [2, 0]}
        assert (found, len(stacked["image"])) == ({"case": "a", **kept, "label": "s.nii.gz"}, 4)


def test_counts_of_what_is_there(caplog):
    for rates in (None, [0, 0, 0, 0.0]):
        assert mask_cases(items("a", "b"), MODALITIES, rates) == items("a", "b")
    some = [item("a", "t1", "t2"), item("b", "t2")]
    assert counts_of(some, ("t1", "t2")) == [1, 2]
    assert not caplog.messages
    assert counts_of(some, ("t1", "t2", "flair")) == [1, 2, 0]
    assert caplog.messages == ["None of 2 training cases has flair; the network will not learn to use it."]


def test_masked_files_are_never_opened(write_subject, opened, tmp_path):
    """They need not even exist, in any epoch, with or without the cache."""
    subjects = [write_subject(f"case{number}", seed=number) for number in range(6)]
    training = mask_cases(subjects, MODALITIES, (0.5, 0.5, 0.5, 0.5))
    kept = {path for item in training for path in item["image"]}
    masked = {path for item in subjects for path in item["image"]} - kept
    assert 0 < len(masked) < 24
    for path in masked:
        Path(path).unlink()
    for cache in (None, str(tmp_path / "cache")):
        dataset = CachedDataset(training, Compose([LoadSubjectd("brats2020")]), cache)
        for _ in range(2):
            for number, sample in enumerate(dataset):
                there = presence(torch.as_tensor(sample["image"])[None])[0]
                found = [m for m, yes in zip(MODALITIES, there, strict=True) if yes]
                assert subset_name(found) == subset_name(training[number]["modalities"])
    assert len(opened) == 3 * (len(kept) + 6)  # two epochs, one filling of the cache
    assert not {Path(path).name for path in masked} & set(opened)


def test_the_file_of_passions_authors_is_read_as_it_is(tmp_path):
    rows = ["HG_BraTS20_Training_002,10,x,y", "HG_BraTS20_Training_003,2,x,y"]
    path = tmp_path / "theirs.csv"
    path.write_text("\n".join(["data_name,mask_id,mask,pos_mask_ids", *rows]))
    cases = ["BraTS20_Training_002", "BraTS20_Training_003"]
    settings = published_masks("brats2020")["mr2468"]
    assert read_masks(path, cases, MODALITIES) == {case: settings[case] for case in cases}
    path.write_text("data_name,mask_id\nHG_BraTS20_Training_002,15")
    with refused(ValueError, "theirs.csv: mask_id 15; expected 0 to 14"):
        read_masks(path, cases[:1], MODALITIES)
