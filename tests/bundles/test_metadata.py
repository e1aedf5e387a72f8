"""The metadata of every bundle pass MONAI's own checks and agree with the configs and the code."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest
from monai.bundle import ConfigParser, ConfigWorkflow, verify_metadata, verify_net_in_out
from packaging.requirements import Requirement

from common.cohorts import get_cohort
from common.evaluation.metrics.results import read_evaluation
from tools.ship import eval_metrics

ROOT = Path(__file__).parents[2]
SCHEMA = Path(__file__).with_name("meta_schema.json")
METADATA = sorted(ROOT.glob("bundles/*/configs/metadata.json"))

each_bundle = pytest.mark.parametrize("meta_file", METADATA, ids=lambda path: path.parts[-3])


def network_def(config_file):
    parser = ConfigParser()
    parser.read_config(str(config_file))
    return parser.get_parsed_content("network_def"), parser.get_parsed_content("cohort")


@each_bundle
def test_metadata_passes_the_schema(meta_file, tmp_path):
    schema = shutil.copy(SCHEMA, tmp_path / "schema.json")  # which MONAI would download
    verify_metadata(meta_file=str(meta_file), filepath=schema)


@each_bundle
def test_pinned_packages_are_those_that_the_project_asks_for(meta_file):
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    wanted = {requirement.name: requirement.specifier for requirement in map(Requirement, project["dependencies"])}
    meta = json.loads(meta_file.read_text())
    own = {"monai": meta["monai_version"], "torch": meta["pytorch_version"], "numpy": meta["numpy_version"]}
    pins = {**own, **meta["required_packages_version"]}
    assert pins.keys() == wanted.keys()
    assert {name: version for name, version in pins.items() if version not in wanted[name]} == {}


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


@each_bundle
@pytest.mark.parametrize(
    ("files", "kind"),
    [(["train.json"], "train"), (["inference.json"], "infer"), (["inference.json", "evaluate.json"], "infer")],
    ids=["train", "inference", "evaluate"],
)
def test_configs_have_the_properties_that_monai_expects(meta_file, files, kind, coarse_dir, tmp_path):
    configs = [str(meta_file.with_name(name)) for name in files]
    overrides = {"dataset_dir": str(coarse_dir), "output_dir": str(tmp_path / "out")}
    workflow = ConfigWorkflow(configs, workflow_type=kind, logging_file=False, **overrides)
    workflow.initialize()
    assert workflow.check_properties() == []
    workflow.finalize()


@each_bundle
def test_metrics_are_those_of_the_published_results_of_these_weights(meta_file):
    meta = json.loads(meta_file.read_text())
    decision = json.loads(meta_file.with_name("inference.json").read_text())["decision"]
    folders = ROOT.glob(
        "docs/open_glioma/results/*" if decision == "threshold" else f"docs/open_glioma/results/*/{decision}"
    )
    results = map(read_evaluation, sorted(folders))
    (own,) = [found for found in results if found.facts["weights"] == meta["weights"]["model.pt"]["sha256"]]
    assert meta["eval_metrics"] == eval_metrics(own)


@each_bundle
def test_inference_says_what_its_weights_were_trained_on(meta_file, tmp_path, caplog):
    config = str(meta_file.with_name("inference.json"))
    ConfigWorkflow(config, workflow_type="infer", logging_file=False, output_dir=str(tmp_path)).initialize()
    said = json.loads(meta_file.read_text())["weights"]["model.pt"]["data_source"]
    assert f"models/model.pt: trained on: {said}. " in caplog.text
