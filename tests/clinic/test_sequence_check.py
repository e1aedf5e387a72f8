"""Recognition of what phantoms show. The network was trained on similar images; patients' images are not shipped."""

from itertools import combinations
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from phantom_case import LPS, with_bright_edge

from common.cohorts import get_cohort
from common.cohorts.check import check_folder
from common.cohorts.phantom.simulation import simulate
from common.io.files import file_digest
from common.modalities import GLIOMA
from mmb.clinic.recognise import image as sequence_check
from mmb.clinic.recognise.image import (
    CLASSES,
    ImageFeatures,
    contradictions,
    contrast_difference,
    judge,
    log_probabilities,
    on_coarse_grid,
    pair_features,
)


def logs(**probabilities: float) -> torch.Tensor:
    """Return logarithms of probabilities; the other classes share the rest."""
    rest = (1 - sum(probabilities.values())) / (len(CLASSES) - len(probabilities))
    return torch.tensor([probabilities.get(name, rest) for name in CLASSES]).log()


def subtraction(images: dict[str, MetaTensor]) -> MetaTensor:
    """Return T1c minus T1, both with the same gain."""
    before, after = (images[name] / images[name][images[name] > 0].float().median() for name in ("t1", "t1c"))
    return after - before


@pytest.fixture(scope="module")
def phantom() -> dict[str, MetaTensor]:
    images, _ = simulate(77_080)
    return {name: MetaTensor(torch.from_numpy(images[name]), affine=torch.from_numpy(LPS)) for name in GLIOMA}


def test_the_weights_are_those_that_their_note_calls_frozen():
    folder = Path(sequence_check.__file__).parent
    note, digest = (folder / "image.md").read_text(), file_digest(folder / "image.pt")
    assert f"\n{digest}\n" in note
    assert "mmb train_content" not in note  # no verb that is gone


def test_the_coarse_grid_is_in_ras_in_the_box_of_the_brain_without_what_is_0():
    image = torch.zeros(1, 10, 9, 8)
    image[0, 2:8, 3:6, 1:4] = 2.0
    image[0, 2:5, 3:6, 1:4] = torch.arange(27.0).reshape(3, 3, 3)  # mean without the one of 0: 13.5
    affine = np.diag([-1.0, 1, 1, 1])  # x increases to the left
    assert np.allclose(on_coarse_grid(image, affine).ravel(), [2.0, 13.5])
    assert not on_coarse_grid(torch.zeros(2, 4, 4, 4), affine).any()


def test_how_images_are_related_does_not_depend_on_scale_and_is_reversed_with_them():
    one = np.random.default_rng(0).uniform(100, 200, (30, 30, 30))
    other = one.copy()
    other[12:15, 12:15, 12:15] = 400  # vessels
    there = pair_features(ImageFeatures(5 * other), ImageFeatures(one + 10))
    for again, numbers in zip(pair_features(ImageFeatures(one), ImageFeatures(other)), there[::-1], strict=True):
        np.testing.assert_allclose(again, numbers, atol=2e-2)
    brighter, darker = there[0][-8], there[1][-8]
    assert brighter == pytest.approx(-darker)
    assert brighter > 1  # more is bright only in the first than only in the second


def test_a_study_of_right_names_is_not_doubted_and_looking_draws_nothing(phantom):
    sequence_check._network.cache_clear()
    before = torch.get_rng_state()
    for names in (GLIOMA, ("t1c", "flair"), ("t1", "t1c"), ("t2",)):
        assert contradictions(log_probabilities({name: phantom[name] for name in names})) == []
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("extracted", [False, True])
@pytest.mark.parametrize("pair", [*combinations(GLIOMA, 2)])
def test_two_sequences_that_are_exchanged_are_found(phantom, pair, extracted):
    exchanged = phantom | {pair[0]: phantom[pair[1]], pair[1]: phantom[pair[0]]}
    first = contradictions(log_probabilities(exchanged, extracted=extracted))[0]
    assert first.seems == {pair[0]: pair[1], pair[1]: pair[0]}


def test_what_is_bright_at_the_edge_of_an_extracted_brain_does_not_look_like_contrast_agent(phantom):
    bright = MetaTensor(torch.from_numpy(with_bright_edge(phantom["t1"].numpy())), affine=phantom["t1"].affine)
    for names in (GLIOMA, ("t1", "t1c")):
        images = {name: phantom[name] for name in names} | {"t1": bright}
        for extracted in (False, True):
            t1, t1c = (log_probabilities(images, ("t1", "t1c"), extracted)[name][:2] for name in ("t1", "t1c"))
            assert (t1[0] > t1[1]) == extracted
            assert not extracted or t1c[1] > t1c[0]


def test_a_subtraction_is_no_sequence(phantom):
    (found,) = contradictions(log_probabilities(phantom | {"t1": subtraction(phantom)}))
    assert found.seems == {"t1": "other"}
    clipped = subtraction(phantom).clamp(min=0)  # its zeros look like background
    for others in ({}, {name: phantom[name] for name in ("t1", "t2")}):
        (found,) = contradictions(log_probabilities({**others, "t1c": clipped}))
        assert found.seems == {"t1c": "other"}


def test_nothing_is_said_of_a_small_part_of_a_brain(phantom):
    slab = {name: image.clone() for name, image in phantom.items()}
    for image in slab.values():
        image[:, :, :20] = 0
        image[:, :, 24:] = 0
    assert log_probabilities(slab) == {}


