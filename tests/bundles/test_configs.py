"""Configs: made of bundles/base and each paper.json, metadata that MONAI's checks pass, and recipes."""

import ast
import builtins
import json
import re
import shutil
import tomllib
from pathlib import Path
from typing import Any

import pytest
from bundles.running import shipped
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from packaging.requirements import Requirement
from packaging.version import Version

from common.cohorts import get_cohort
from common.io.checkpoints import load_weights
from common.io.weights import shipped_weights
from common.run.keys import REFERENCE
from mmb.experiments.evaluations import read_evaluation
from tools.configs import README, configs, merged, readme
from tools.ship import default_weights, dice_by_subset, eval_metrics

BUNDLES = Path(__file__).parents[2] / "bundles"
PAPERS = sorted(BUNDLES.glob("*/paper.json"))
MOST_LINES, MOST_KEYS = 330, 60


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.parent.name)
def test_no_config_is_stale(paper):
    made = dict(configs(paper.parent))
    assert [path for path, text in made.items() if path.read_text() != text] == []  # else: make configs
    marked = [path for path in paper.parent.glob("configs/**/*.json") if "_made_by_" in json.loads(path.read_text())]
    others = {paper.parent / name for name in ("LICENSE", "configs/logging.conf", "configs/metadata.json")}
    assert {*marked} | others == made.keys()
    assert readme() == README.read_text()


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.parent.name)
def test_a_paper_is_a_page(paper):
    assert len(paper.read_text().splitlines()) <= MOST_LINES
    assert max(map(len, json.loads(paper.read_text()).values())) <= MOST_KEYS


def test_merging_is_that_of_monai():
    base = {"a": {"b": 1, "c": 2}, "d": [1], "e": 3}
    own = {"new": 0, "a#b": 4, "+d": [2], "e": {"f": 5}, "x#y": 6, "+z": [7]}
    config = merged(base, own)
    assert config == {"new": 0, "a": {"b": 4, "c": 2}, "d": [1, 2], "e": {"f": 5}, "x#y": 6, "+z": [7]}
    assert next(iter(config)) == "new"


ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).with_name("meta_schema.json")
METADATA = sorted(ROOT.glob("bundles/*/configs/metadata.json"))

each_bundle = pytest.mark.parametrize("meta_file", METADATA, ids=lambda path: path.parts[-3])
SHIPPED = [path for path in METADATA if path.parts[-3] in shipped()]
each_shipped = pytest.mark.parametrize("meta_file", SHIPPED, ids=lambda path: path.parts[-3])


@pytest.mark.parametrize("path", sorted(ROOT.glob("bundles/*/configs/**/*.json")), ids=str)
def test_what_a_config_calls_is_imported(path):
    """By itself, or by the ``train.json`` or ``inference.json`` that it is laid over."""
    root = path.parents[len(path.relative_to(ROOT).parts) - 4]
    imports = " ".join(each.read_text() for each in (path, root / "train.json", root / "inference.json"))
    for expression in re.findall(r'"\$([^"]*)"', path.read_text()):
        nodes = [*ast.walk(ast.parse(re.sub(r"@[\w#]+", "(0)", expression)))]
        names = [node for node in nodes if isinstance(node, ast.Name)]
        bound = {each.arg for each in nodes if isinstance(each, ast.arg)} | {*dir(builtins), "torch", "monai"}
        bound |= {each.id for each in names if isinstance(each.ctx, ast.Store)}
        for name in {each.id for each in names} - bound:
            assert re.search(rf"(import|as) {name}\b", imports), expression


@pytest.mark.parametrize("path", sorted(ROOT.glob("bundles/*/configs/train.json")), ids=lambda path: path.parts[-3])
def test_every_key_of_a_training_is_referred_to(path):
    """One whose place a number has taken would be accepted, and do nothing."""
    used = {name.split("#")[0] for name in REFERENCE.findall(path.read_text())}
    used |= {"imports", "initialize", "training", "run", "finalize", "tracking_uri"}  # by MONAI, or run by their names
    config = json.loads(path.read_text())
    assert {key for key in config.keys() - used if key[0] != "_" and not isinstance(config[key], dict)} == set()


def network_def(config_file):
    parser = ConfigParser()
    parser.read_config(str(config_file))
    return parser.get_parsed_content("network_def"), parser.get_parsed_content("cohort")


@each_bundle
def test_metadata_passes_the_schema(meta_file, tmp_path):
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")  # which MONAI would download
    verify_metadata(meta_file=str(meta_file), filepath=schema)


MODULES = {"pytorch-ignite": "ignite", "itk-io": "itk", "scikit-learn": "sklearn", "pillow": "PIL"}


@each_bundle
def test_required_packages_are_those_that_common_imports_from_the_lowest_version_that_the_project_allows(meta_file):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {requirement.name: requirement.specifier for requirement in map(Requirement, project["dependencies"])}
    sources = "\n".join(path.read_text() for path in ROOT.glob("common/**/*.py"))
    imported = {*re.findall(r"^\s*(?:from|import) (\w+)", sources, re.MULTILINE)}
    needed = {name for name in wanted if MODULES.get(name, name) in imported}
    meta = json.loads(meta_file.read_text())
    of_monai = {"torch", "monai", "numpy", "einops", "fire"}  # einops: within MONAI's UNETR; fire: its command line
    assert meta["required_packages_version"].keys() | of_monai == needed | of_monai
    for name, version in meta["required_packages_version"].items():
        assert [Version(one.version) for one in wanted[name] if one.operator == ">="] == [Version(version)], name


