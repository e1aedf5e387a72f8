"""What all bundles do alike, through monai.bundle as their users run them, at a size that takes seconds."""

import json
import shutil
from itertools import pairwise, product
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bundles.running import (
    DEMO,
    DEMO_EVALUATION,
    MODALITIES,
    Bundle,
    assert_every_subset_is_segmented,
    copy_subset,
    having,
)
from draws import follow
from mlflow import MlflowClient

from common.cohorts.datalist import load_datalist, write_datalist
from common.evaluation.metrics.conventions import METRICS
from common.evaluation.report import sections
from common.io.bundle import bundle_names
from common.io.facts import read_facts
from common.modalities import subset_name, subsets
from mmb.experiments.evaluations import read_evaluation

NAMES = bundle_names()
SUBSETS = [["t1"], ["t1c", "flair"], list(MODALITIES)]
OF_A_DEMO = "width embed_dim mlp_dim heads hidden grid crop patch_size spacing overlap split cohort masks missing_rates"
OF_A_DEMO += " epochs pretrain_epochs rounds val_interval batch_size accumulation_steps learning_rate backbone"
"""Keys whose values in a bundle's train.json need not be the paper's."""
PHANTOM_WEIGHTS = having("models/phantom.pt")
each = pytest.mark.parametrize("name", NAMES)


def read(name, file):
    return json.loads((Bundle(name).folder / "configs" / file).read_text())


@pytest.fixture(scope="module", params=[name for name in NAMES if name != "m3ae"])
def run(request, coarse_dir, tmp_path_factory):
    """The folder of a whole run: training and evaluation; M3AE's has tests of its own."""
    bundle, folder = Bundle(request.param), tmp_path_factory.mktemp("trained")
    models = {path: path.stat().st_mtime_ns for path in bundle.folder.glob("models/*")}
    settings = {**bundle.tiny, "dataset_dir": coarse_dir, "output_dir": folder}
    if bundle.name != "medmap":  # all have the same default, 15 subsets
        settings["evaluation#overrides#subsets"] = SUBSETS
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "rendered", lambda _: {".png": b"", ".pdf": b""})  # takes long
        (folder / "own.json").write_text('{"+_recipes_": ["own.json"]}')
        assert not bundle.complaint(["train.json", str(folder / "own.json")], **settings)
    assert {path: path.stat().st_mtime_ns for path in models} == models
    last = torch.load(folder / "trained_last.pt", weights_only=True)
    weights = torch.load(folder / "trained.pt", weights_only=True)
    return SimpleNamespace(name=bundle.name, folder=folder, last=last, weights=weights)


