"""A training that is killed and resumed ends like an uninterrupted one, including discriminators, mixtures and
teachers."""

import pytest
import torch
from bundles.running import MODALITIES, Bundle

M3AE, MEDMAP, MAG_MS, PASSION = map(Bundle, ("m3ae", "medmap", "mag_ms", "passion"))
TINY = {"spacing": [6, 6, 6], "crop": [16, 16, 16], "epochs": 3, "val_interval": 3, "batch_size": 3, "evaluate": []}
MAG_MS_SIZES = {"crop": [32, 32, 32], "width": 4, "hidden": 16, "mlp_dim": 16, "heads": 2, "accumulation_steps": 2}
TINY |= {"val_subsets": [list(MODALITIES)]}
M3AE_SIZES = {"grid": [40, 40, 26], "crop": [32, 32, 24], "patch_size": 8, "pretrain_epochs": 3, "val_interval": 2}
RFNET = {"backbone": "RFNet", "width": 4, "missing_rates": [0.3, 0.3, 0.5, 0.5]}


def tensors(value, name=""):
    """Yield every tensor in nested dicts and lists with its path."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from tensors(part, f"{name}/{key}")


@pytest.mark.parametrize(
    ("bundle", "configs", "settings", "stage"),
    [
        (MAG_MS, ["train.json"], MAG_MS_SIZES, "training"),
        (MEDMAP, ["train.json", "backbones/acn.json"], {"width": 8}, "training"),
        (MEDMAP, ["train.json", "backbones/pmkl.json"], {"width": 2, "teacher_epochs": 3}, "teacher"),
        (PASSION, ["train.json"], RFNET, "training"),
        (M3AE, ["train.json"], M3AE_SIZES, "pretraining"),
        (M3AE, ["train.json"], M3AE_SIZES, "fine-tuning"),
    ],
    ids=["MAG-MS", "ACN", "PMKL", "PASSION", "M3AE, pretraining", "M3AE, fine-tuning"],
)
@pytest.mark.slow  # three trainings, one of them killed
def test_killed_run_resumes_to_the_same_end(coarse_dir, tmp_path, bundle, configs, settings, stage):
    settings = {**TINY, **settings, "dataset_dir": coarse_dir}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    bundle.run_here(configs, **settings, output_dir=whole)
    bundle.kill_in_epoch_two(configs, {**settings, "output_dir": broken}, stage)
    bundle.run_here(configs, **settings, output_dir=broken, resume=True)
    last = "finetuned_last.pt" if bundle is M3AE else "trained_last.pt"
    ends = [torch.load(folder / last, weights_only=True) for folder in (whole, broken)]
    assert [ends[0][key] for key in ("trainer", "best")] == [ends[1][key] for key in ("trainer", "best")]
    first, second = (dict(tensors(end)) for end in ends)
    assert first.keys() == second.keys()
    assert not [name for name in first if not torch.equal(first[name], second[name])]
    if bundle is PASSION:
        assert not torch.equal(first["/loss/beta"], torch.ones(4))
        assert (whole / "preference.csv").read_text() == (broken / "preference.csv").read_text()
