"""PASSION and GSS through monai.bundle, as their users run them, at a size that takes seconds."""

import json

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bundles.running import MODALITIES, Bundle

from common.engines.epoch import SetEpoch
from mmb.experiments.evaluations import read_evaluation

PASSION, GSS = Bundle("passion"), Bundle("gss")
RATES = [0.3, 0.3, 0.5, 0.5]
SIZES = {"width": 4, "embed_dim": 16, "mlp_dim": 16, "heads": 2}
TINY = {**SIZES, "spacing": [6, 6, 6], "crop": [32, 32, 32], "overlap": 0.25, "epochs": 1, "val_interval": 1}
TINY |= {"val_subsets": [list(MODALITIES)]}
SMALLEST = {"backbone": "RFNet", "crop": [16, 16, 16]}
"""Settings for tests that do not depend on the backbone."""


def tiny(bundle, coarse_dir, output_dir):
    rates = {"missing_rates": RATES} if bundle is PASSION else {}
    return {**TINY, **rates, "dataset_dir": coarse_dir, "output_dir": output_dir}


class TestTraining:
    @pytest.mark.parametrize("training", ["moddrop", "pmr"])
    def test_what_passion_is_compared_to(self, coarse_dir, tmp_path, training):
        settings = {**tiny(PASSION, coarse_dir, tmp_path), **SMALLEST, "training": training}
        PASSION.run_here(["train.json"], "fit", **settings)
        loss = torch.load(tmp_path / "trained_last.pt", weights_only=True)["loss"]
        assert torch.equal(loss["beta"], torch.ones(4))
        assert pd.read_csv(tmp_path / "preference.csv")["relative_preference"].abs().max() > 0  # recorded nevertheless

    @pytest.mark.parametrize(
        ("bundle", "backbone"),
        [
            pytest.param(PASSION, "M2FTrans", marks=pytest.mark.slow),
            (PASSION, "bundles.small_unet.SmallUNet"),
            (GSS, "mmFormer"),
        ],
    )
    def test_backbone_is_one_scalar(self, bundle, coarse_dir, tmp_path, backbone):
        """A backbone of one's own, SmallUNet, needs one file and one option."""
        settings = {**tiny(bundle, coarse_dir, tmp_path), "backbone": backbone, "val_interval": 2}
        bundle.run_here(["train.json"], "fit", **settings)
        weights = torch.load(tmp_path / "trained.pt", weights_only=True)
        assert any(key.startswith("encoders.3") for key in weights)

    def test_gss_goes_on_from_given_weights(self, coarse_dir, tmp_path):
        """The released script trains in rounds, each of which starts from the previous one."""
        settings = {**tiny(GSS, coarse_dir, tmp_path / "first"), **SMALLEST, "val_interval": 2}
        GSS.run_here(["train.json"], "fit", **settings)
        start = torch.load(tmp_path / "first" / "trained.pt", weights_only=True)
        settings |= {"output_dir": tmp_path / "second", "init_from": tmp_path / "first" / "trained.pt"}
        GSS.run_here(["train.json"], "fit", **settings, learning_rate=0.0, weight_decay=0.0)
        end = torch.load(tmp_path / "second" / "trained.pt", weights_only=True)
        assert all(torch.equal(start[key], end[key]) for key in start)


@pytest.mark.slow  # each worker imports MONAI anew
def test_a_training_where_processes_are_spawned_and_folders_have_odd_names(coarse_dir, tmp_path, undrawn):
    """As on Windows and macOS, as far as Linux can: nothing that workers need is inherited, or quoted wrongly."""
    data, out = tmp_path / "My Data\\1 (ä)", tmp_path / "OUT put\\2's"
    data.symlink_to(coarse_dir)
    settings = {**tiny(GSS, data, out), **SMALLEST, "cohort": "phantom", "split": None}
    settings |= {"num_workers": 1, "train#dataloader#multiprocessing_context": "spawn"}
    GSS.run_here(["train.json"], **settings)
    assert read_evaluation(out / "evaluation").results["case"].nunique() > 0


