"""Run MAG-MS and the methods it is compared with through monai.bundle, as users do, at a size that takes seconds."""

import json
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bundles.running import DEMO, Bundle, ablation_rows, copy_subset
from mlflow import MlflowClient
from monai.bundle import ConfigWorkflow

from common.cohorts.datalist import load_datalist
from common.evaluation.analysis.published import published
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.metrics.results import read_evaluation
from common.evaluation.report import sections
from common.modalities import subset_name, subsets

BUNDLE = Bundle("mag_ms")
CONFIGS = BUNDLE.folder / "configs"
MODALITIES = ("t1", "t1c", "t2", "flair")
SIZES = {"spacing": [6, 6, 6], "crop": [32, 32, 32], "width": 4, "hidden": 16, "mlp_dim": 16, "heads": 2}
TINY = {**SIZES, "epochs": 1, "val_interval": 1, "val_subsets": [list(MODALITIES)]}


def read(name):
    return json.loads((CONFIGS / name).read_text())


@pytest.fixture(scope="module")
def case(coarse_dir):
    """The datalist item of a test subject."""
    return load_datalist(coarse_dir / "datalist.json", coarse_dir)["test"][0]


@pytest.fixture(scope="module")
def trained(coarse_dir, tmp_path_factory):
    """The folder of a run of train.json, and the keys that inference with its weights needs."""
    folder = tmp_path_factory.mktemp("trained")
    settings = {**TINY, "dataset_dir": coarse_dir, "output_dir": folder, "evaluation#overrides#mlflow": "none"}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "rendered", lambda _: {".png": b"", ".svg": b""})  # takes long
        BUNDLE.run_here(["train.json"], **settings)
    return SimpleNamespace(folder=folder, weights={**SIZES, "ckpt_path": folder / "trained.pt"})


class TestTraining:
    def test_run_leaves_weights_tables_and_pictures(self, trained):
        evaluation = trained.folder / "evaluation"
        for name in ("trained.pt", "trained_last.pt"):
            assert torch.load(trained.folder / name, weights_only=True)
        results = pd.read_csv(evaluation / "results.csv")
        assert len(results) == 2 * 15 * 3 * len(METRICS)
        assert set(results["modalities"]) == {subset_name(s) for s in subsets(MODALITIES)}
        assert (evaluation / "report.html").stat().st_size > 5000

    def test_gradients_are_accumulated_over_as_many_batches_as_asked_for(self, coarse_dir, tmp_path):
        settings = {**TINY, "val_interval": 2, "dataset_dir": coarse_dir, "output_dir": tmp_path}
        BUNDLE.run_here(["train.json"], "fit", **settings, batch_size=1, accumulation_steps=3, num_workers=0)
        last = torch.load(tmp_path / "trained_last.pt", weights_only=True)
        assert last["trainer"]["iteration"] == 6
        assert {int(state["step"]) for state in last["optimizer"]["state"].values()} == {2}

    @pytest.mark.slow  # processes of their own
    def test_two_processes_train_together(self, coarse_dir, tmp_path):
        settings = {**TINY, "batch_size": 1, "val_subsets": [["t1"], ["t2"]]}  # a validation case for each process
        settings |= {"dataset_dir": coarse_dir, "output_dir": tmp_path, "tracking": "mlflow"}
        said = BUNDLE.succeed(["train.json", "multi_gpu_train.json"], settings, run_id="fit", processes=2)
        assert all(f"train_{term}" in said for term in ("loss", "fuse", "single", "kl", "l2"))
        state = torch.load(tmp_path / "trained_last.pt", weights_only=True)
        assert state["trainer"]["iteration"] == 3  # six subjects shared by two processes
        client = MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
        (tracked,) = client.search_runs([client.get_experiment_by_name("monai_experiment").experiment_id])
        assert tracked.info.status == "FINISHED"
        assert len(client.get_metric_history(tracked.info.run_id, "val_mean_dice")) == 1  # written by one of them
        assert (tmp_path / ".lock").read_text() == ""  # other processes may enter

    @pytest.mark.slow  # a training for each variant
    def test_ablation_reports_its_variants(self, coarse_dir, tmp_path, undrawn):
        variants = read("recipes/ablation.json")["variants"]
        assert variants["MAG"] == {"lambda_kl": 0.0, "gamma": 0.0}
        settings = {**TINY, "val_interval": 2, "evaluation#overrides#subsets": [["t1"]]}
        settings["evaluation#overrides#mlflow"] = "none"
        chosen = {name: {**settings, **variants[name]} for name in ("MAG-MS, the teacher learns too",)}
        (name,) = chosen
        BUNDLE.run_here(
            ["train.json", "recipes/ablation.json"],
            variants=chosen, reference=name, output_dir=tmp_path, dataset_dir=coarse_dir,
        )  # fmt: skip
        assert list(ablation_rows(tmp_path).values()) == [[name], [name]]  # there is nothing to test it against

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"crop": [40, 32, 32]}, "crop [40, 32, 32]: expected 2 or 3 multiples of 16"),
            ({"heads": 3}, "3 heads: expected a divisor of a token's 16 channels"),
            ({"lambda_kl": -1.0}, "lambda_kl -1.0: expected a number from 0"),
            ({"temperature": 0.0}, "temperature 0.0: expected a number from 0.01"),
            ({"detach_teacher": "perhaps"}, "detach_teacher 'perhaps': expected true or false"),
            ({"network_def#classes": 5}, "The network's head has 5 classes, but the cohort has 4"),
            ({"dedicated": [["lge"]]}, "Modality 'lge' is not in this cohort"),
        ],
    )
    def test_wrong_settings_are_named_before_training(self, coarse_dir, tmp_path, overrides, message):
        settings = {**TINY, "dataset_dir": coarse_dir, "output_dir": tmp_path, **overrides}
        assert message in BUNDLE.complaint(["train.json"], "fit", **settings)
        assert not (tmp_path / "trained_last.pt").exists()


