"""Every subset of every case gives the same result as if the other files did not exist, and each file is read once."""

import itertools

import numpy as np
import pandas as pd
import pytest
import torch
from engines.two_stage import TwoStage
from evaluation.examples import ALWAYS
from monai.data import DataLoader
from monai.engines import SupervisedEvaluator
from monai.transforms import Activationsd, Compose, Orientationd
from torch import nn

from common.engines.inferers import ForegroundInferer, SubstituteInferer
from common.engines.sweep import SubsetSweep
from common.evaluation import CaseStore
from common.modalities import drop, subset_name, subsets
from common.networks import M3AE
from common.transforms import CachedDataset, LoadSubjectd, ScaleBrainIntensityd, ToFileGridd
from common.transforms.decision import DECISIONS, most_expected_dice

COHORT, MODALITIES = "brats2020", ("t1", "t1c", "t2", "flair")
TURN = Orientationd(["image"], axcodes="RAS", labels=None)
PREPROCESSING = Compose([LoadSubjectd(COHORT), TURN, ScaleBrainIntensityd("image", 1, 99)])
WINDOWS = {"roi_size": (8, 8, 8), "overlap": 0.5, "sw_batch_size": 4}


class Forwarded(nn.Module):
    """A network that has no encode and decode."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv3d(4, 3, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return 4 * self.conv(torch.nan_to_num(image, nan=0.5)) - 1


def sweep_of(network: nn.Module, wanted=None, inferer=None, **options) -> SubsetSweep:
    postprocessing = Compose([Activationsd("pred", sigmoid=True), ToFileGridd("pred")])
    inferer, wanted = inferer or ForegroundInferer(**WINDOWS), wanted or subsets(MODALITIES)
    return SubsetSweep(COHORT, wanted, network, inferer, postprocessing, {}, **options)


def evaluator_of(network: nn.Module, sweep: SubsetSweep, store: CaseStore) -> SupervisedEvaluator:
    sweep.store = store
    loader = DataLoader(CachedDataset(store.pending(), PREPROCESSING), batch_size=1)
    return SupervisedEvaluator(torch.device("cpu"), loader, network, iteration_update=sweep)


@pytest.fixture(params=[lambda: TwoStage(4, 3), Forwarded], ids=["encode and decode", "forward"])
def network(request) -> nn.Module:
    return request.param().eval().requires_grad_(False)


def image_with_boxes(different: bool) -> torch.Tensor:
    image = torch.zeros(1, 4, 24, 20, 18)
    generator = torch.Generator().manual_seed(0)
    for channel in range(4):
        low = 2 + channel if different else 3
        part = image[0, channel, low : 18 + channel % 2 * different, low:15, 4:14]
        part += 0.1 + torch.rand(part.shape, generator=generator)
    return image


@pytest.mark.parametrize("different", [False, True], ids=["equal boxes", "different boxes"])
class TestPredictions:
    @pytest.mark.parametrize("mirror_axes", [(), (0, 2)])
    def test_equal_single_inference_bit_for_bit(self, network, different, mirror_axes):
        image, inferer = image_with_boxes(different), ForegroundInferer(**WINDOWS, mirror_axes=mirror_axes)
        found = dict(sweep_of(network, inferer=inferer).predictions(image, network, subsets(MODALITIES)))
        assert set(found) == set(subsets(MODALITIES))
        for subset, logits in found.items():
            alone = drop(image, torch.tensor([[name in subset for name in MODALITIES]]))
            assert torch.equal(logits, inferer(alone, network))

    def test_batched_subsets_agree(self, network, different):
        image = image_with_boxes(different)
        one = dict(sweep_of(network).predictions(image, network, subsets(MODALITIES)))
        several = dict(sweep_of(network, subsets_at_once=4).predictions(image, network, subsets(MODALITIES)))
        probabilities = [torch.cat([found[s] for s in subsets(MODALITIES)]).sigmoid() for found in (one, several)]
        assert (probabilities[0] - probabilities[1]).abs().max() <= 1e-5
        assert ((probabilities[0] > 0.5) == (probabilities[1] > 0.5)).float().mean() >= 0.99999

    def test_begin_with_the_first_subset(self, network, different):
        sweep = sweep_of(network, latent_layer=next(name for name, _ in network.named_children()))
        subset, _ = next(sweep.predictions(image_with_boxes(different), network, [MODALITIES, *subsets(MODALITIES)]))
        assert subset == MODALITIES


def test_subsets_of_equal_boxes_share_encodings_unless_missing_ones_are_filled_in():
    network = TwoStage(4, 3).eval().requires_grad_(False)
    image = image_with_boxes(different=False)
    list(sweep_of(network).predictions(image, network, subsets(MODALITIES)))
    shared = network.encoded
    network.encoded = 0
    ForegroundInferer(**WINDOWS)(image, network)
    assert shared == network.encoded
    with pytest.raises(ValueError, match="SubstituteInferer fills in missing modalities"):
        sweep_of(TwoStage(4, 3), inferer=SubstituteInferer(**WINDOWS))


def test_m3ae_with_its_substitute_image(subject):
    torch.manual_seed(0)
    network = M3AE(width=8, grid=(20, 18, 16)).eval().requires_grad_(False)
    inferer = SubstituteInferer(roi_size=(16, 16, 16), overlap=0.25, sw_batch_size=4)
    (batch,) = DataLoader(CachedDataset([subject], PREPROCESSING), batch_size=1)
    wanted = [("t1",), ("t2", "flair"), MODALITIES]
    for at_once in (1, 2):
        sweep = sweep_of(network, wanted, inferer, subsets_at_once=at_once)
        for subset, logits in sweep.predictions(batch["image"], network, wanted):
            transform = Compose([LoadSubjectd(COHORT, subset), *PREPROCESSING.transforms[1:]])
            (alone,) = DataLoader(CachedDataset([subject], transform), batch_size=1)
            expected = inferer(alone["image"], network)
            if at_once == 1:
                assert torch.equal(logits, expected)
            assert (logits.sigmoid() - expected.sigmoid()).abs().max() <= 1e-5
            assert ((logits > 0) == (expected > 0)).float().mean() >= 0.99999


class TestCases:
    def test_rows(self, network, write_subject, tmp_path, opened, monkeypatch):
        monkeypatch.setattr("common.engines.sweep.perf_counter", itertools.count(0, 2).__next__)
        items = [write_subject("a"), write_subject("b", ("t1", "t2"), seed=1)]
        store = CaseStore(tmp_path / "cases", ["x"], items)
        evaluator_of(network, sweep_of(network), store).run()
        a, b = store.read("a"), store.read("b")
        assert set(a.results["modalities"]) == {subset_name(s) for s in subsets(MODALITIES)}
        assert set(b.results["modalities"]) == {"t1", "t2", "t1+t2"}
        assert len(a.results) == 15 * 3 * len(ALWAYS) * len(DECISIONS)
        assert sorted(opened) == sorted(set(opened))  # each file is read once for all subsets
        assert len([name for name in opened if name.startswith("a")]) == 5
        for result, everything in ((a, subset_name(MODALITIES)), (b, "t1+t2")):
            divergence = result.results.query("metric == 'divergence'").set_index("modalities")["value"]
            assert (divergence[everything] == 0).all()
            assert (divergence.drop(everything) > 0).all()
        assert a.planes["image"].shape == (4, 20, 18)
        assert np.isnan(b.planes["image"][[1, 3]]).all()
        assert a.seconds == b.seconds == 2  # for each subset, by the clock above
        assert 100 < a.memory_mb <= b.memory_mb < 100_000

    def test_files_that_are_absent_equal_modalities_that_are_dropped(self, network, write_subject, tmp_path):
        whole = write_subject("whole")
        few = {**whole, "case": "few", "image": whole["image"][1::2], "modalities": ["t1c", "flair"]}
        store = CaseStore(tmp_path / "cases", ["x"], [whole, few])
        wanted = [("t1c",), ("flair",), ("t1c", "flair")]
        evaluator_of(network, sweep_of(network, wanted), store).run()
        one, other = store.read("whole"), store.read("few")
        as_if_alone = "metric not in ('entropy', 'divergence')"  # these use all modalities of the case
        found = [result.results.query(as_if_alone).drop(columns="case") for result in (one, other)]
        pd.testing.assert_frame_equal(*found)
        assert one.results.query("metric == 'divergence'")["value"].isna().all()
        planes = [f"{decision}/{subset_name(subset)}" for decision in DECISIONS for subset in wanted]
        assert all(np.array_equal(one.planes[name], other.planes[name]) for name in planes)

    def test_every_decision_is_measured_on_the_same_probabilities(self, network, subject, tmp_path):
        sweep, store = sweep_of(network, [MODALITIES]), CaseStore(tmp_path / "cases", ["x"], [subject])
        evaluator_of(network, sweep, store).run()
        found = {name: store.read("case").decided(name).set_index(["region", "metric"])["value"] for name in DECISIONS}
        (batch,) = DataLoader(CachedDataset([subject], PREPROCESSING), batch_size=1)
        (wt, *_) = ForegroundInferer(**WINDOWS)(batch["image"], network)[0].sigmoid()
        assert found["threshold"]["WT", "volume"] != found["expected_dice"]["WT", "volume"]
        for decision, mask in {"threshold": wt >= 0.5, "expected_dice": most_expected_dice(wt)}.items():
            values = found[decision]["WT"]
            assert values["expected_volume"] == pytest.approx(float(wt.double().sum()) * 1e-3)
            assert values["volume"] >= int(mask.sum()) * 1e-3 - 1e-9  # smaller regions are painted into it

    def test_goes_on_where_it_stopped(self, network, write_subject, tmp_path):
        items = [write_subject(name, seed=number) for number, name in enumerate("abc")]
        whole, broken = (CaseStore(tmp_path / name, ["x"], items) for name in ("whole", "broken"))
        evaluator_of(network, sweep_of(network), whole).run()
        evaluator_of(network, sweep_of(network), CaseStore(tmp_path / "broken", ["x"], items[:2])).run()
        assert [item["case"] for item in broken.pending()] == ["c"]
        evaluator_of(network, sweep_of(network), broken).run()
        names = sorted(path.name for path in whole.folder.glob("*.csv"))
        assert names == sorted(path.name for path in broken.folder.glob("*.csv"))
        assert all((whole.folder / name).read_bytes() == (broken.folder / name).read_bytes() for name in names)

    def test_latents_of_single_modalities(self, network, subject, tmp_path):
        layer = "head" if isinstance(network, TwoStage) else "conv"
        store = CaseStore(tmp_path / "cases", ["x"], [subject])
        evaluator_of(network, sweep_of(network, latent_layer=layer, subsets_at_once=4), store).run()
        result = store.read("case")
        assert tuple(result.latents) == MODALITIES
        assert (result.results.query("metric == 'divergence'")["value"].notna()).all()
        assert len(set(result.results["modalities"])) == 15
        (batch,) = DataLoader(CachedDataset([subject], PREPROCESSING), batch_size=1)
        for number, name in enumerate(MODALITIES):  # this is the last layer, whose outputs are the logits
            seen = []
            hook = network.get_submodule(layer).register_forward_hook(lambda _m, _i, out, seen=seen: seen.append(out))
            ForegroundInferer(**WINDOWS)(drop(batch["image"], torch.arange(4)[None] == number), network)
            hook.remove()
            expected = torch.cat(seen).flatten(2).mean(dim=2).mean(dim=0).numpy()
            assert np.allclose(result.latents[name], expected, atol=1e-6)

    def test_a_batch_of_two_cases_is_refused(self, network, subject):
        (batch,) = DataLoader(CachedDataset([subject] * 2, PREPROCESSING), batch_size=2)
        with pytest.raises(ValueError, match="A batch of 2 cases; expected one at a time"):
            sweep_of(network)(None, batch)

    def test_subset_that_was_not_loaded(self, network, subject, tmp_path):
        few = Compose([LoadSubjectd(COHORT, ("t1", "t2")), *PREPROCESSING.transforms[1:]])
        (batch,) = DataLoader(CachedDataset([subject], few), batch_size=1)
        evaluator = evaluator_of(network, sweep_of(network), CaseStore(tmp_path / "cases", ["x"], [subject]))
        with pytest.raises(ValueError, match="case: subset t1c was requested, but not all of it was loaded"):
            sweep_of(network)(evaluator, batch)
