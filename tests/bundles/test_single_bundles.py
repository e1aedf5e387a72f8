"""MedMAP, MAG-MS and the recipe open_glioma: trainings at a size that takes seconds, and their published settings."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch
from bundles.running import DEMO, MODALITIES, ROOT, Bundle, copy_subset, having
from monai.data import MetaTensor

from common.io.bundle import bundle_names
from common.transforms import ResampleSpacingd
from mmb.experiments.lists import read_list

MEDMAP, PASSION = Bundle("medmap"), Bundle("passion")
GATED = {"width": 2, "crop": [16, 16, 16]}
PATHS = {"width": 8, "crop": [16, 16, 16]}
"""The smallest sizes of PMKL, and of ACN and SMU-Net."""
ON_PHANTOM = {"cohort": "phantom", "split": "$None", "num_workers": 0}
CHEAP = {"evaluation#overrides#subsets": [["t1"], list(MODALITIES)]}


def tiny(coarse_dir, output_dir, **more):
    return {**MEDMAP.tiny, "dataset_dir": coarse_dir, "output_dir": output_dir, **more}


def test_without_alignment_the_backbone_is_left_as_it_is(coarse_dir, tmp_path):
    settings = tiny(coarse_dir, tmp_path, width=4, feature_encoder=None, anchor=None)
    MEDMAP.run_here(["train.json"], "fit", **{**settings, "feature_encoder": "null", "anchor": "null"})
    weights = torch.load(tmp_path / "trained.pt", weights_only=True)
    assert not any(key.startswith("feature_encoder") for key in weights)
    assert not torch.load(tmp_path / "trained_last.pt", weights_only=True)["loss"]


def test_pmkl_has_an_aligned_teacher_and_students(coarse_dir, tmp_path, undrawn):
    settings = tiny(coarse_dir, tmp_path, **GATED, teacher_epochs=1, **CHEAP)
    MEDMAP.run_here(["train.json", "backbones/pmkl.json"], **settings)
    teacher = torch.load(tmp_path / "teacher.pt", weights_only=True)
    trained = torch.load(tmp_path / "trained.pt", weights_only=True)
    assert all(torch.equal(trained[f"full.{key}"], value) for key, value in teacher.items())  # it is frozen
    assert torch.load(tmp_path / "trained_last.pt", weights_only=True)["heads"]
    assert set(pd.read_csv(tmp_path / "evaluation" / "results.csv")["modalities"]) == {"t1", "t1+t1c+t2+flair"}


def test_pmkl_takes_a_teacher_that_there_is(coarse_dir, tmp_path, undrawn):
    settings = tiny(coarse_dir, tmp_path, **GATED, teacher_epochs=1, dedicated=[["t1c"], ["t1", "t2"]], val_subsets=[])
    MEDMAP.run_here(["train.json", "backbones/pmkl.json"], "instruct", **settings)
    settings |= {"teacher": tmp_path / "teacher.pt", "output_dir": tmp_path / "students"}
    del settings["val_subsets"]  # default: subsets that have a student
    MEDMAP.run_here(["train.json", "backbones/pmkl.json"], **settings)
    assert not (tmp_path / "students" / "teacher.pt").exists()
    found = set(pd.read_csv(tmp_path / "students" / "evaluation" / "results.csv")["modalities"])
    assert found == {"t1c", "t1+t2", "t1+t1c+t2+flair"}
    settings["cohort"] = "brats2021"
    assert "a teacher trained on phantom" in MEDMAP.complaint(["train.json", "backbones/pmkl.json"], **settings)


@pytest.mark.slow  # processes of their own
def test_two_processes_train_one_teacher(coarse_dir, tmp_path):
    settings = tiny(coarse_dir, tmp_path, **GATED, teacher_epochs=1, batch_size=1, val_subsets=[["t1"], ["t2"]])
    trained = "[*@teacher_network.parameters(), *@teach#loss.parameters()]"
    keep = f"$torch.save({trained}, @output_dir + '/of_rank_%d.pt' % torch.distributed.get_rank())"
    settings |= {"instruct": ["$@teach#trainer.run()", keep], "evaluate": []}
    MEDMAP.succeed(["train.json", "backbones/pmkl.json", "multi_gpu_train.json"], settings, processes=2)
    ranks = [torch.load(tmp_path / f"of_rank_{rank}.pt") for rank in range(2)]
    assert all(torch.equal(first, second) for first, second in zip(*ranks, strict=True))
    teacher, students = (torch.load(tmp_path / f"{name}.pt") for name in ("teacher", "trained"))
    assert all(torch.equal(students[f"full.{key}"], value) for key, value in teacher.items())
    for name in ("teacher_last", "trained_last"):  # six subjects shared by two processes
        assert torch.load(tmp_path / f"{name}.pt", weights_only=True)["trainer"]["iteration"] == 3


@pytest.mark.slow  # combines the trainings of PASSION's and MedMAP's tests
def test_alignment_goes_with_passions_training(coarse_dir, tmp_path, undrawn):
    settings = tiny(coarse_dir, tmp_path, width=4, missing_rates=[0.3, 0.3, 0.5, 0.5], **CHEAP)
    PASSION.run_here(["train.json", "recipes/medmap.json"], **settings)
    loss = torch.load(tmp_path / "trained_last.pt", weights_only=True)["loss"]
    assert {"alignment.weights", "loss.beta"} <= set(loss)
    assert (tmp_path / "preference.csv").is_file()


BASE = ["train.json", "recipes/brats2018.json"]
STACKS = {
    "PMKL": [*BASE, "backbones/pmkl.json", "recipes/pmkl.json"],
    "ACN": [*BASE, "backbones/acn.json", "recipes/acn.json"],
    "SMU-Net": [*BASE, "baselines/smunet.json", "recipes/acn.json", "recipes/smunet.json"],
}
COTRAINING = {
    "width": 16, "crop": [160, 192, 128], "batch_size": 1, "learning_rate": 1e-4, "weight_decay": 1e-5, "power": 0.9,
    "discriminator_learning_rate": 1e-4, "discriminator_betas": [0.9, 0.99], "consistency_weight": 10.0,
    "ramp_epochs": 20 * 14, "val_interval": 10 * 14, "flip_prob": 0.5, "rotation": 0.0, "shift": 0.0, "scale": 0.0,
}  # fmt: skip
PUBLISHED = {
    "PMKL": {
        "width": 16, "crop": [80] * 3, "batch_size": 4, "learning_rate": 1e-3, "momentum": 0.9, "power": 0.9,
        "steps": 60_000, "weight_decay": 0.0, "l2_weight": 1e-5, "kd_weight": 0.5, "contrastive_weight": 0.5,
        "temperature": 10.0, "margin": 1.0, "flip_prob": 0.0, "rotation": 0.0, "shift": 0.0, "scale": 0.0,
    },
    "ACN": {
        **COTRAINING, "epochs": 300 * 14, "full_weight": 0.2, "missing_weight": 0.8, "information_weight": 0.5,
        "entropy_weight": 1e-3, "knowledge_weight": 2e-4,
    },
    "SMU-Net": {
        **COTRAINING, "epochs": 250 * 14, "full_weight": 0.4, "missing_weight": 0.6, "content_weight": 0.2,
        "style_weight": 1e-4, "adversary_weight": 2e-4, "style_discriminator": "released",
    },
}  # fmt: skip


class TestRecipes:
    @pytest.mark.parametrize(("name", "parameters"), [("PMKL", 6.7e6), ("ACN", 4.7e6), ("SMU-Net", 4.8e6)])
    def test_published_constants_and_size(self, name, parameters):
        get = MEDMAP.get(*STACKS[name])
        expected = {**PUBLISHED[name], "cohort": "brats2018", "backbone": name}
        assert {key: get(key) for key in expected} == expected
        assert get("output_dir").endswith(f"eval/brats2018/{name}")
        with torch.device("meta"):
            network = get("network_def")
        assert sum(p.numel() for p in network.full.parameters()) == pytest.approx(parameters, rel=0.02)

    def test_pmkl_has_sgd_in_both_stages(self, coarse_dir):
        get = MEDMAP.get(*STACKS["PMKL"], **ON_PHANTOM, dataset_dir=coarse_dir, width=2, steps=9)
        assert get("teacher_epochs") == 4  # six subjects in two steps
        assert get("epochs") == get("val_interval") == 14 * 4  # the same number for each student
        for stage, epochs in (("teach", 4), ("train", 14 * 4)):
            optimizer, schedule = get(f"{stage}#optimizer"), get(f"{stage}#lr_scheduler")
            (group,) = optimizer.param_groups
            assert type(optimizer) is torch.optim.SGD
            assert (group["lr"], group["momentum"], group["weight_decay"]) == (1e-3, 0.9, 0.0)
            optimizer.step()
            schedule.step()
            assert group["lr"] == pytest.approx(1e-3 * (1 - 1 / epochs) ** 0.9)

    def test_a_pair_by_itself_has_the_published_epochs(self):
        get = MEDMAP.get(*STACKS["SMU-Net"], dedicated=[["t1c"]])
        assert [get(key) for key in ("epochs", "ramp_epochs", "val_interval")] == [250, 20, 10]

    @pytest.mark.parametrize(("name", "anchor"), [("ACN", "adaptive"), ("ACN", "$None"), ("SMU-Net", "$None")])
    def test_discriminators_are_a_group_without_schedule(self, name, anchor):
        get = MEDMAP.get(*STACKS[name], width=8, anchor=anchor)
        optimizer, schedule = get("train#optimizer"), get("train#lr_scheduler")
        paths, discriminators = optimizer.param_groups
        assert type(optimizer) is torch.optim.Adam
        assert not optimizer.defaults["amsgrad"]
        assert (paths["lr"], *paths["betas"], paths["weight_decay"]) == (1e-4, 0.9, 0.999, 1e-5)
        assert (discriminators["lr"], *discriminators["betas"], discriminators["weight_decay"]) == (1e-4, 0.9, 0.99, 0)
        every = [*get("network").parameters(), *get("train#loss").parameters()]
        assert sorted(map(id, paths["params"] + discriminators["params"])) == sorted(map(id, every))
        assert list(map(id, discriminators["params"])) == list(map(id, get("task_loss").discriminators.parameters()))
        optimizer.step()
        for _ in range(100):
            schedule.step()
        assert paths["lr"] == pytest.approx(1e-4 * (1 - 100 / get("epochs")) ** 0.9)
        assert discriminators["lr"] == 1e-4


BUNDLE = Bundle("mag_ms")
CONFIGS = BUNDLE.folder / "configs"
SIZES = {key: BUNDLE.tiny[key] for key in ("spacing", "crop", "width", "hidden", "mlp_dim", "heads")}


def read(name):
    return json.loads((CONFIGS / name).read_text())


class TestTraining:
    def test_gradients_are_accumulated_over_as_many_batches_as_asked_for(self, coarse_dir, tmp_path):
        settings = {**BUNDLE.tiny, "val_interval": 2, "dataset_dir": coarse_dir, "output_dir": tmp_path}
        BUNDLE.run_here(["train.json"], "fit", **settings, batch_size=1, accumulation_steps=3, num_workers=0)
        last = torch.load(tmp_path / "trained_last.pt", weights_only=True)
        assert last["trainer"]["iteration"] == 6
        assert {int(state["step"]) for state in last["optimizer"]["state"].values()} == {2}


class TestBaselines:
    DEDICATED = (["t1c", "t2"], list(MODALITIES))

    @pytest.mark.parametrize("name", ["unetr_mean", "unetr_dedicated", "hemis"])
    def test_is_trained_and_then_segments_a_subset(self, name, coarse_dir, case, tmp_path):
        overlay = f"baselines/{name}.json"
        chosen = {"dedicated": self.DEDICATED} if name == "unetr_dedicated" else {}
        settings = {**BUNDLE.tiny, **chosen, "dataset_dir": coarse_dir, "output_dir": tmp_path}
        BUNDLE.run_here(["train.json", overlay], "fit", **settings)
        last = torch.load(tmp_path / "trained_last.pt", weights_only=True)
        assert last["trainer"]["iteration"] == 3  # one budget, shared by any number of networks
        copy_subset(case, ("t1c", "t2"), tmp_path / "in" / "x")
        network = {key: value for key, value in read(overlay).items() if key in ("backbone", "fill")}
        BUNDLE.run_here(
            DEMO, **SIZES, **network, **chosen,
            dataset_dir=tmp_path / "in", output_dir=tmp_path / "out", ckpt_path=tmp_path / "trained.pt",
        )  # fmt: skip
        assert list((tmp_path / "out").rglob("*_seg.nii.gz"))

    def test_filled_ones_differ_in_what_they_fill_in_alone(self):
        zero, mean = read("baselines/unetr_zero.json"), read("baselines/unetr_mean.json")
        assert {key for key in zero if zero[key] != mean[key]} == {
            "_desc_",
            "+_recipes_",
            "method",
            "output_dir",
            "fill",
        }


class TestConfigs:
    @pytest.mark.parametrize(("recipe", "subjects", "steps"), [("msd_task01", 388, 25_000), ("iseg2017", 6, 5_000)])
    def test_recipes_have_the_published_number_of_updates(self, recipe, subjects, steps):
        get = BUNDLE.get("train.json", f"recipes/{recipe}.json")
        done = get("epochs") * subjects / (get("batch_size") * get("accumulation_steps"))
        assert steps <= done < 1.01 * steps
        assert get("epochs") % get("val_interval") == 0

    def test_published_settings_of_hemis(self, coarse_dir):
        files = ("train.json", "recipes/msd_task01.json", "baselines/hemis.json", "recipes/hemis.json")
        get = BUNDLE.get(*files, cohort="phantom", split=None, dataset_dir=coarse_dir)
        assert get("epochs") * 6 == get("steps") == 60_000  # six subjects
        assert (get("width"), get("crop"), get("train#trainer").accumulation_steps) == (8, [112] * 3, 1)
        optimizer, schedule = get("train#optimizer"), get("train#lr_scheduler")
        assert type(optimizer) is torch.optim.Adam
        rates = []
        for _ in range(3 * 1666):
            rates.append(optimizer.param_groups[0]["lr"])
            optimizer.step()
            schedule.step()
        assert rates[::1666] == pytest.approx([1e-3, 1e-3 / 4, 1e-3 / 16])

    def test_published_dedicated_networks_have_all_epochs_each(self, coarse_dir):
        names = ("train", "recipes/msd_task01", "baselines/unetr_dedicated", "recipes/unetr_dedicated")
        small = {"cohort": "phantom", "split": None, "dataset_dir": coarse_dir, **SIZES}
        for chosen, epochs in ({}, 15 * 130), ({"dedicated": [["t1c"]]}, 130):
            get = BUNDLE.get(*(f"{name}.json" for name in names), **small, **chosen)
            assert get("train#trainer").state.max_epochs == get("lr_scheduler").total_iters == epochs


SHARED = ("cohort", "split", "spacing", "crop", "overlap", "warmup", "val_subsets")
SHARED += ("crop_ratios", "affine_prob", "rotation", "zoom", "scale", "shift", "flip_prob", "lr_scheduler")
TINIEST = {"spacing": [8, 8, 8], "crop": [16, 16, 16], "overlap": 0, "epochs": 2, "val_interval": 1}
TINIEST |= {"width": 8, "batch_size": 2, "split": "seeded", "val_subsets": [["t1c"]]}


def recipe(name: str) -> dict:
    return json.loads((ROOT / "bundles" / name / "configs" / "recipes" / "open_glioma.json").read_text())


def augmentation(made: dict) -> list[dict]:
    """Return a recipe's random transforms except that of the label, which differs for a head of regions."""
    return [step for step in made["random_transforms"] if not step["_target_"].startswith("common.transforms.LabelsTo")]