class TestBaselines:
    DEDICATED = (["t1c", "t2"], list(MODALITIES))

    @pytest.mark.parametrize("name", ["unetr_zero", "unetr_mean", "unetr_dedicated", "hemis"])
    def test_is_trained_and_then_segments_a_subset(self, name, coarse_dir, case, tmp_path):
        overlay = f"baselines/{name}.json"
        chosen = {"dedicated": self.DEDICATED} if name == "unetr_dedicated" else {}
        settings = {**TINY, **chosen, "dataset_dir": coarse_dir, "output_dir": tmp_path}
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

    def test_filling_is_checked(self, coarse_dir, tmp_path):
        settings = {**TINY, "fill": "median", "dataset_dir": coarse_dir, "output_dir": tmp_path}
        assert "fill 'median': expected one of" in BUNDLE.complaint(
            ["train.json"], "fit", **settings, backbone=read("baselines/unetr_zero.json")["backbone"]
        )

    def test_filled_ones_differ_in_what_they_fill_in_alone(self):
        zero, mean = read("baselines/unetr_zero.json"), read("baselines/unetr_mean.json")
        assert {key for key in zero if zero[key] != mean[key]} == {"_desc_", "method", "output_dir", "fill"}


class TestInference:
    def test_evaluation_equals_the_file_that_inference_writes(self, trained, case, tmp_path):
        copy_subset(case, ("t1c", "t2"), tmp_path / "in" / case["case"])
        BUNDLE.run_here(DEMO, **trained.weights, dataset_dir=tmp_path / "in", output_dir=tmp_path / "out")
        written = nib.load(tmp_path / "out" / case["case"] / f"{case['case']}_seg.nii.gz")
        reference = nib.load(case["label"])
        assert written.shape == reference.shape
        assert np.array_equal(written.affine, reference.affine)
        label, truth = written.get_fdata(), reference.get_fdata()
        assert set(np.unique(label)) <= {0, 1, 2, 4}
        dice = read_evaluation(trained.folder / "evaluation").values("dice").loc[("t1c+t2", case["case"])]
        for region, values in (("WT", (1, 2, 4)), ("TC", (1, 4)), ("ET", (4,))):
            p, g = np.isin(label, values), np.isin(truth, values)
            assert dice[region] == pytest.approx(2 * (p & g).sum() / max(1, p.sum() + g.sum()), abs=1e-6)

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"cohort": "myops2020"}, "a checkpoint of another architecture than MAGMS"),
            ({"crop": [48, 48, 48]}, "a checkpoint of another architecture than MAGMS"),
            ({"inferer#roi_size": [48, 48, 32]}, "A window of [48, 48, 32] voxels, but this MAGMS was built for"),
            ({"ckpt_path": "/nowhere/model.pt"}, "/nowhere/model.pt: no such checkpoint"),
        ],
    )
    def test_what_the_weights_are_not_for_is_refused(self, trained, case, tmp_path, overrides, message):
        copy_subset(case, ("flair",), tmp_path / "in" / "x")
        settings = {**trained.weights, "dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out", **overrides}
        assert message in BUNDLE.complaint(DEMO, **settings)
        assert not list((tmp_path / "out").rglob("*.nii.gz"))