class TestTraining:
    def test_leaves_weights_tables_and_a_report(self, run):
        assert run.weights
        assert run.last["trainer"]["iteration"] > 0
        results = pd.read_csv(run.folder / "evaluation" / "results.csv")
        evaluated = subsets(MODALITIES) if run.name == "medmap" else SUBSETS
        measured = [metric for metric in METRICS if not metric.startswith("lesion_")]  # these on request
        assert len(results) == 2 * len(evaluated) * 3 * len(measured)
        assert set(results["modalities"]) == {subset_name(subset) for subset in evaluated}
        assert (run.folder / "evaluation" / "tables" / "dice.md").stat().st_size > 500
        assert (run.folder / "evaluation" / "report.md").stat().st_size > 5000

    def test_leaves_weights_that_need_no_options_at_inference(self, run, coarse_dir, tmp_path, caplog):
        facts = read_facts(run.folder / "trained.pt")
        own = {key: value for key, value in Bundle(run.name).tiny.items() if key in facts.settings}
        assert facts.settings | own == facts.settings
        assert (facts.settings["cohort"], facts.recipe) == ("phantom", ["own.json"])
        assert (facts.bundle, facts.cases, facts.modalities) == (run.name, 6, list(MODALITIES))
        file = next(coarse_dir.rglob("*_t1ce.nii.gz"))
        copy_subset({"image": [file], "modalities": ["t1c"]}, ["t1c"], tmp_path / "study")
        with caplog.at_level("INFO"):
            options = {"ckpt_path": run.folder / "trained.pt", "dataset_dir": tmp_path / "study"}
            Bundle(run.name).run_here(["inference.json"], **options, output_dir=tmp_path / "out")
        assert "trained on 6 cases of phantom" in caplog.text
        assert list((tmp_path / "out").rglob("*_seg.nii.gz"))

    def test_leaves_what_is_a_methods_own(self, run):
        if run.name == "passion":
            history = pd.read_csv(run.folder / "preference.csv")
            assert history["modality"].tolist() == list(MODALITIES)
            assert history["relative_preference"].sum() == pytest.approx(0, abs=1e-4)  # relative to their mean
        if run.name == "medmap":
            assert run.weights["feature_encoder.layers.0.weight"].shape == (4, 1, 3, 3, 3)
            assert not torch.equal(run.last["loss"]["alignment.weights"], torch.tensor([0.0, 0, 0, 1]))
            latents = pd.read_csv(run.folder / "evaluation" / "latents.csv")
            assert latents.groupby("modality").size().tolist() == [2, 2, 2, 2]
            assert (run.folder / "evaluation" / "figures" / "latents_medmap.png").is_file()

    @pytest.mark.parametrize(
        ("name", "files", "settings"),
        [
            # subjects lack modalities, so encoders may have no gradient; RP covers the subjects of all processes
            ("passion", [], {}),
            ("mag_ms", [], {}),
            ("medmap", ["backbones/acn.json"], {"crop": [16, 16, 16], "width": 8}),  # has a mixture and discriminators
            ("m3ae", [], {"pretrain_batch_size": 1}),  # has two stages
        ],
        ids=["passion", "mag_ms", "medmap-acn", "m3ae"],
    )
    @pytest.mark.slow  # processes of their own
    def test_two_processes_train_together(self, coarse_dir, tmp_path, name, files, settings):
        settings = {**Bundle(name).tiny, "batch_size": 1, "val_subsets": [["t1"], ["t2"]], **settings}
        settings |= {"dataset_dir": coarse_dir, "output_dir": tmp_path}  # a validation case for each process
        settings |= {"tracking": "mlflow"} if name == "mag_ms" else {}
        files = ["train.json", *files, "multi_gpu_train.json"]
        printed = Bundle(name).succeed(files, settings, run_id="fit", processes=2)
        stage = "finetuned" if name == "m3ae" else "trained"
        last = torch.load(tmp_path / f"{stage}_last.pt", weights_only=True)
        assert last["trainer"]["iteration"] == 3  # six subjects shared by two processes
        assert (tmp_path / ".lock").read_text() == ""  # other processes may enter
        if name == "passion":
            assert len(pd.read_csv(tmp_path / "preference.csv")) == 4
        if name == "medmap":
            assert not torch.equal(last["loss"]["alignment.weights"], torch.tensor([0.0, 0, 0, 1]))
        if name == "mag_ms":
            assert all(f"train_{term}" in printed for term in ("loss", "fuse", "single", "kl", "l2"))
            client = MlflowClient(f"sqlite:///{tmp_path}/mlruns.db")
            (tracked,) = client.search_runs([client.get_experiment_by_name("monai_experiment").experiment_id])
            assert tracked.info.status == "FINISHED"
            assert len(client.get_metric_history(tracked.info.run_id, "val_mean_dice")) == 1  # written by one of them

    @pytest.mark.slow  # processes of their own
    def test_two_processes_on_the_cpu_without_a_case_to_validate_or_test(self, coarse_dir, tmp_path):
        write_datalist({"training": json.loads((coarse_dir / "datalist.json").read_text())["training"]}, tmp_path / "l")
        settings = {**Bundle("gss").tiny, "dataset_dir": coarse_dir, "output_dir": tmp_path, "datalist": tmp_path / "l"}
        files = ["train.json", "multi_gpu_train.json"]
        said = Bundle("gss").succeed(files, {**settings, "rounds": 1, "device": "cpu"}, processes=2)
        assert "No case to evaluate: part test of the split has none with a label." in said
        assert (tmp_path / "trained.pt").is_file()

    @pytest.mark.slow  # processes of their own
    @pytest.mark.parametrize("workers", [0, 2])
    def test_the_last_line_of_an_error_says_why(self, coarse_dir, tmp_path, workers):
        """It is that of the image that cannot be read, whether or not a worker process reads it."""
        data = shutil.copytree(coarse_dir, tmp_path / "data")
        for path in data.glob("*/*_t2.nii.gz"):
            path.write_bytes(path.read_bytes()[:-2000] + path.read_bytes()[-8:])
        settings = {**Bundle("gss").tiny, "dataset_dir": data, "output_dir": tmp_path / "out", "num_workers": workers}
        code, said = Bundle("gss").run(["train.json"], settings)
        assert code == 1
        last = said.rstrip().splitlines()[-1]
        assert last.startswith(f"ValueError: {data}/Phantom_")
        assert "_t2.nii.gz: cannot be read as an image" in last
        assert "__local_refs" not in said  # of MONAI's expressions

    @pytest.mark.parametrize(
        ("name", "overrides", "message"),
        [
            ("passion", {"missing_rates": [0.2, 0.4, 0.8]}, "missing_rates [0.2, 0.4, 0.8]: expected 4"),
            ("passion", {"missing_rates": "null", "masks": "mr9999"}, "mr9999"),
            ("passion", {"backbone": "UNet"}, "backbone 'UNet': expected one of RFNet, mmFormer, M2FTrans"),
            ("passion", {"perfect_data": True}, "perfect_data: some training subjects lack a modality"),
            ("passion", {"network_def#classes": 5}, "The network's head has 5 classes, but the cohort has 4"),
            ("gss", {"leaders": {"NET": ["flair"]}}, "leaders of NET; expected those of BG, NCR, ED, ET"),
            ("gss", {"network_def#classes": 3}, "Set `cohort` to the one that the network was made for"),
            ("mag_ms", {"crop": [40, 32, 32]}, "crop [40, 32, 32]: expected 2 or 3 multiples of 16"),
            ("mag_ms", {"detach_teacher": "perhaps"}, "detach_teacher 'perhaps': expected true or false"),
            ("mag_ms", {"network_def#classes": 5}, "The network's head has 5 classes, but the cohort has 4"),
            ("mag_ms", {"dedicated": [["lge"]]}, "Modality 'lge' is not in this cohort"),
            ("medmap", {"prior": "lge"}, "prior 'lge': is not a sequence of the cohort"),
            ("medmap", {"feature_encoder": "null"}, "MMFormer has 0 feature encoders to align"),
            ("medmap", {"dedicated": [["t1"]]}, "backbone 'mmFormer' does not support it; set `dedicated` to null"),
            ("medmap/backbones/pmkl.json", {"align_at": "bottleneck", "width": 2}, "cannot compute the bottleneck"),
        ],
    )
    def test_wrong_settings_are_named_before_training(self, coarse_dir, tmp_path, name, overrides, message):
        name, _, overlay = name.partition("/")
        settings = {**Bundle(name).tiny, "dataset_dir": coarse_dir, "output_dir": tmp_path, **overrides}
        assert message in Bundle(name).complaint(["train.json", *([overlay] if overlay else [])], **settings)
        assert {path.name for path in tmp_path.iterdir()} <= {".lock", "run.json"}  # it failed before loading a case


