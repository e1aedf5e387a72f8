"""Recipes that name a cohort: they set alike what training and inference have in common."""

import json
from pathlib import Path

import pytest

BUNDLES = Path(__file__).parents[2] / "bundles"
RECIPES = sorted(path for path in BUNDLES.glob("*/configs/recipes/*.json") if "cohort" in json.loads(path.read_text()))
OWN = {"imports", "bundle_root", "output_dir", "initialize", "run", "network", "amp"}
"""Keys of both configs whose values may differ."""


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_inference_by_a_recipe_is_for_what_was_trained_by_it(path):
    recipe = json.loads(path.read_text())
    train, inference = (json.loads((path.parents[1] / f"{name}.json").read_text()) for name in ("train", "inference"))
    simple = {key for key, value in inference.items() if not isinstance(value, dict)} & train.keys() - OWN
    assert {"cohort", "spacing", "crop", "width", "overlap"} <= simple
    differing = {key for key in simple if recipe.get(key, train[key]) != recipe.get(key, inference[key])}
    assert not differing


def test_every_bundle_has_the_recipes_of_its_weights():
    found = {(path.parts[-4], path.stem) for path in RECIPES}
    bundles = {path.parts[-3] for path in BUNDLES.glob("*/configs/inference.json")}
    assert found >= {(bundle, name) for bundle in bundles for name in ("open_glioma", "phantom")}