def test_images_on_other_grids_are_looked_at_alone(phantom):
    moved = phantom["t2"].clone()
    moved.affine[0, 3] += 5
    said = log_probabilities({"t1": phantom["t1"], "t2": moved})
    for name, image in (("t1", phantom["t1"]), ("t2", moved)):
        assert torch.equal(said[name], log_probabilities({name: image})[name])


def test_what_is_doubted():
    assert contradictions({"t1": logs(t1=0.9), "t1c": logs(t1c=0.9), "t2": logs(t2=0.6, flair=0.35)}) == []
    # ln(0.8 / 0.05) = 2.77 for one of several images is below SURE, twice that for two that are exchanged above
    unsure = {"t1": logs(t1=0.05, t1c=0.8), "t1c": logs(t1c=0.05, t1=0.8)}
    assert contradictions({"t1": unsure["t1"], "t2": logs(t2=0.9)}) == []
    (alone,) = contradictions({"t1": unsure["t1"]})  # above SURE_ALONE
    assert alone.seems == {"t1": "t1c"}
    assert contradictions({"t1": logs(t1=0.1, t1c=0.8)}) == []  # ln 8 = 2.08 is not
    (found,) = contradictions(unsure)
    assert found.seems == {"t1": "t1c", "t1c": "t1"}
    assert found.odds == pytest.approx(2 * np.log(0.8 / 0.05), rel=1e-5)
    (found,) = contradictions({"t2": logs(t2=0.01, other=0.9)} | {"bssfp": logs(t1=0.9)})
    assert found.seems == {"t2": "other"}


@pytest.fixture(scope="module")
def vessels() -> tuple[ImageFeatures, ...]:
    """An image, the same with noise, in slices twice as thick, and with 0.6 % of bright voxels."""
    rng = np.random.default_rng(0)
    plain = rng.uniform(100, 200, (30, 30, 30))
    thick = plain.reshape(30, 30, 15, 2).mean(axis=3).repeat(2, axis=2)
    enhanced = np.where(rng.random(plain.shape) < 0.006, 600, plain)
    return tuple(map(ImageFeatures, (plain, plain + 5 * rng.standard_normal(plain.shape), thick, 3 * enhanced)))


def test_contrast_agent_leaves_one_tail_noise_and_thick_slices_two(vessels):
    plain, noisy, thick, enhanced = vessels
    found = contrast_difference(enhanced, plain)
    assert found > 3 * sequence_check.DIFFERENT
    assert contrast_difference(plain, enhanced) == pytest.approx(-found)
    assert abs(contrast_difference(noisy, plain)) < sequence_check.DIFFERENT / 4
    assert abs(contrast_difference(thick, plain)) < sequence_check.DIFFERENT / 2


@pytest.mark.parametrize("lean", [-3.0, 3.0])
def test_of_t1_compared_directly_the_brighter_one_is_the_enhanced_one(vessels, lean):
    """Whatever one image by itself looks like; without a difference the network's opinion stays, with less weight."""

    class Leaning(torch.nn.Module):
        def forward(self, given):
            return torch.tensor([0.0, lean, -9, 2, -9]).repeat(len(given), 1)  # rather FLAIR, but known as T1

    plain, noisy, _, enhanced = vessels
    for images, expected in (((plain, enhanced), [0, 1]), ((enhanced, noisy, plain), [1, 0, 0])):
        judged = judge(Leaning(), images, known=range(len(images)))
        assert judged[:, :2].argmax(dim=1).tolist() == expected
        assert torch.allclose(judged.exp().sum(dim=1), torch.ones(len(images)))
    alike = judge(Leaning(), (plain, noisy), known=(0, 1))
    assert (alike[:, 1] - alike[:, 0]).sign().tolist() == [np.sign(lean)] * 2


def test_exchanged_sequences_are_a_problem(tmp_path, phantom):
    (tmp_path / "case").mkdir()
    for name, shown in {"t1": "t1", "t1ce": "t2", "t2": "t1c", "flair": "flair"}.items():
        nib.save(nib.Nifti1Image(phantom[shown].numpy(), LPS), tmp_path / "case" / f"x_{name}.nii.gz")
    (row,) = check_folder(get_cohort("brats2020"), tmp_path, sequence_check.doubts).to_dict("records")
    assert row["problems"] == "t1c and t2: judging by their content, T1c and T2 are exchanged"


@pytest.mark.parametrize(("difference", "odds"), [(0.0, 0.0), (0.13, 0.686), (0.23, 2.852)])
def test_judge_weighs_two_t1_by_the_difference_of_their_contrast(difference, odds, monkeypatch):
    """By hand: ln of (1 + e^(28 (d - 0.13))) / (1 + e^max(28 (-d - 0.13), -5)), where the network cannot tell them."""
    network, images = [], [SimpleNamespace(compared=np.ones((20, 20, 20), bool))] * 2
    monkeypatch.setattr(sequence_check, "features", lambda images: images)
    monkeypatch.setattr(sequence_check, "judge_together", lambda *_: logs(t1=0.49, t1c=0.49).repeat(2, 1))
    monkeypatch.setattr(sequence_check, "contrast_difference", lambda *_: difference)
    first, _ = judge(network, images)
    assert float(first[CLASSES.index("t1c")] - first[CLASSES.index("t1")]) == pytest.approx(odds, abs=1e-3)
