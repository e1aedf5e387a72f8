"""Run MAG-MS and the methods it is compared with through monai.bundle, as users do, at a size that takes seconds."""

import json

import pytest
import torch
from bundles.running import DEMO, MODALITIES, Bundle, copy_subset

BUNDLE = Bundle("mag_ms")
CONFIGS = BUNDLE.folder / "configs"
SIZES = {"spacing": [6, 6, 6], "crop": [32, 32, 32], "width": 4, "hidden": 16, "mlp_dim": 16, "heads": 2}
TINY = {**SIZES, "epochs": 1, "val_interval": 1, "val_subsets": [list(MODALITIES)]}


def read(name):
    return json.loads((CONFIGS / name).read_text())


class TestTraining:
    def test_gradients_are_accumulated_over_as_many_batches_as_asked_for(self, coarse_dir, tmp_path):
        settings = {**TINY, "val_interval": 2, "dataset_dir": coarse_dir, "output_dir": tmp_path}
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

    def test_filled_ones_differ_in_what_they_fill_in_alone(self):
        zero, mean = read("baselines/unetr_zero.json"), read("baselines/unetr_mean.json")
        assert {key for key in zero if zero[key] != mean[key]} == {"_desc_", "method", "output_dir", "fill"}


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