def test_data_settings_are_the_same_in_all_bundles_and_all_methods_train_by_the_recipe():
    first, *others = map(recipe, bundle_names())
    assert len(augmentation(first)) == 8
    for other in others:
        assert {key: other[key] for key in SHARED} == {key: first[key] for key in SHARED}
        assert augmentation(other) == augmentation(first)
    entries = read_list(ROOT / "bundles" / "open_glioma.json").entries
    assert {entry.bundle for entry in entries} <= {*bundle_names()}
    assert all(Path(entry.files[-1]).name == "open_glioma.json" for entry in entries)


@pytest.mark.parametrize("name", ["m3ae", "passion"])
def test_a_short_training_leaves_the_average_of_the_weights(name, coarse_dir, tmp_path):
    """The phantom has the file names of BraTS 2021 and its label value of ET."""
    settings = {**TINIEST, "dataset_dir": coarse_dir, "output_dir": tmp_path, "device": "cpu"}
    own = {"m3ae": {"grid": [30, 30, 20], "pretrain_epochs": 1}, "mag_ms": {"hidden": 16, "mlp_dim": 16, "heads": 2}}
    # oneDNN of torch 2.13 reads beyond an image for the gradient of a padded 3x3x3 convolution in bfloat16 whose first
    # axis has 2 voxels (seen with AVX512-BF16), as the coarsest level of a crop of 16 has.
    own["m3ae"]["crop"] = [24, 16, 16]
    settings |= own.get(name, {})
    stages = ["pretrain", "finetune"] if name == "m3ae" else ["fit"]
    for stage in stages:
        Bundle(name).run_here(["train.json", "recipes/open_glioma.json"], stage, **settings)
    weights = "finetuned" if name == "m3ae" else "trained"
    last = torch.load(tmp_path / f"{weights}_last.pt", weights_only=True)
    written = torch.load(tmp_path / f"{weights}.pt", weights_only=True)
    assert last["best"]["best_metric_epoch"] in (1, 2)
    assert written.keys() == last["network"].keys()
    if last["best"]["best_metric_epoch"] == 2:
        assert all(torch.equal(value, last["average"][key]) for key, value in written.items())
    assert not all(torch.equal(value, last["network"][key]) for key, value in written.items())
    stage, settings = stages[-1], {**settings, "resume": True}
    Bundle(name).run_here(["train.json", "recipes/open_glioma.json"], stage, **settings)
    again = torch.load(tmp_path / f"{weights}_last.pt", weights_only=True)
    assert again["lr_scheduler"]["last_epoch"] == last["lr_scheduler"]["last_epoch"] == 2