class TestInference:
    @pytest.mark.parametrize(
        ("name", "least"),
        [
            ("m3ae", 0.8),
            *(pytest.param(name, 0.75, marks=pytest.mark.slow) for name in PHANTOM_WEIGHTS if name != "m3ae"),
        ],
    )
    def test_demo_weights_segment_every_subset(self, name, least, case, tmp_path, caplog):
        assert_every_subset_is_segmented(Bundle(name), case, tmp_path, least_dice=least)
        assert "no image of a person. Research only." in caplog.text  # says what the weights are

    @pytest.mark.parametrize("name", PHANTOM_WEIGHTS)
    def test_evaluation_equals_the_file_that_inference_writes(self, name, case, phantom_dir, tmp_path, undrawn):
        write_datalist({"test": [case]}, tmp_path / "one.json")
        settings = {"subsets": [["t1c", "t2"]], "datalist": tmp_path / "one.json"}
        settings |= {"dataset_dir": phantom_dir, "output_dir": tmp_path / "evaluation", "decision": "threshold"}
        Bundle(name).run_here(DEMO_EVALUATION, **settings)
        copy_subset(case, ("t1c", "t2"), tmp_path / "in" / "x")
        decision = {"m3ae": "by_sequences", "gss": "threshold"}.get(name, "expected_dice")
        Bundle(name).run_here(DEMO, dataset_dir=tmp_path / "in", output_dir=tmp_path / "out", decision=decision)
        written, reference = nib.load(tmp_path / "out" / "x" / "x_seg.nii.gz"), nib.load(case["label"])
        assert np.array_equal(written.affine, reference.affine)
        label, truth = written.get_fdata(), reference.get_fdata()
        results = tmp_path / "evaluation" / ("" if decision == "threshold" else decision)
        dice = read_evaluation(results).values("dice").loc["t1c+t2"].iloc[0]
        for region, values in (("WT", (1, 2, 4)), ("TC", (1, 4)), ("ET", (4,))):
            p, g = np.isin(label, values), np.isin(truth, values)
            assert dice[region] == pytest.approx(2 * (p & g).sum() / (p.sum() + g.sum()), abs=1e-6)