class TestRecipes:
    def test_brats2015_has_a_class_of_non_enhancing_core(self):
        get = GSS.get("train.json", "recipes/brats2015.json")
        with torch.device("meta"):
            assert get("network_def").head.weight.shape[0] == 5
        assert get("train#loss").classes == ("BG", "NCR", "ED", "NET", "ET")

    @pytest.mark.slow  # makes two evaluations
    def test_gss_evaluates_with_and_without_the_rule_on_small_et(self, coarse_dir, tmp_path, undrawn):
        """The published tables apply the rule to ET: less than 500 voxels become necrosis."""
        settings = {**tiny(GSS, coarse_dir, tmp_path), **SMALLEST, "cohort": "phantom", "split": None}
        settings |= {"num_workers": 0, "evaluation#overrides#subsets": [["t1c"]]}
        GSS.run_here(["train.json", "recipes/brats2018.json"], **settings)
        folders = {"evaluation": 500, "evaluation_et_as_predicted": 0}
        found = {folder: read_evaluation(tmp_path / folder) for folder in folders}
        assert {folder: one.conventions.et_min_voxels for folder, one in found.items()} == folders
        ruled, predicted = (one.values("volume")[["WT", "TC"]] for one in found.values())
        assert predicted.equals(ruled)

    def test_myops_has_the_published_number_of_updates_of_beta(self):
        read = lambda name: json.loads((PASSION.folder / "configs" / "recipes" / f"{name}.json").read_text())  # noqa: E731
        brats, myops = read("brats2020"), read("myops2020")
        assert myops["epochs"] * myops["gamma"] == brats["epochs"] * brats["gamma"] == 3
        assert [epoch / myops["epochs"] for epoch in myops["growth"]] == [e / brats["epochs"] for e in brats["growth"]]

    @pytest.mark.parametrize("baseline", ["backbone", "uhved"])
    def test_what_gss_is_compared_to(self, coarse_dir, tmp_path, baseline):
        settings = {**tiny(GSS, coarse_dir, tmp_path), "crop": [16, 16, 16]}
        settings |= {"width": 4 if baseline == "backbone" else 2, "rounds": 2, "val_interval": 2}
        GSS.run_here(["train.json", f"baselines/{baseline}.json"], "fit", **settings)
        assert (tmp_path / "trained.pt").is_file()
        last = torch.load(tmp_path / "trained_last.pt", weights_only=True)
        assert last["trainer"]["iteration"] == 2 * 3
        assert max(state["step"] for state in last["optimizer"]["state"].values()) == 3  # anew in the second round

    @pytest.mark.parametrize(
        ("name", "steps", "expected", "rates"),
        [
            ("uhved", 60_000, {"width": 8, "crop": [112] * 3, "weight_decay": 1e-5}, {1665: 1e-3, 1666: 2.5e-4}),
            ("robustseg", 90_000, {"width": 16, "crop": [80] * 3, "flip_prob": 0.0}, {7500: 1e-4 * 0.5**0.9}),
        ],
    )
    def test_published_settings_of_baselines(self, coarse_dir, name, steps, expected, rates):
        files = ("train.json", "recipes/brats2018.json", f"baselines/{name}.json", f"recipes/{name}.json")
        get = GSS.get(*files, cohort="phantom", split=None, dataset_dir=coarse_dir)
        assert {key: get(key) for key in expected} == expected
        trainer, optimizer, schedule = get("train#trainer"), get("train#optimizer"), get("train#lr_scheduler")
        assert trainer.state.max_epochs * 6 == steps  # six subjects, one per step
        assert (type(optimizer), optimizer.defaults["amsgrad"]) == (torch.optim.Adam, False)
        for epoch in range(max(rates) + 1):
            if epoch in rates:
                assert optimizer.param_groups[0]["lr"] == pytest.approx(rates[epoch])
            optimizer.step()
            schedule.step()

    @pytest.mark.parametrize(("backbone", "start"), [("RFNet", 20), ("mmFormer", 0), ("M2FTrans", 0)])
    def test_when_a_backbones_fused_prediction_starts_to_count(self, coarse_dir, backbone, start):
        settings = {**TINY, "dataset_dir": coarse_dir, "backbone": backbone, "epochs": 300}
        get = GSS.get("train.json", "baselines/backbone.json", **settings)
        assert get("train#loss").fusion_start_epoch == start
        told = [one for one in get("train#handlers") if isinstance(one, SetEpoch)]
        assert told[0].target is get("train#loss")

    def test_myops_trains_on_slices_and_scores_subjects(self, tmp_path, undrawn):
        data = tmp_path / "MyoPS"
        rng = np.random.default_rng(0)
        for number in range(101, 107):
            label = np.zeros((48, 48, 3), np.int16)
            label[12:36, 12:36], label[16:32, 16:32], label[8:12, 12:36] = 200, 500, 600
            label[30:34, 14:20], label[14:18, 30:34] = 1220, 2221
            for token in ("C0", "DE", "T2"):
                image = np.float32(label / 10 + rng.normal(100, 5, label.shape))
                write(data / "train25" / f"myops_training_{number}_{token}.nii.gz", image)
            write(data / "train25_myops_gd" / f"myops_training_{number}_gd.nii.gz", label)
        PASSION.run_here(
            ["train.json", "recipes/myops2020.json"],
            **SIZES, epochs=1,
            crop=[32, 32], num_workers=0, dataset_dir=data, output_dir=tmp_path / "out",
        )  # fmt: skip
        evaluation = read_evaluation(tmp_path / "out" / "evaluation")
        assert evaluation.regions == ("LVB", "RVB", "MYO")
        assert (evaluation.modalities, len(evaluation.subsets)) == (("bssfp", "lge", "t2"), 7)
        assert evaluation.results["case"].nunique() == 1
        assert set(pd.read_csv(tmp_path / "out" / "preference.csv")["modality"]) == {"bssfp", "lge", "t2"}


def write(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([1.5, 1.5, 8.0, 1.0])), path)


class TestConfigs:
    def test_buffers_of_the_loss_go_to_the_device(self, coarse_dir):
        cases = [{"case": "x", "modalities": list(MODALITIES), "image": []}]
        settings = {**SIZES, "dataset_dir": coarse_dir, "training_cases": cases}
        get = PASSION.get("train.json", device=torch.device("meta"), **settings)
        assert {buffer.device.type for buffer in get("train#trainer").loss_function.buffers()} == {"meta"}
