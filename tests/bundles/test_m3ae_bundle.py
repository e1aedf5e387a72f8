"""The bundle through monai.bundle, as its users run it, at a size that takes seconds."""

import json
import os
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
import torch
from bundles.running import DEMO, DEMO_EVALUATION, MODALITIES, Bundle, copy_subset
from evaluation.examples import ALWAYS

from common.cohorts.datalist import load_datalist, write_datalist
from common.modalities import subset_name, subsets
from mmb.experiments.evaluations import read_evaluation

M3AE = Bundle("m3ae")
BUNDLE = M3AE.folder
ONE = {"evaluation#overrides#subsets": [list(MODALITIES)]}
"""Settings for an evaluation of one subset, which is quicker."""


@pytest.fixture(scope="module")
def trained(coarse_dir, tmp_path_factory):
    """Return the output folder of a whole run: pretraining, fine-tuning and evaluation."""
    folder = tmp_path_factory.mktemp("trained")
    before = {path: path.stat().st_mtime_ns for path in (BUNDLE / "models").iterdir()}
    said = M3AE.succeed(["train.json"], {**M3AE.tiny, "dataset_dir": coarse_dir, "output_dir": folder})
    (folder / "said.txt").write_text(said)
    assert {path: path.stat().st_mtime_ns for path in (BUNDLE / "models").iterdir()} == before
    return folder


class TestTraining:
    def test_run_leaves_weights_tables_and_pictures(self, trained):
        for name in ("pretrained.pt", "finetuned.pt", "finetuned_last.pt", "pretrained_last.pt"):
            assert torch.load(trained / name, weights_only=True)
        for name in ("evaluation/figures/heatmap.png", "evaluation/report.md"):
            assert (trained / name).stat().st_size > 5000
        results = pd.read_csv(trained / "evaluation" / "results.csv")
        assert list(results.columns) == ["case", "modalities", "region", "metric", "value"]
        assert len(results) == 2 * 15 * 3 * len(ALWAYS)
        assert len(read_evaluation(trained / "evaluation" / "expected_dice").results) == len(results)
        assert set(results["modalities"]) == {subset_name(s) for s in subsets(MODALITIES)}
        assert results.loc[results["metric"] == "dice", "value"].between(0, 1).all()
        assert set(pd.read_csv(trained / "evaluation" / "calibration.csv")["case"]) == {"Phantom_007"}
        facts = read_evaluation(trained / "evaluation").facts
        weights = torch.load(trained / "finetuned.pt", weights_only=True)
        assert facts["substitute_values"] == weights.pop("x_sub").numel() == 4 * 40 * 40 * 26
        assert facts["parameters"] == sum(value.numel() for value in weights.values())
        assert 100 < facts["memory_mb"] < 4000
        assert 0 < facts["seconds"] < 10
        said = (trained / "said.txt").read_text().splitlines()
        assert said[-1].endswith("evaluation/report.md")
        assert any("mean of 15 subsets" in line for line in said)

    def test_pretraining_reaches_the_fine_tuned_network(self, trained):
        pretrained = torch.load(trained / "pretrained.pt", weights_only=True)
        finetuned = torch.load(trained / "finetuned.pt", weights_only=True)
        assert torch.equal(pretrained["x_sub"], finetuned["x_sub"])

    def test_stages_run_alone(self, coarse_dir, tmp_path):
        settings = {**M3AE.tiny, "dataset_dir": coarse_dir, "output_dir": tmp_path}
        assert "pretrained.pt: no pretraining. Run `pretrain`" in M3AE.complaint(["train.json"], "finetune", **settings)
        M3AE.run_here(["train.json"], "pretrain", **settings)
        assert not (tmp_path / "finetuned.pt").exists()
        M3AE.run_here(["train.json"], "finetune", **settings)
        assert (tmp_path / "finetuned.pt").exists()
        assert not (tmp_path / "evaluation").exists()