@pytest.mark.parametrize("name", having("configs/recipes/coarse_to_fine.json"))
def test_coarse_images_come_first_and_fine_ones_later(name, coarse_dir, tmp_path):
    files = ["train.json", "recipes/open_glioma.json", "recipes/coarse_to_fine.json"]
    sizes = {"epochs": 50, "coarse_spacing": [16, 16, 16], "coarse_crop": [8, 16, 8], "affine_prob": 0.0}
    get = Bundle(name).get(*files, **{**TINIEST, **sizes}, dataset_dir=coarse_dir, output_dir=tmp_path)
    dataset = get("train#dataset")
    for epoch, size, spacing in ((0, [8, 16, 8], 16), (31, [8, 16, 8], 16), (32, [16, 16, 16], 8)):
        dataset.epoch = epoch
        (item,) = dataset[0]
        assert list(item["image"].shape[1:]) == list(item["label"].shape[1:]) == size
        assert item["image"].pixdim.tolist() == pytest.approx([spacing] * 3)
    assert any(type(handler).__name__ == "SetEpoch" and handler.target is dataset for handler in get("train#handlers"))


@pytest.mark.parametrize(("sampling", "seen"), [("points", 0), ("average", 1)])
@pytest.mark.parametrize("name", bundle_names())
def test_one_bright_voxel_between_the_points_of_a_coarser_grid_is_lost_or_averaged(name, sampling, seen):
    """At 1 mm, of 8, in the grid of 2 mm of training, inference and coarse images; the papers take the points."""
    settings = {"dataset_dir": "/nowhere", "cohort": "brats2021", "spacing": [2, 2, 2], "coarse_spacing": [2, 2, 2]}
    settings |= {"sampling": sampling} if sampling != "points" else {}
    image = torch.zeros(1, 5, 5, 5)
    image[0, 1, 2, 2] = 8
    steps = [("train.json", "deterministic_transforms"), ("inference.json", "image_transforms")]
    if name in having("configs/recipes/coarse_to_fine.json"):
        steps.append((["train.json", "recipes/coarse_to_fine.json"], "coarse#deterministic"))
    for files, key in steps:
        get = Bundle(name).get(*([files] if isinstance(files, str) else files), **settings)
        (resample,) = [step for step in get(key) if isinstance(step, ResampleSpacingd)]
        item = {each: MetaTensor(image.clone()) for each in resample.keys}
        assert resample(item)["image"].sum().item() == pytest.approx(seen), (files, key)
