"""Weights are used only for the sequences, classes and preprocessing that they were trained with."""

import importlib
import json
import logging
import sys

import pytest
import torch
from monai.transforms import CropForegroundd, Lambdad, Orientationd, SpatialPadd

from common.cohorts import get_cohort
from common.cohorts.described import recorded
from common.io.checkpoints import start_from, write_checkpoint
from common.io.facts import TrainingFacts
from common.networks import M3AE, RFNet
from common.run.fitting import image_steps, new_sequences, require_fitting
from common.transforms import LoadSubjectd, ScaleBrainIntensityd

M3AE_ROOT, GSS_ROOT = "bundles/m3ae", "bundles/gss"
SHIPPED = f"{M3AE_ROOT}/models/single.pt"
GLIOMA = ("t1", "t1c", "t2", "flair")
HEART = {"LV": 1, "RV": 2, "MYO": 3}


@pytest.fixture
def described(tmp_path):
    """Make the description of a data set with sequences and classes of one's own; with BraTS's classes by default."""

    def make(modalities, labels=None, name="own"):
        path = tmp_path / f"{name}.json"
        regions = {"WT": ["NCR", "ED", "ET"], "TC": ["NCR", "ET"], "ET": ["ET"]}
        own = {"labels": labels, "regions": {key: [key] for key in labels}} if labels else None
        told = own or {"labels": {"NCR": 1, "ED": 2, "ET": 3}, "regions": regions}
        path.write_text(json.dumps({"name": name, "sequences": list(modalities), **told}))
        return str(path)

    return make


@pytest.fixture
def trained(tmp_path):
    """Write the weights of a small M3AE that was trained on a cohort, and return their path."""

    def make(cohort, **facts):
        definition = get_cohort(cohort)
        network = M3AE(len(definition.modalities), len(definition.labels.regions), 8, (16, 16, 16))
        said = TrainingFacts(method="M3AE", bundle="m3ae", settings={"cohort": cohort}, **facts)
        write_checkpoint(network.state_dict(), tmp_path / "trained.pt", said)
        return tmp_path / "trained.pt"

    return make


class Gain:
    def __init__(self, gain):
        self.gain = gain