class TestRecipes:
    def test_full_modal_recipe_writes_label_maps_for_a_server(self, coarse_dir, tmp_path):
        datalist = load_datalist(coarse_dir / "datalist.json", coarse_dir)
        online = tmp_path / "online" / "Case_1"
        online.mkdir(parents=True)
        for path in datalist["test"][0]["image"]:
            os.symlink(path, online / Path(path).name)
        settings = {**M3AE.tiny, "dataset_dir": coarse_dir, "output_dir": tmp_path / "out", "online_dir": online.parent}
        settings |= {"width": 8, "pretrain_batch_size": 2, "num_workers": 0}
        M3AE.run_here(["train.json", "recipes/brats2020.json", "recipes/full_modal_brats2020.json"], **settings)
        (written,) = (tmp_path / "out" / "evaluation").rglob("*.nii.gz")
        assert written.name == "Case_1.nii.gz"
        state = torch.load(tmp_path / "out" / "finetuned_last.pt", weights_only=True)
        assert state["trainer"]["iteration"] == 9  # all labelled cases train

    def test_a_variant_of_table_3_fills_with_the_mean_image(self, coarse_dir, tmp_path, undrawn):
        """It is evaluated on validation cases."""
        settings = {**M3AE.tiny, **ONE, "fill": "mean", "lambda_con": 0, "evaluate_on": "validation"}
        M3AE.run_here(["train.json"], **settings, calibrate_on=[], dataset_dir=coarse_dir, output_dir=tmp_path)
        validation = load_datalist(coarse_dir / "datalist.json", coarse_dir)["validation"]
        results = pd.read_csv(tmp_path / "evaluation" / "results.csv")
        assert set(results["case"]) == {item["case"] for item in validation}
        mean = torch.load(tmp_path / "finetuned.pt", weights_only=True)["x_sub"]
        assert 0 == mean.min() < mean.max() <= 1  # an average of scaled images, not noise

    def test_a_baseline_without_pretraining_is_filled_with_zeros(self, coarse_dir, tmp_path, undrawn):
        settings = {**M3AE.tiny, **ONE, "dataset_dir": coarse_dir, "output_dir": tmp_path}
        M3AE.run_here(["train.json", "baselines/moddrop.json"], **settings)
        assert torch.load(tmp_path / "finetuned.pt", weights_only=True)["x_sub"].abs().max() == 0
        assert (tmp_path / "evaluation" / "tables" / "dice.md").is_file()

    def test_whole_brain_recipe_trains_in_four_stages_and_its_rate_ends_at_0(self, coarse_dir, tmp_path):
        names = ("open_glioma", "augmented", "whole_brain")
        files = ["train.json", "baselines/moddrop.json", *(f"recipes/{name}.json" for name in names)]
        sizes = [8, 8, 8], [8, 16, 8], [16, 16, 16], [24, 24, 24]
        settings = {"cohort": "phantom", "split": None, "dataset_dir": coarse_dir, "output_dir": tmp_path, "width": 8}
        settings |= {"spacing": [6, 6, 6], "grid": [40, 40, 26], "crop": [24, 24, 24], "overlap": 0, "draws": 2}
        settings |= {"stage_epochs": [1] * 4, "stage_spacings": [12, 9, 6, 6], "stage_crops": [*sizes]}
        settings |= {"stage_around": [[16] * 3] * 3 + [[24] * 3], "precision": "float32"}
        settings |= {"val_interval": 4, "val_subsets": [["t1c"]], "num_workers": 0}
        M3AE.run_here(files, "fit", **settings)
        state = torch.load(tmp_path / "finetuned_last.pt", weights_only=True)  # as it is read to resume
        assert (state["trainer"]["iteration"], state["trainer"]["epoch_length"]) == (4, 1)
        assert state["lr_scheduler"]["last_epoch"] == 4
        assert state["lr_scheduler"]["_last_lr"] == [pytest.approx(0)]
        average = torch.load(tmp_path / "finetuned.pt", weights_only=True)
        assert any(not torch.equal(value, state["network"][key]) for key, value in average.items())
        get = M3AE.get(*files, **settings)
        network, dataset = get("network"), get("train#dataset")
        deep = network.unet(torch.zeros(1, 4, 16, 16, 16)).deep
        assert [list(logits.shape[2:]) for logits in deep] == [[4] * 3, [8] * 3]
        for dataset.epoch, size in enumerate(sizes):
            (item,) = dataset[0]
            assert (list(item["image"].shape), list(item["label"].shape)) == ([4, *size], [3, *size])


