"""The cases that scripts of docs/open_glioma make of others, on phantoms and toys, and the fields of the recipe."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.transforms import RandBiasField
from scipy.ndimage import distance_transform_edt

from common.cohorts import prepare
from common.io.images import read_volume

sys.path[:0] = ["docs/open_glioma/long_run", "docs/open_glioma/members"]


@pytest.mark.slow  # planes of symmetry are fitted
def test_brains_without_a_tumour_and_with_that_of_another(phantom_dir, tmp_path):
    from pasted import Brain, write_pasted

    items = prepare("phantom", str(phantom_dir), None, None, 0)["training"][:4]
    made = json.loads(write_pasted(items, str(tmp_path), each=1).read_text())["training"]
    named = {item["case"]: item for item in made}
    healthy = {name: item for name, item in named.items() if name.startswith("healthy_")}
    pasted = {name: item for name, item in named.items() if "_in_" in name}
    assert healthy
    assert pasted
    assert sum(item["weight"] for item in made) == pytest.approx(1)
    assert sum(item["weight"] for item in healthy.values()) == pytest.approx(0.04)

    def voxels(item, what="label") -> np.ndarray:
        path = item[what] if what == "label" else item["image"][item["modalities"].index(what)]
        return read_volume(tmp_path / path).numpy()

    assert not any(voxels(item).any() for item in healthy.values())
    for name, item in pasted.items():
        donor, host = name.split("_in_")
        label, flair = voxels(item), voxels(item, "flair")
        tumour = Brain.read(named[donor]).label > 0
        assert 0.95 * tumour.sum() < (label > 0).sum() <= tumour.sum()
        empty = voxels(healthy[f"healthy_{host}"], "flair")
        assert np.abs(flair - empty)[label > 0].mean() > 10 * np.abs(flair - empty)[label == 0].mean()


def test_white_matter_changes_lie_along_both_ventricles_in_flair_and_t2():
    from data import Brain, aged

    x, y, z = np.mgrid[-70:70, -85:85, -60:60].astype(float)
    brain = (x / 66) ** 2 + (y / 80) ** 2 + (z / 56) ** 2 < 1
    fluid = ((np.abs(x) - 14) / 7) ** 2 + (y / 26) ** 2 + (z / 9) ** 2 < 1
    rng = np.random.RandomState(0)
    tissue = np.where(brain, rng.uniform(90, 110, brain.shape), 0)
    images = [tissue, tissue, np.where(fluid, 300, tissue), np.where(fluid, 20, tissue)]
    young = Brain("toy", ["t1", "t1c", "t2", "flair"], np.stack(images).astype(np.float32), np.zeros(brain.shape))
    old = aged(young, rng)
    change = old.images - young.images
    assert not change[:2].any()
    assert not old.label.any()
    for each in change[2:]:
        assert each.min() >= 0
        assert not each[fluid].any()
        bright = each > 10
        assert 2000 < bright[x > 0].sum() < 2 * bright[x < 0].sum() < 4 * bright[x > 0].sum()
        assert distance_transform_edt(~fluid)[bright].max() < 45
        assert np.median(distance_transform_edt(~fluid)[bright]) < 8
    assert aged(Brain("none", young.files, young.images[[0, 1, 0, 1]], young.label), rng) is None


def test_fields_of_the_recipe_are_those_of_a_coil():
    """In a window of a whole brain, the brightest voxel of one field in twenty has 1.4 times the median or more."""
    recipe = json.loads(Path("bundles/m3ae/configs/recipes/whole_brain.json").read_text())
    assert recipe["receive_field"]["transform"]["degree"] == 2
    field = RandBiasField(2, (-recipe["field"], recipe["field"]), prob=1).set_random_state(0)
    made = [np.asarray(field(torch.ones(1, *(size // 4 for size in recipe["crop"])))) for _ in range(2000)]
    ratio = np.percentile([each.max() / np.median(each) for each in made], 95)
    print(f"95th percentile of the largest over the median of a field: {ratio:.3f}")
    assert ratio == pytest.approx(1.4, abs=0.03)