class TestConfigs:
    PAPER = {  # noqa: RUF012
        "split": "mag_ms", "width": 16, "hidden": 768, "mlp_dim": 3072, "heads": 12, "spacing": [1.0] * 3,
        "lambda_kl": 1.0, "gamma": 1.0, "temperature": 1.0, "detach_teacher": True, "learning_rate": 1e-4,
        "weight_decay": 1e-5, "power": 0.0, "batch_size": 1, "accumulation_steps": 2,
    }  # fmt: skip

    @pytest.mark.parametrize(
        ("recipe", "crop", "subjects", "steps", "parameters"),
        [("msd_task01", [128] * 3, 388, 25_000, 366.3e6), ("iseg2017", [96] * 3, 6, 5_000, 184.3e6)],
    )
    def test_paper_constants(self, recipe, crop, subjects, steps, parameters):
        files = [str(CONFIGS / name) for name in ("train.json", f"recipes/{recipe}.json")]
        get = ConfigWorkflow(config_file=files, logging_file=False).parser.get_parsed_content
        expected = {**self.PAPER, "cohort": recipe, "crop": crop}
        assert {key: get(key) for key in expected} == expected
        done = get("epochs") * subjects / (get("batch_size") * get("accumulation_steps"))
        assert steps <= done < 1.01 * steps
        assert get("epochs") % get("val_interval") == 0
        with torch.device("meta"):
            network = get("network_def")
        assert sum(p.numel() for p in network.parameters()) == pytest.approx(parameters, rel=1e-3)

    def test_published_settings_of_hemis(self, coarse_dir):
        files = [str(CONFIGS / f"{name}.json") for name in ("train", "recipes/msd_task01", "baselines/hemis")]
        settings = {"cohort": "phantom", "split": None, "dataset_dir": str(coarse_dir)}
        workflow = ConfigWorkflow([*files, str(CONFIGS / "recipes/hemis.json")], logging_file=False, **settings)
        get = workflow.parser.get_parsed_content
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
        small = {"cohort": "phantom", "split": None, "dataset_dir": str(coarse_dir), **SIZES}
        for chosen, epochs in ({}, 15 * 130), ({"dedicated": [["t1c"]]}, 130):
            files = [str(CONFIGS / f"{name}.json") for name in names]
            get = ConfigWorkflow(files, logging_file=False, **small, **chosen).parser.get_parsed_content
            assert get("train#trainer").state.max_epochs == get("lr_scheduler").total_iters == epochs

    def test_learning_rate_is_constant_in_the_recipes(self):
        parameter = torch.nn.Parameter(torch.zeros(1))
        optimiser = torch.optim.SGD([parameter], lr=0.1)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimiser, total_iters=5, power=self.PAPER["power"])
        for _ in range(6):
            optimiser.step()
            schedule.step()
            assert schedule.get_last_lr() == [0.1]

    def test_published_tables_beside_recipes_exist(self):
        for path in (CONFIGS / "recipes").glob("*.json"):
            if "published" in (recipe := json.loads(path.read_text())):
                assert len(published(*recipe["published"]))

    def test_training_and_evaluation_agree(self):
        train, evaluate, inference = (read(f"{name}.json") for name in ("train", "evaluate", "inference"))
        overrides = train["evaluation"]["overrides"]
        for key in ("method", "conventions", "calibrate_on", "coverage", "published", "split_seed"):
            assert train[key] == evaluate[key]
            assert overrides[key] == f"@{key}"
        network = ("backbone", "width", "hidden", "mlp_dim", "heads", "fill", "dedicated")
        for key in (*network, "spacing", "crop", "overlap", "blend", "sw_batch_size"):
            assert overrides[key] == f"@{key}"
        assert train["network_def"] == inference["network_def"]