class TestInference:
    def test_modalities_leaves_out_others_that_are_there(self, case, tmp_path):
        few = copy_subset(case, ("t1c", "flair"), tmp_path / "few" / case["case"])
        full = copy_subset(case, MODALITIES, tmp_path / "full" / case["case"])
        one, other = tmp_path / "one", tmp_path / "other"
        M3AE.run_here(DEMO, dataset_dir=few, output_dir=one)
        names = "['FLAIR','t1ce']"
        M3AE.succeed(DEMO, {"dataset_dir": full, "output_dir": other, "modalities": names})  # as typed
        masks = [nib.load(next(folder.rglob("*_seg.nii.gz"))).get_fdata() for folder in (one, other)]
        assert np.array_equal(*masks)

    def test_other_grid_and_orientation_come_back_as_they_were(self, case, tmp_path):
        folder = tmp_path / case["case"]
        folder.mkdir()
        for path in case["image"]:
            turned = nib.load(path).as_reoriented([[1, 1], [0, -1], [2, 1]]).slicer[3:, :, 2:]
            nib.save(turned, folder / Path(path).name)
        M3AE.run_here(DEMO, dataset_dir=folder, output_dir=tmp_path / "out")
        M3AE.run_here(DEMO, dataset_dir=Path(case["image"][0]).parent, output_dir=tmp_path / "ref")
        written = nib.load(next((tmp_path / "out").rglob("*_seg.nii.gz")))
        assert written.shape == turned.shape
        assert np.allclose(written.affine, turned.affine)
        reference = nib.load(next((tmp_path / "ref").rglob("*_seg.nii.gz")))
        expected = reference.as_reoriented([[1, 1], [0, -1], [2, 1]]).slicer[3:, :, 2:].get_fdata()
        found = written.get_fdata()
        assert 2 * ((found > 0) & (expected > 0)).sum() / ((found > 0).sum() + (expected > 0).sum()) > 0.95

    @pytest.mark.parametrize(
        ("overrides", "message"),
        [
            ({"modalities": ["t1x"]}, "Unknown modality 't1x'; expected one of"),
            ({"width": 16}, "a checkpoint of another architecture than M3AE"),
        ],
    )
    def test_wrong_settings_are_named(self, case, tmp_path, overrides, message):
        settings = {"dataset_dir": Path(case["image"][0]).parent, "output_dir": tmp_path / "out", **overrides}
        assert message in M3AE.complaint(DEMO, **settings)
        assert not list(tmp_path.rglob("*.nii.gz"))

    def test_an_option_that_no_config_has_is_refused(self, tmp_path):
        code, said = M3AE.run(DEMO, {"modality": "['t1c']", "output_dir": tmp_path})
        assert code == 1
        assert "'modality' is not a key of" in said

    def test_damaged_input_leaves_no_partial_output(self, case, tmp_path):
        folder = copy_subset(case, ("t1", "t2"), tmp_path / "in")
        damaged = folder / "x_flair.nii.gz"
        damaged.write_bytes(Path(case["image"][3]).read_bytes()[:5000])
        said = M3AE.complaint(DEMO, dataset_dir=folder, output_dir=tmp_path / "out")
        assert f"{damaged}: cannot be read as an image" in said
        assert not list((tmp_path / "out").rglob("*"))


