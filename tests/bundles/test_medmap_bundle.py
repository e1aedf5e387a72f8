"""MedMAP on its three backbones and with PASSION's training, at a size that takes seconds."""

import pandas as pd
import pytest
import torch
from bundles.running import MODALITIES, Bundle

MEDMAP, PASSION = Bundle("medmap"), Bundle("passion")
TINY = {"spacing": [6, 6, 6], "crop": [32, 32, 32], "epochs": 1, "val_interval": 1, "val_subsets": [list(MODALITIES)]}
TINY |= {"embed_dim": 16, "mlp_dim": 16, "heads": 2, "overlap": 0.25}
GATED = {"width": 2, "crop": [16, 16, 16]}
PATHS = {"width": 8, "crop": [16, 16, 16]}
"""The smallest sizes of PMKL, and of ACN and SMU-Net."""
ON_PHANTOM = {"cohort": "phantom", "split": "$None", "num_workers": 0}
UNTRACKED = {"evaluation#overrides#mlflow": "none"}
CHEAP = {**UNTRACKED, "evaluation#overrides#subsets": [["t1"], list(MODALITIES)]}


def tiny(coarse_dir, output_dir, **more):
    return {**TINY, "dataset_dir": coarse_dir, "output_dir": output_dir, **more}


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
    settings |= UNTRACKED
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