class TestConfigs:
    RFNET = {"rotation": 0.1745, "scale": 0.1, "shift": 0.1, "flip_prob": 0.5}  # noqa: RUF012
    """Augmentation of the released code of RFNet, mmFormer, GSS and PASSION: 10 degrees, 10 %."""
    PASSION = {  # noqa: RUF012
        "width": 8, "embed_dim": 512, "mlp_dim": 4096, "heads": 8, "crop": [80] * 3, "spacing": [1.0] * 3,
        "batch_size": 1, "epochs": 300, "learning_rate": 2e-4, "weight_decay": 1e-4, "power": 0.9, "lambda_1": 0.5,
        "lambda_2": 0.1, "temperature": 4.0, "gamma": 0.01, "growth_factor": 1.5, "beta_range": [0.1, 4.0],
        "masks": "mr2468", "missing_rates": None, "overlap": 0.5, "training": "passion", "backbone": "mmFormer",
        "growth": [0, 100, 200], **RFNET,
    }  # fmt: skip
    GSS = {  # noqa: RUF012
        "width": 16, "crop": [80] * 3, "spacing": [1.0] * 3, "batch_size": 2, "epochs": 300, "learning_rate": 2e-4,
        "weight_decay": 1e-4, "tau": 8.0, "T_L": 0.65, "T_M": 0.75, "rho": 0.3, "alpha": 0.2, "task_weight": 0.7,
        "kd_weight": 0.3, "backbone": "RFNet", "votes": "paper", "kd": "kl", "rounds": 5, "val_interval": 1500,
        "power": 0.9, "embed_dim": 512, "mlp_dim": 4096, "heads": 8, "kd_scale": "tau_squared", **RFNET,
    }  # fmt: skip
    M3AE = {  # noqa: RUF012
        "width": 16, "crop": [128] * 3, "grid": [240, 240, 155], "spacing": [1.0] * 3, "learning_rate": 3e-4,
        "learning_rate_x_sub": 5e-3, "pretrain_epochs": 600, "epochs": 300, "pretrain_batch_size": 2,
        "mask_ratio": 0.875, "patch_size": 16, "gamma": 0.005, "dice_weight": 0.7, "ce_weight": 0.3, "lambda_con": 0.1,
        "flip_prob": 0.5, "shift": 0.1, "scale": 0.1, "overlap": 0.5, "percentiles": [1, 99], "fill": "x_sub",
        "val_interval": 20, "weight_decay": 1e-4, "batch_size": 1, "pretrained_weights": True,
    }  # fmt: skip
    MAG_MS = {  # noqa: RUF012
        "split": "mag_ms", "width": 16, "hidden": 768, "mlp_dim": 3072, "heads": 12, "spacing": [1.0] * 3,
        "lambda_kl": 1.0, "gamma": 1.0, "temperature": 1.0, "detach_teacher": True, "learning_rate": 1e-4,
        "weight_decay": 1e-5, "power": 0.0, "batch_size": 1, "accumulation_steps": 2,
    }  # fmt: skip
    MEDMAP = {  # noqa: RUF012  (sections IV.A and V.B; sizes and epochs: mmFormer as released)
        "alpha": 0.125, "anchor": "adaptive", "prior": "flair", "feature_encoder": "shared", "align_at": "input",
        "width": 8, "embed_dim": 512, "mlp_dim": 4096, "heads": 8, "crop": [128] * 3, "spacing": [1.0] * 3,
        "batch_size": 1, "epochs": 1000, "learning_rate": 2e-4, "weight_decay": 1e-4, "power": 0.9, **RFNET,
        "backbone": "mmFormer",
    }  # fmt: skip
    OPTIMISERS = {  # noqa: RUF012
        "gss": (torch.optim.Adam, True), "m3ae": (torch.optim.Adam, False), "mag_ms": (torch.optim.AdamW, False),
        "medmap": (torch.optim.Adam, True), "passion": (torch.optim.AdamW, True),
    }  # fmt: skip
    """And whether they use AMSGrad: released code of RFNet (GSS), M3AE, mmFormer (MedMAP), PASSION; MAG-MS: UNETR's."""

    @pytest.mark.parametrize(
        ("name", "recipes", "expected", "parameters"),
        [
            ("passion", "brats2020", {**PASSION, "split": "fixed"}, 35_599_184),
            ("passion", "brats2018", {**PASSION, "split": "fold1"}, 35_599_184),
            ("gss", "brats2020", {**GSS, "split": "fixed"}, 8_984_960),
            ("gss", "brats2018", {**GSS, "split": "fold3"}, 8_984_960),
            ("gss", "brats2023", {**GSS, "split": "imfuse", "backbone": "mmFormer"}, 60_236_680),
            ("m3ae", "brats2023", {**M3AE, "split": "imfuse"}, 4_704_505),
            ("passion", "brats2023", {**PASSION, "split": "imfuse", "masks": None}, 35_599_184),
            ("gss", "brats2021", {**GSS, "split": "fixed"}, 8_984_960),
            ("gss", "brats2015", {**GSS, "split": "robustseg"}, None),  # has a fifth class
            ("m3ae", "brats2018", {**M3AE, "split": "fold3"}, 4_704_505),
            ("m3ae", "brats2020", {**M3AE, "split": "fixed"}, 4_704_505),
            ("m3ae", "brats2018 full_modal_brats2018", {**M3AE, "split": "full"}, 4_704_505),
            ("m3ae", "brats2020 full_modal_brats2020", {**M3AE, "split": "full"}, 4_704_505),
            ("medmap", "brats2018", {**MEDMAP, "split": "fold3"}, None),
            ("medmap", "brats2020", {**MEDMAP, "split": "cv1of3"}, None),
            ("mag_ms", "msd_task01", {**MAG_MS, "crop": [128] * 3}, 366.3e6),
            ("mag_ms", "iseg2017", {**MAG_MS, "crop": [96] * 3}, 184.3e6),
        ],
    )
    def test_paper_constants(self, name, recipes, expected, parameters):
        get = Bundle(name).get("train.json", *(f"recipes/{recipe}.json" for recipe in recipes.split()))
        expected = {**expected, "cohort": recipes.split()[0]}
        assert {key: get(key) for key in expected} == expected
        demo = read(name, "train.json")
        assert {key for key in expected.keys() & demo if expected[key] != demo[key]} <= {*OF_A_DEMO.split()}
        with torch.device("meta"):
            network = get("network_def")
        network = network.unet if name == "m3ae" else network
        if parameters:
            found = sum(parameter.numel() for parameter in network.parameters())
            assert found == (parameters if isinstance(parameters, int) else pytest.approx(parameters, rel=1e-3))

    @pytest.fixture(params=["train", "brats2021", "open_glioma"])
    def recipe(self, request):
        return request.param

    def small(self, name, recipe, coarse_dir, tmp_path):
        settings = {**Bundle(name).tiny, "cohort": "phantom", "split": "$None", "num_workers": 0}
        settings |= {"dataset_dir": coarse_dir, "output_dir": tmp_path, "epochs": 50, "pretrain_epochs": 20}
        settings |= {"batch_size": 4, "pretrain_batch_size": 4, "missing_rates": "$None"}
        settings |= {"power": 0.9} if name == "mag_ms" else {}  # its rate is constant
        return Bundle(name).get("train.json", *[f"recipes/{recipe}.json"] * (recipe != "train"), **settings)

    @each
    def test_laws_of_augmentation(self, name, recipe, coarse_dir, tmp_path):
        get, flips, turns, factors, offsets = self.small(name, recipe, coarse_dir, tmp_path), [], [], [], []
        steps, start = get("train#preprocessing").set_random_state(0), get("train#dataset").first_random
        prepared = steps(load_datalist(coarse_dir / "datalist.json", coarse_dir)["training"][0], end=start)
        prepared["image"][:] = prepared["image"][:1].clone()  # four times one sequence: what differs is drawn
        for _ in range(64):
            item = steps(dict(prepared), start=start)
            item = item[0] if isinstance(item, list) else item
            image, affine = item["image"].as_tensor().flatten(1), item["image"].affine
            assert torch.equal(affine, item["label"].affine)
            assert [*item["image"].shape[1:]] == [*item["label"].shape[1:]] == get("crop")
            flips.append(tuple((affine.diagonal()[:3] < 0).tolist()))
            turns.append(tuple((affine[[1, 0, 0], [2, 2, 1]].abs() > 1e-3).tolist()))
            factors.append(image.std(dim=1)[1:] / image.std(dim=1)[0])
            offsets.append(image.mean(dim=1)[1:] - factors[-1] * image.mean(dim=1)[0])
        assert follow(flips, dict.fromkeys(product((False, True), repeat=3), 1 / 8))
        one_axis = dict.fromkeys([(True, False, False), (False, True, False), (False, False, True)], 1 / 3)
        law = {(False,) * 3: 0.5, (True,) * 3: 0.5} if recipe == "open_glioma" else one_axis
        turned = recipe == "open_glioma" or name not in ("m3ae", "mag_ms")
        assert follow(turns, law) if turned else {*turns} == {(False,) * 3}
        scale, shift = get("scale"), get("shift")
        factors, offsets = torch.stack(factors), torch.stack(offsets).abs()
        assert 1 + scale < factors.max() < (1 + scale) / (1 - scale)  # of one sequence's factor by another's
        assert shift < offsets.max() < 3 * shift
        assert min((factors - 1).abs().min(), offsets.min()) > 1e-5  # each has its own, and always

    @each
    def test_laws_of_order_optimiser_and_rate(self, name, recipe, coarse_dir, tmp_path):
        get = self.small(name, recipe, coarse_dir, tmp_path)
        for stage, epochs in [("pretrainer", "pretrain_epochs")] * (name == "m3ae") + [("train", "epochs")]:
            optimizer, schedule, loader = (get(f"{stage}#{key}") for key in ("optimizer", "lr_scheduler", "dataloader"))
            groups, rates = optimizer.param_groups, []
            found = type(optimizer), optimizer.defaults["amsgrad"]
            assert found == self.OPTIMISERS.get(name, found)
            assert {group["weight_decay"] for group in groups} == {get("weight_decay") if stage == "train" else 0}
            for _ in range(get(epochs) + 1):
                rates.append([group["lr"] for group in groups])
                optimizer.step()
                schedule.step()
            for each_rate, key in zip(zip(*rates, strict=True), ("learning_rate", "learning_rate_x_sub"), strict=False):
                falling = each_rate[each_rate.index(max(each_rate)) :]
                assert (falling[0], falling[-1]) == (get(key), pytest.approx(0))
                assert all(before > after for before, after in pairwise(falling))
            rounds = get("rounds") if name == "gss" else 1
            assert get(f"{stage}#trainer").state.max_epochs == get(epochs) * rounds
            assert len(loader) == (2 if stage == "train" else 1)  # pretraining drops the last two of six cases
            assert len({tuple(loader.sampler) for _ in range(5)}) > 1

    @each
    def test_training_and_evaluation_agree(self, name):
        """A seeded split, for example, is drawn twice, for training and for evaluation, with the same seed."""
        train, evaluate, inference = (read(name, f"{file}.json") for file in ("train", "evaluate", "inference"))
        overrides, recorded = train["evaluation"]["overrides"], train["recorded"]
        for key in ("conventions", "calibrate_on", "split_seed"):
            assert (evaluate[key], overrides[key]) == (train[key], f"@{key}")
        assert recorded.pop("recipe") == "@_recipes_"
        assert recorded.pop("steps") == "@deterministic_transforms"
        assert recorded == {key: f"@{key}" for key in recorded}
        for key in recorded:  # read from the weights
            assert {**evaluate, **inference}[key].startswith(f"$facts.setting_of_weights(@ckpt_path, '{key}', ")
        assert "@split_seed" in train["data"]
        assert "@split_seed" in evaluate["data"]
        shared = {k for k in train.keys() & inference.keys() if k[0] != "_" and not isinstance(inference[k], dict)}
        own = {"imports", "bundle_root", "output_dir", "initialize", "run", "cohort_def", "network"}
        own |= {"memory_format"} & shared  # the window is a number or one per axis in inference
        assert {key for key in shared if key not in recorded and overrides.get(key) != f"@{key}"} == own
        made_by = {"_target_": inference["network_def"].pop("of")}
        assert inference["network_def"].pop("count") == "@ensemble"
        assert train["network_def"] == inference["network_def"] | made_by