class TestEvaluation:
    def test_only_subsets_of_the_requested_modalities(self, coarse_case, coarse_dir, tmp_path, undrawn):
        write_datalist({"test": [coarse_case]}, tmp_path / "one.json")
        settings = {"dataset_dir": coarse_dir, "datalist": tmp_path / "one.json", "output_dir": tmp_path}
        M3AE.run_here(DEMO_EVALUATION, **settings, modalities=["t1c", "t2"], precision="float32")
        evaluation = read_evaluation(tmp_path)
        assert evaluation.subsets == ["t1c", "t2", "t1c+t2"]
        assert evaluation.facts["precision"] == "float32"

    def test_one_subset_alone(self, coarse_case, coarse_dir, tmp_path, undrawn):
        """Calibration cases are evaluated too."""
        write_datalist({"test": [coarse_case], "validation": [{**coarse_case, "case": "other"}]}, tmp_path / "two.json")
        settings = {"dataset_dir": coarse_dir, "datalist": tmp_path / "two.json", "output_dir": tmp_path / "out"}
        M3AE.run_here(DEMO_EVALUATION, **settings, subsets=[list(MODALITIES)])
        assert (tmp_path / "out" / "report.md").is_file()
        assert (tmp_path / "out" / "calibration.csv").is_file()

    @pytest.mark.slow
    def test_a_plain_folder_of_cases_is_evaluated_as_a_whole(self, case, phantom_dir, tmp_path):
        """There is no datalist and nothing to calibrate on. Null is given as on a command line."""
        for name in ("one", "two"):
            copied = copy_subset(case, MODALITIES, tmp_path / "in" / name)
            (copied / "x_seg.nii.gz").symlink_to(case["label"])
        settings = {"split": "all_test", "calibrate_on": "null", "subsets": [["t1c"], ["t1c", "flair"]]}
        settings |= {"dataset_dir": tmp_path / "in", "output_dir": tmp_path / "out"}
        M3AE.succeed(DEMO_EVALUATION, settings)
        results = read_evaluation(tmp_path / "out")
        assert set(results.results["case"]) == {"one", "two"}
        assert results.calibration.empty
        assert (tmp_path / "out" / "report.md").is_file()

    def test_another_network_is_evaluated_anew(self, coarse_case, coarse_dir, tmp_path, undrawn):
        """Stored results are reused only if the network is the same, not merely its weights."""
        write_datalist({"test": [coarse_case]}, tmp_path / "one.json")
        settings = {"dataset_dir": coarse_dir, "datalist": tmp_path / "one.json", "output_dir": tmp_path / "out"}
        for heads in (4, 2, 4):
            Bundle("passion").run_here(DEMO_EVALUATION, **settings, subsets=[["t1c"]], heads=heads)
        assert len(list((tmp_path / "out" / "cases").glob("*.csv"))) == 2

    def test_calibration_on_the_cases_of_the_evaluation_is_refused(self, phantom_dir, tmp_path):
        settings = {"dataset_dir": phantom_dir, "output_dir": tmp_path / "out", "calibrate_on": "test"}
        assert "calibrate on other cases than those evaluated" in M3AE.complaint(DEMO_EVALUATION, **settings)
        assert not list((tmp_path / "out").glob("cases/*"))


@pytest.mark.slow  # a training and two evaluations
def test_fine_tuning_on_three_cases_segments_them_better(coarse_dir, tmp_path, undrawn):
    three = json.loads((coarse_dir / "datalist.json").read_text())["training"][:3]
    write_datalist({"training": three[:2], "validation": three[2:]}, tmp_path / "three.json")
    write_datalist({"test": three}, tmp_path / "same.json")
    tuned = ["train.json", "recipes/open_glioma.json", "recipes/fine_tune.json"]
    shared = {"spacing": [6, 6, 6], "crop": [40, 48, 40], "cohort": "phantom", "dataset_dir": coarse_dir}
    settings = {**shared, "datalist": tmp_path / "three.json", "output_dir": tmp_path / "tuned"}
    M3AE.succeed(tuned, settings, run_id="fit")
    dice, before = [], tmp_path / "before.pt"  # it does not say at which voxel size it was trained
    torch.save(torch.load(BUNDLE / "models" / "single.pt", weights_only=True), before)
    for weights in (before, tmp_path / "tuned" / "finetuned.pt"):
        settings = {**shared, "datalist": tmp_path / "same.json", "output_dir": tmp_path / weights.stem}
        settings |= {"ckpt_path": weights, "trained_cases": "mark", "calibrate_on": [], "decision": "threshold"}
        M3AE.run_here(["inference.json", "evaluate.json"], **settings, subsets=[list(MODALITIES)])
        dice.append(read_evaluation(tmp_path / weights.stem).values("dice").to_numpy().mean())
    assert dice[1] > dice[0] + 0.05
