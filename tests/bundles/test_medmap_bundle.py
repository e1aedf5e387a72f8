"""MedMAP on its three backbones, under PASSION's training, and the leaderboard, at a size that takes seconds."""

import json

import pandas as pd
import pytest
import torch
from bundles.running import ROOT, TORCHRUN, Bundle

from common.modalities import subset_name, subsets
from tools.__main__ import leaderboard

MEDMAP, PASSION = Bundle("medmap"), Bundle("passion")
MODALITIES = ("t1", "t1c", "t2", "flair")
TINY = {"spacing": [6, 6, 6], "crop": [32, 32, 32], "epochs": 1, "val_interval": 1, "val_subsets": [list(MODALITIES)]}
TINY |= {"embed_dim": 16, "mlp_dim": 16, "heads": 2}
CHEAP = {"evaluation#overrides#mlflow": "none", "evaluation#overrides#subsets": [["t1"], list(MODALITIES)]}


def tiny(phantom_dir, output_dir, **more):
    return {**TINY, "dataset_dir": phantom_dir, "output_dir": output_dir, **more}


def test_run_leaves_weights_of_the_feature_encoder_and_the_mixture(phantom_dir, tmp_path):
    MEDMAP.run_here(["train.json"], **tiny(phantom_dir, tmp_path, width=4))
    weights = torch.load(tmp_path / "trained.pt", weights_only=True)
    assert weights["feature_encoder.layers.0.weight"].shape == (4, 1, 3, 3, 3)
    mixture = torch.load(tmp_path / "trained_last.pt", weights_only=True)["loss"]["alignment.weights"]
    assert not torch.equal(mixture, torch.tensor([0.0, 0, 0, 1]))
    results = pd.read_csv(tmp_path / "evaluation" / "results.csv")
    assert set(results["modalities"]) == {subset_name(subset) for subset in subsets(MODALITIES)}
    latents = pd.read_csv(tmp_path / "evaluation" / "latents.csv")
    assert latents.groupby("modality").size().tolist() == [2, 2, 2, 2]
    assert "How far apart the modalities are" in (tmp_path / "evaluation" / "report.md").read_text()


def test_without_alignment_the_backbone_is_left_as_it_is(phantom_dir, tmp_path):
    settings = tiny(phantom_dir, tmp_path, width=4, feature_encoder=None, anchor=None)
    MEDMAP.run_here(["train.json"], "fit", **{**settings, "feature_encoder": "null", "anchor": "null"})
    weights = torch.load(tmp_path / "trained.pt", weights_only=True)
    assert not any(key.startswith("feature_encoder") for key in weights)
    assert not torch.load(tmp_path / "trained_last.pt", weights_only=True)["loss"]


def test_pmkl_has_an_aligned_teacher_and_students(phantom_dir, tmp_path):
    settings = tiny(phantom_dir, tmp_path, width=2, teacher_epochs=1, **CHEAP)
    MEDMAP.run_here(["train.json", "backbones/pmkl.json"], **settings)
    teacher = torch.load(tmp_path / "teacher.pt", weights_only=True)
    trained = torch.load(tmp_path / "trained.pt", weights_only=True)
    assert all(torch.equal(trained[f"full.{key}"], value) for key, value in teacher.items())  # it is frozen
    assert torch.load(tmp_path / "trained_last.pt", weights_only=True)["heads"]
    assert set(pd.read_csv(tmp_path / "evaluation" / "results.csv")["modalities"]) == {"t1", "t1+t1c+t2+flair"}


@pytest.mark.parametrize("align_at", ["input", "bottleneck"])
def test_acn_is_aligned_at_either_place(phantom_dir, tmp_path, align_at):
    settings = tiny(phantom_dir, tmp_path, width=8, align_at=align_at)
    if align_at == "bottleneck":
        settings["feature_encoder"] = "null"
    MEDMAP.run_here(["train.json", "backbones/acn.json"], "fit", **settings)
    state = torch.load(tmp_path / "trained_last.pt", weights_only=True)["loss"]
    assert any("discriminators" in key for key in state)
    assert "alignment.weights" in state