@each_bundle
def test_channels_are_those_of_the_cohort(meta_file):
    cohort = get_cohort(network_def(meta_file.with_name("inference.json"))[1])
    formats = json.loads(meta_file.read_text())["network_data_format"]
    image, pred = formats["inputs"]["image"], formats["outputs"]["pred"]
    label = formats["post_processed_outputs"]["pred"]
    first_words = [[text.split()[0].strip(":,") for text in entry["channel_def"].values()] for entry in (image, pred)]
    assert [name.lower() for name in first_words[0]] == list(cohort.modalities)
    assert first_words[1] in (list(cohort.labels.regions), ["background", *cohort.labels.targets])
    assert all(f"{value} {name}" in label["channel_def"]["0"] for name, value in cohort.labels.values.items())
    assert label["value_range"] == [0, max(cohort.labels.values.values())]


@each_bundle
def test_network_takes_and_returns_what_the_metadata_says(meta_file):
    config = meta_file.with_name("inference.json")
    verify_net_in_out("network_def", meta_file=str(meta_file), config_file=str(config), device="cpu", n=1)


@each_shipped
@pytest.mark.parametrize(
    ("files", "kind"),
    [
        (["train.json"], "train"),
        (["inference.json"], "infer"),
        (["evaluate.json"], "infer"),
        (["train.json", "evaluate.json"], "infer"),
    ],
    ids=["train", "inference", "evaluate", "evaluation of a training, as the zoo shows it"],
)
def test_configs_have_the_properties_that_monai_expects(meta_file, files, kind, coarse_dir, tmp_path):
    configs = [str(meta_file.with_name(name)) for name in files]
    overrides = {"dataset_dir": str(coarse_dir), "output_dir": str(tmp_path / "out")}
    workflow = ConfigWorkflow(configs, workflow_type=kind, logging_file=False, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.finalize()


@each_shipped
def test_metrics_are_those_of_the_published_results_of_these_weights(meta_file):
    meta = json.loads(meta_file.read_text())
    decision = json.loads(meta_file.with_name("inference.json").read_text())["decision"]
    folders = ROOT.glob("docs/open_glioma/results/*" + ("" if decision == "threshold" else f"/{decision}"))
    results = map(read_evaluation, sorted(folders))
    weights = default_weights(meta_file.parents[1]).name
    (own,) = [found for found in results if found.facts["weights"] == meta["weights"][weights]["sha256"]]
    assert meta["eval_metrics"] == eval_metrics(own)
    assert meta["test_results"] == dice_by_subset(own)


@each_shipped
def test_inference_says_what_its_weights_were_trained_on(meta_file, tmp_path, caplog):
    config = str(meta_file.with_name("inference.json"))
    ConfigWorkflow(
        config,
        workflow_type="infer",
        logging_file=False,
        output_dir=str(tmp_path),
        dataset_dir=str(tmp_path),
        _first_=[],
    ).initialize()
    weights = default_weights(meta_file.parents[1]).name
    said = json.loads(meta_file.read_text())["weights"][weights]["data_source"]
    assert f"models/{weights}: trained on: {said}. " in caplog.text


RECIPES = sorted(p for p in BUNDLES.glob("*/configs/recipes/*.json") if json.loads(p.read_text()).get("cohort"))
TUNED = ("open_glioma", "fine_tune")
OWN = {
    "_first_",
    "_allowed_",
    "imports",
    "bundle_root",
    "output_dir",
    "initialize",
    "run",
    "network",
    "memory_format",
    "decision",
}
"""Keys of both configs whose values may differ."""


def defaults(config: Path) -> dict[str, Any]:
    """Return an inference.json with what it sets for weights that do not say how they were trained."""
    values = json.loads(config.read_text())
    settings = {key: str(value).rpartition(f"@ckpt_path, {key!r}, ") for key, value in values.items()}
    return values | {key: ast.literal_eval(end[:-1]) for key, (start, _, end) in settings.items() if start}


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: f"{path.parts[-4]}-{path.stem}")
def test_inference_by_a_recipe_is_for_what_was_trained_by_it(path):
    recipe = json.loads(path.read_text())
    train = json.loads((path.parents[1] / "train.json").read_text())
    inference = defaults(path.parents[1] / "inference.json")
    simple = {key for key, value in inference.items() if not isinstance(value, dict)} & train.keys() - OWN
    assert {"cohort", "spacing", "crop", "width", "overlap"} <= simple
    assert not {key for key in simple if recipe.get(key, train[key]) != recipe.get(key, inference[key])}


@pytest.mark.parametrize("bundle", shipped())
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
    parser["ckpt_path"] = str(weights)
    load_weights(parser.get_parsed_content("network_def"), weights)


@pytest.mark.parametrize("bundle", shipped())
def test_inference_loads_the_weights_that_it_names(bundle):
    parser = ConfigParser()
    parser.read_config(BUNDLES / bundle / "configs" / "inference.json")
    parser["bundle_root"], parser["device"] = str(BUNDLES / bundle), "$torch.device('cpu')"
    path = parser.get_parsed_content("ckpt_path")
    assert shipped_weights(path, BUNDLES / bundle)
    load_weights(parser.get_parsed_content("network"), path)
    assert parser.get_parsed_content("mirror_axes") == ([0] if bundle == "m3ae" else [])


@pytest.mark.parametrize("bundle", shipped())
def test_fine_tuning_starts_from_the_weights(bundle):
    configs, parser = BUNDLES / bundle / "configs", ConfigParser()
    parser.read_config([configs / "train.json", *(configs / "recipes" / f"{name}.json" for name in TUNED)])
    parser.update({"bundle_root": str(BUNDLES / bundle), "cohort": "brats2023"})
    load_weights(parser.get_parsed_content("network_def"), parser.get_parsed_content("init_from"))
    inference = defaults(configs / "inference.json")
    assert {key: parser[key] for key in ("crop", "spacing")} == {key: inference[key] for key in ("crop", "spacing")}