class TestInference:
    @pytest.mark.parametrize("root", [M3AE_ROOT, GSS_ROOT])
    @pytest.mark.parametrize("cohort", ["brats2021", "phantom", "open_glioma", "msd_task01"])
    def test_other_cohorts_with_the_same_sequences_and_classes_are_fine(self, root, cohort, caplog):
        require_fitting(f"{root}/models/model.pt", cohort, root)

        assert not caplog.records

    @pytest.mark.parametrize("order", [("flair", "t1c", "t1", "t2"), ("t1c", "t1", "t2", "flair"), GLIOMA[::-1]])
    @pytest.mark.parametrize("root", [M3AE_ROOT, GSS_ROOT])
    def test_another_order_is_refused_with_the_right_one(self, root, order, described):
        with pytest.raises(ValueError, match=r"List its `sequences` as t1, t1c, t2, flair\."):
            require_fitting(f"{root}/models/model.pt", described(order), root)

    @pytest.mark.parametrize(
        ("modalities", "labels"),
        [
            (("bssfp", "lge", "t2", "cine"), HEART),  # as many of both as the weights have
            (("t1", "t1c", "t2", "pd"), None),
            (("t1", "t1c", "t2"), None),
            ((*GLIOMA, "dwi"), None),
            (GLIOMA, HEART),
            (GLIOMA, {"ET": 1, "TC": 2, "WT": 3}),  # the same names in another order
        ],
    )
    def test_other_sequences_or_classes_are_refused_by_name(self, modalities, labels, described):
        with pytest.raises(ValueError, match=f"was trained with t1, t1c, t2, flair and WT.*{modalities[-1]}"):
            require_fitting(SHIPPED, described(modalities, labels), M3AE_ROOT)

    def test_own_weights_say_their_own_order(self, trained, described):
        own = described(("flair", "t1"))
        weights = trained(own)

        require_fitting(weights, own, M3AE_ROOT)
        with pytest.raises(ValueError, match="List its `sequences` as flair, t1"):
            require_fitting(weights, described(("t1", "flair"), name="other"), M3AE_ROOT)

    def test_a_region_of_other_classes_is_refused_whatever_its_name(self, trained, tmp_path):
        def made(core):
            path, regions = tmp_path / f"{core}.json", {"WT": ["NCR", "ED"], "TC": [core]}
            told = {"name": "own", "sequences": ["t1", "t2"], "labels": {"NCR": 1, "ED": 2}, "regions": regions}
            path.write_text(json.dumps(told))
            return str(path)

        weights = trained(recorded(made("NCR")))
        require_fitting(weights, made("NCR"), M3AE_ROOT)
        with pytest.raises(ValueError, match="a region TC of NCR; here it is ED"):
            require_fitting(weights, made("ED"), M3AE_ROOT)
        with pytest.raises(ValueError, match="a region TC of NCR; here it is ED"):
            new_sequences(weights, made("ED"), M3AE_ROOT)
        assert new_sequences(weights, made("ED"), M3AE_ROOT, new_head=True) == 0

    def test_weights_without_a_record_cause_a_warning_of_what_is_assumed(self, tmp_path, caplog):
        write_checkpoint({"a": torch.zeros(1)}, tmp_path / "plain.pt")
        require_fitting(tmp_path / "plain.pt", "brats2021", M3AE_ROOT)

        assert "t1, t1c, t2, flair and WT, TC, ET are assumed, in this order" in caplog.text


class TestPreprocessing:
    def test_the_steps_of_all_bundles_are_told_alike_in_training_and_inference(self):
        both = ["image", "label"]
        training = [
            LoadSubjectd("phantom"),
            Orientationd(both, "RAS", labels=None),
            ScaleBrainIntensityd("image", 1, 99),
        ]
        training += [CropForegroundd(both, "image"), SpatialPadd(both, 8)]
        training += [Lambdad("label", lambda x: x + 1)]
        inference = [Orientationd("image", "RAS", labels=None), ScaleBrainIntensityd("image", 1, 99)]

        assert image_steps(training) == image_steps(inference) == ["Orientationd", "ScaleBrainIntensityd"]
        assert image_steps(training) != image_steps(inference[::-1])

    def test_own_code_of_a_step_is_told_by_its_files(self, tmp_path, monkeypatch):
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(sys, "dont_write_bytecode", True)
        told = []
        for gain in (1, 1, 2):
            text = f"class OwnStep:\n    def __call__(self, image):\n        return {gain} * image\n"
            (tmp_path / "own_step.py").write_text(text)
            sys.modules.pop("own_step", None)
            importlib.invalidate_caches()
            told += image_steps([importlib.import_module("own_step").OwnStep()])

        assert told[0] == told[1] != told[2]
        assert told[0].startswith("OwnStep ")

    def test_another_step_is_refused(self, trained, caplog):
        steps = [ScaleBrainIntensityd("image", 1, 99)]
        weights = trained("brats2021", preprocessing=image_steps(steps))

        require_fitting(weights, "brats2021", M3AE_ROOT, steps)
        assert not caplog.records
        with pytest.raises(ValueError, match="here they go through ScaleBrainIntensityd, Lambdad"):
            require_fitting(weights, "brats2021", M3AE_ROOT, [*steps, Lambdad("image", lambda x: x)])