def test_two_processes_share_mixture_and_discriminators(phantom_dir, tmp_path):
    settings = tiny(phantom_dir, tmp_path, width=8, batch_size=1, val_subsets=[["t1"], ["t2"]])
    configs = ["train.json", "backbones/acn.json", "multi_gpu_train.json"]
    MEDMAP.succeed(configs, settings, run_id=["fit"], launcher=TORCHRUN)
    state = torch.load(tmp_path / "trained_last.pt", weights_only=True)
    assert state["trainer"]["iteration"] == 3  # six subjects shared by two processes
    assert not torch.equal(state["loss"]["alignment.weights"], torch.tensor([0.0, 0, 0, 1]))


def test_smu_net_trains(phantom_dir, tmp_path):
    MEDMAP.run_here(["train.json", "baselines/smunet.json"], "fit", **tiny(phantom_dir, tmp_path, width=8))
    assert torch.load(tmp_path / "trained.pt", weights_only=True)


def test_alignment_goes_with_passions_training(phantom_dir, tmp_path):
    settings = tiny(phantom_dir, tmp_path, width=4, missing_rates=[0.3, 0.3, 0.5, 0.5], **CHEAP)
    PASSION.run_here(["train.json", "recipes/medmap.json"], **settings)
    loss = torch.load(tmp_path / "trained_last.pt", weights_only=True)["loss"]
    assert {"alignment.weights", "loss.beta"} <= set(loss)
    assert (tmp_path / "preference.csv").is_file()


@pytest.mark.parametrize(
    ("configs", "overrides", "message"),
    [
        ([], {"anchor": "pd"}, "anchor 'pd': expected one of 'adaptive', 'normal', 't1'"),
        ([], {"prior": "lge"}, "prior 'lge': expected one of"),
        ([], {"feature_encoder": "null"}, "MMFormer has 0 feature encoders to align"),
        ([], {"feature_encoder": "both"}, "feature_encoder 'both': expected one of 'shared', 'separate'"),
        ([], {"align_at": "bottleneck"}, "align_at 'bottleneck': MMFormer has no bottleneck"),
        ([], {"backbone": "ACN", "width": 8}, "decodes each modality by itself and fused, which ACN does not"),
        (["backbones/pmkl.json"], {"teacher": "/nowhere.pt", "width": 2}, "/nowhere.pt: no weights of a teacher"),
    ],
)
def test_combinations_that_make_no_sense_are_refused_before_training(
    phantom_dir, tmp_path, configs, overrides, message
):
    settings = {**tiny(phantom_dir, tmp_path), "width": 4, **overrides}
    assert message in MEDMAP.complaint(["train.json", *configs], "fit", **settings)
    assert not (tmp_path / "trained_last.pt").exists()


def test_leaderboard_trains_compares_and_goes_on(phantom_dir, tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cheap = {**TINY, "evaluation#overrides#subsets": [["t1"], list(MODALITIES)], "evaluation#overrides#mlflow": "none"}
    cheap |= {"width": 2, "quiet": True}
    methods = {
        "another seed": {"bundle": "gss", "configs": ["baselines/uhved.json"], "settings": {"seed": 1}},
        "U-HVED": {"bundle": "gss", "configs": ["baselines/uhved.json"]},
    }
    (tmp_path / "list.json").write_text(json.dumps({"settings": cheap, "methods": methods}))
    for _ in range(2):
        leaderboard(str(tmp_path / "list.json"), str(tmp_path / "out"), dataset_dir=str(phantom_dir))
    minutes = pd.read_csv(tmp_path / "out" / "leaderboard.csv")
    assert minutes["state"].tolist() == ["finished", "finished"]
    seconds = (tmp_path / "out" / "u_hved" / "seconds.txt").read_text().splitlines()
    assert len(seconds) == 1  # the second time nothing was run
    assert "another seed" in (tmp_path / "out" / "report" / "report.md").read_text()
