"""Recipes that name a cohort set the same values for training and inference where both have the key."""

import json
from ast import literal_eval
from pathlib import Path
from typing import Any

import pytest
from monai.bundle import ConfigParser

from common.io import load_weights, shipped_weights

BUNDLES = Path(__file__).parents[2] / "bundles"
RECIPES = sorted(
    path for path in BUNDLES.glob("*/configs/recipes/*.json") if json.loads(path.read_text()).get("cohort")
)
TUNED = ("open_glioma", "fine_tune")
BUNDLE_NAMES = sorted({path.parts[-3] for path in BUNDLES.glob("*/configs/inference.json")})
OWN = {"imports", "bundle_root", "output_dir", "initialize", "run", "network", "decision"}
"""Keys of both configs whose values may differ."""


def defaults(config: Path) -> dict[str, Any]:
    """Return an inference.json with what it sets for weights that do not say how they were trained."""
    values = json.loads(config.read_text())
    settings = {key: str(value).rpartition(f"@ckpt_path, {key!r}, ") for key, value in values.items()}
    return values | {key: literal_eval(end[:-1]) for key, (start, _, end) in settings.items() if start}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_inference_by_a_recipe_is_for_what_was_trained_by_it(path):
    recipe = json.loads(path.read_text())
    train = json.loads((path.parents[1] / "train.json").read_text())
    inference = defaults(path.parents[1] / "inference.json")
    simple = {key for key, value in inference.items() if not isinstance(value, dict)} & train.keys() - OWN
    assert {"cohort", "spacing", "crop", "width", "overlap"} <= simple
    differing = {key for key in simple if recipe.get(key, train[key]) != recipe.get(key, inference[key])}
    assert not differing


@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
@pytest.mark.parametrize(("name", "recipe"), [("model.pt", "open_glioma"), ("phantom.pt", "phantom")])
def test_shipped_weights_fit_what_they_are_for(bundle, name, recipe):
    configs, parser = BUNDLES / bundle / "configs", ConfigParser()
    files = [configs / "inference.json", *([configs / "recipes" / "phantom.json"] if recipe == "phantom" else [])]
    parser.read_config(files)
    trained_by = json.loads((configs / "recipes" / f"{recipe}.json").read_text())
    later = configs / "recipes" / f"{recipe}_weights.json"  # given after it in the last trainings
    trained_by |= json.loads(later.read_text()) if later.is_file() else {}
    shared = parser.get().keys() & trained_by.keys() - {*OWN, "_desc_", "dataset_dir", "precision", "ckpt_path"}
    assert {"cohort", "spacing", "crop", "overlap", "blend"} <= shared
    assert {key: parser.get_parsed_content(key) for key in shared} == {key: trained_by[key] for key in shared}
    weights = BUNDLES / bundle / "models" / name
    assert shipped_weights(weights, BUNDLES / bundle)
    load_weights(parser.get_parsed_content("network_def"), weights)


@pytest.mark.parametrize("bundle", BUNDLE_NAMES)
def test_fine_tuning_starts_from_the_weights(bundle):
    configs, parser = BUNDLES / bundle / "configs", ConfigParser()
    parser.read_config([configs / "train.json", *(configs / "recipes" / f"{name}.json" for name in TUNED)])
    parser.update({"bundle_root": str(BUNDLES / bundle), "cohort": "brats2023"})
    load_weights(parser.get_parsed_content("network_def"), parser.get_parsed_content("init_from"))
    inference = defaults(configs / "inference.json")
    assert {key: parser[key] for key in ("crop", "spacing")} == {key: inference[key] for key in ("crop", "spacing")}