class TestFineTuning:
    def test_new_sequences_come_after_those_of_the_weights(self, described, caplog):
        assert new_sequences(SHIPPED, "brats2021", M3AE_ROOT) == 0
        assert new_sequences(SHIPPED, described((*GLIOMA, "dwi", "pd")), M3AE_ROOT) == 2
        assert "has not seen dwi, pd; their first weights are zero" in caplog.text

    @pytest.mark.parametrize(
        ("modalities", "labels", "said"),
        [
            (("dwi", *GLIOMA), None, "List its `sequences` as t1, t1c, t2, flair, dwi"),
            (("t1c", "t1", "t2", "flair"), None, "List its `sequences` as t1, t1c, t2, flair"),
            (("t1", "t1c", "t2"), None, "lacks flair"),
            (GLIOMA, HEART, "With --new_head true the last layer starts anew"),
        ],
    )
    def test_what_does_not_fit_is_refused_with_what_to_do(self, modalities, labels, said, described):
        with pytest.raises(ValueError, match=said):
            new_sequences(SHIPPED, described(modalities, labels), M3AE_ROOT)

    def test_images_that_are_prepared_in_another_way_are_told(self, trained, caplog):
        weights = trained("brats2021", preprocessing=image_steps([ScaleBrainIntensityd("image", 1, 99)]))
        new_sequences(weights, "brats2021", M3AE_ROOT, transforms=[ScaleBrainIntensityd("image", 1, 99)])
        assert not caplog.records
        new_sequences(weights, "brats2021", M3AE_ROOT, transforms=[Lambdad("image", lambda image: image)])

        assert "went through ScaleBrainIntensityd; here they go through Lambdad" in caplog.text

    def test_a_new_head_is_for_other_classes(self, described):
        assert new_sequences(SHIPPED, described((*GLIOMA, "dwi"), HEART), M3AE_ROOT, new_head=True) == 1

    @pytest.mark.parametrize("network", [M3AE, RFNet])
    def test_without_a_new_sequence_the_network_computes_what_it_did(self, network, tmp_path):
        torch.manual_seed(0)
        sizes = {"width": 8, "grid": (16, 16, 16)} if network is M3AE else {"width": 4}
        before, after = network(2, 3, **sizes).eval(), network(3, 3, **sizes).eval()
        write_checkpoint(before.state_dict(), tmp_path / "before.pt")
        image = torch.rand(1, 2, 16, 16, 16)
        more = torch.cat([image, torch.full_like(image[:, :1], torch.nan)], dim=1)

        start_from(after, tmp_path / "before.pt", new_sequences=1)
        with torch.no_grad():
            change = (after(more) - before(image)).abs().max()
        assert change < (1e-5 if network is M3AE else 0.1)  # RFNet divides by the number of all sequences

    def test_a_new_head_keeps_all_else(self, tmp_path, caplog):
        caplog.set_level(logging.INFO)
        before, after = M3AE(2, 3, 8, (16, 16, 16)), M3AE(2, 5, 8, (16, 16, 16))
        write_checkpoint(before.state_dict(), tmp_path / "before.pt")
        start_from(after, tmp_path / "before.pt", new_head=True)
        own, given = after.state_dict(), before.state_dict()

        assert all(torch.equal(own[name], given[name]) for name in own if "head" not in name)
        assert "at random begin unet.deep_heads.0.bias" in caplog.text

    def test_a_new_head_of_as_many_classes_is_new_too(self, tmp_path):
        before, after = M3AE(2, 3, 8, (16, 16, 16)), M3AE(2, 3, 8, (16, 16, 16))
        write_checkpoint(before.state_dict(), tmp_path / "before.pt")
        start_from(after, tmp_path / "before.pt", new_head=True)

        assert not torch.equal(after.unet.head.weight, before.unet.head.weight)

    def test_another_architecture_is_refused(self, tmp_path):
        write_checkpoint(M3AE(2, 3, 8, (16, 16, 16)).state_dict(), tmp_path / "before.pt")
        with pytest.raises(ValueError, match="another architecture than RFNet"):
            start_from(RFNet(2, 3, width=4), tmp_path / "before.pt", new_sequences=1)
