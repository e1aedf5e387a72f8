"""Packages of bundles, for the zoo too, and the weights that are shipped."""

import ast
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import black
import isort
import pytest
import torch
from evaluation.examples import random_evaluation
from run_tools import run_script

import common
from common.evaluation.metrics.results import Evaluation, write_evaluation
from common.io.checkpoints import read_checkpoint, write_checkpoint
from common.io.files import file_digest
from common.io.weights import shipped_weights
from mmb.predictors.calibration import read_calibration
from tools import zoo
from tools.package import make_package
from tools.ship import dice_by_subset, eval_metrics, inference_cost, ship
from tools.zoo import make_zoo_folder

REPOSITORY = Path(common.__file__).parents[1]
NAMES = ["LICENSE", "__init__.py", "configs/inference.json", "configs/metadata.json", "configs/recipes/one.json"]
NAMES += ["docs/README.md", "models/model.pt", "requirements.txt"]


def write_bundle(folder: Path, name: str = "tiny", version: str = "0.1.0", weights: bytes = b"weights") -> Path:
    """Write a bundle, with files that its use and an editor leave in it; return its folder."""
    known = {"model.pt": {"sha256": hashlib.sha256(weights).hexdigest(), "data_source": "nothing"}}
    metadata = {"bundle": name, "version": version, "monai_version": "1.6.1", "weights": known}
    metadata |= {"required_packages_version": {"nibabel": "5.2.0"}}
    files = {
        "LICENSE": b"licence",
        "configs/metadata.json": json.dumps(metadata).encode(),
        "configs/inference.json": b'{\n    "imports": [\n        "$import common.io as io"\n    ],\n    "run": []\n}\n',
        "configs/recipes/one.json": b'{"imports": ["$import common.io as io"], "epochs": 3}',
        "docs/README.md": b"# Tiny\n",
        "models/model.pt": weights,
        "eval/inference/case_seg.nii.gz": b"not part of the bundle",
        "models/.model.pt.swp": b"nor this",
        "configs/__pycache__/x.pyc": b"nor this",
    }
    for path, content in files.items():
        Path(folder, path).parent.mkdir(parents=True, exist_ok=True)
        Path(folder, path).write_bytes(content)
    return folder


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    return make_package(write_bundle(folder / "tiny"), folder / "dist")


@pytest.fixture(scope="module")
def contents(package) -> dict[str, bytes]:
    """The files of the package, by their path in the folder of the bundle."""
    with zipfile.ZipFile(package) as archive:
        return {name.removeprefix("tiny/"): archive.read(name) for name in archive.namelist()}


def test_packages_made_twice_are_identical(package, tmp_path):
    again = write_bundle(tmp_path / "elsewhere" / "renamed")
    for path in again.rglob("*"):
        os.utime(path, (1, 1e9))
        os.chmod(path, 0o700)
    Path(again, "docs", "__pycache__").mkdir()
    made = make_package(again, tmp_path / "dist")
    assert made.name == package.name == "tiny_v0.1.0.zip"
    assert made.read_bytes() == package.read_bytes()
    assert os.listdir(tmp_path / "dist") == [made.name]


def test_what_is_in_it(contents):
    assert [name for name in contents if not name.startswith("common/")] == sorted([*NAMES, "manifest.json"])
    modules = {path.relative_to(REPOSITORY).as_posix() for path in REPOSITORY.glob("common/**/*.py")}
    assert modules <= set(contents)
    assert "common/cohorts/data/brats_splits.csv" in contents
    assert not any("__pycache__" in name or "/." in name for name in contents)
    assert json.loads(contents["manifest.json"]) == {"common": common.__version__}
    offered = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    needed = [line for line in offered if re.match(r"(torch|monai|nibabel|numpy)\b", line)]
    assert contents["requirements.txt"].decode().splitlines() == needed
    for config in ("configs/inference.json", "configs/recipes/one.json"):
        assert json.loads(contents[config])["imports"] == ["$import tiny", "$import common.io as io"]


def test_another_content_of_the_same_version_is_refused(tmp_path):
    made = make_package(write_bundle(tmp_path / "tiny"), tmp_path / "dist")
    before = made.read_bytes()
    assert make_package(tmp_path / "tiny", tmp_path / "dist") == made
    write_bundle(tmp_path / "tiny", weights=b"others")
    with pytest.raises(FileExistsError, match=r"tiny_v0.1.0.zip exists with other content.* Raise `version`"):
        make_package(tmp_path / "tiny", tmp_path / "dist")
    assert (made.read_bytes(), os.listdir(tmp_path / "dist")) == (before, [made.name])


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "LICENSE").unlink(), "LICENSE: no such file"),
        (lambda folder: (folder / "models" / "model.pt").unlink(), "model.pt: no such file"),
        (lambda folder: (folder / "models" / "model.pt").write_bytes(b"others"), "is not the file that tiny"),
        (lambda folder: write_bundle(folder, version="1"), "version '1'"),
        (lambda folder: write_bundle(folder, name="../tiny"), "bundle '../tiny'"),
        (lambda folder: (folder / "docs" / "link").symlink_to("/etc/passwd"), "docs/link is a link"),
    ],
    ids=["licence", "no-weights", "other-weights", "version", "name", "link"],
)
def test_no_package_of_a_bundle_that_is_not_right(damage, complaint, tmp_path):
    damage(write_bundle(tmp_path / "tiny"))
    with pytest.raises((FileNotFoundError, ValueError), match=complaint):
        make_package(tmp_path / "tiny", tmp_path / "dist")
    assert not list(tmp_path.glob("dist/*"))


WEIGHTS = "$@bundle_root + '/models/model.pt'"
NETWORK = {"_target_": "torch.nn.Conv3d", "in_channels": 4, "out_channels": 30, "kernel_size": 7}
INFERENCE = {"imports": ["$import common.cohorts as cohorts"], "cohort": "brats2020", "crop": [8, 8, 8]}
INFERENCE |= {"decision": "threshold", "spacing": [2.0, 2, 2]}
INFERENCE |= {"cohort_def": "$cohorts.get_cohort(@cohort)", "network": NETWORK, "ckpt_path": WEIGHTS}


def evaluated(run: Path, cohort: str = "brats2020", window: str = "8x8x8", **kwargs: Any) -> Evaluation:
    """Write a random evaluation of the weights, with the scores that a calibration needs."""
    modalities = ("t1", "t1c", "t2", "flair")
    facts = {"weights": file_digest(run / "trained.pt"), "window": window, "spacing": "2x2x2"}
    facts |= {"split": "fixed", "part": "test"}
    evaluation = random_evaluation(cohort=cohort, modalities=modalities, facts=facts, probabilities=True, **kwargs)
    write_evaluation(evaluation, run / "evaluation")
    return evaluation


def trained() -> dict[str, torch.Tensor]:
    weight = torch.randn(30, 4, 7, 7, 7, generator=torch.Generator().manual_seed(0))
    weight[0, 0, 0, 0, 0] = 1 / 3
    return {"weight": weight, "bias": torch.full((30,), 1 / 3)}


COST = {"voxels": [1, 2, 3], "CPU": {"threads": 1}, "GPU": "not measured"}


@pytest.fixture
def places(tmp_path, monkeypatch):
    """An evaluated run, and a bundle; what an inference costs is not measured."""
    monkeypatch.setattr("tools.ship.inference_cost", lambda bundle, weights: COST)
    run, bundle = tmp_path / "run", tmp_path / "bundle"
    run.mkdir()
    write_checkpoint(trained(), run / "trained.pt")
    evaluation = evaluated(run)
    for name in ("configs/recipes", "models"):
        (bundle / name).mkdir(parents=True)
    metadata = {"bundle": "tiny", "version": "0.1.0", "data_source": "phantom"}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (bundle / "configs" / "inference.json").write_text(json.dumps(INFERENCE))
    (bundle / "configs" / "recipes" / "phantom.json").write_text("{}")
    (bundle / "models" / "model_calibration.json").write_text("of other weights\n")
    return run, bundle, evaluation


def test_weights_in_half_with_their_calibration_and_what_they_are_worth(places):
    run, bundle, evaluation = places
    target = ship(run, bundle, "model", "39 cases")
    assert target == bundle / "models" / "model.pt"
    state = read_checkpoint(target)
    assert state["weight"].dtype == torch.float16
    assert state["weight"][0, 0, 0, 0, 0].item() == pytest.approx(1 / 3, abs=1e-4)
    assert state["bias"][0].item() == torch.tensor(1 / 3).item()
    assert sorted(path.name for path in target.parent.iterdir()) == ["model.pt", "model_calibration.json"]
    assert read_calibration(target.with_name("model_calibration.json")).weights == file_digest(target)
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert shipped_weights(target, bundle)["data_source"] == metadata["data_source"] == "39 cases"
    results = evaluation.results[evaluation.results["metric"] == "dice"]
    full = results[results["modalities"] == "+".join(evaluation.modalities)]
    for region in evaluation.regions:
        name = f"test_dice_{region.lower()}"
        ours = full[full["region"] == region]["value"].mean()
        assert metadata["eval_metrics"][f"{name}_full"] == pytest.approx(ours, abs=5e-4)
        by_subset = results[results["region"] == region].groupby("modalities")["value"].mean()
        assert metadata["eval_metrics"][f"{name}_mean_of_{len(by_subset)}"] == pytest.approx(by_subset.mean(), abs=5e-4)
        written = {subset: dice[region] for subset, dice in metadata["test_results"]["dice"].items()}
        assert written == pytest.approx(dict(by_subset), abs=5e-4)
    tested = {key: metadata["test_results"][key] for key in ("cohort", "split", "part", "cases")}
    assert tested == {"cohort": "brats2020", "split": "fixed", "part": "test", "cases": 4}
    assert metadata["inference_cost"] == COST


def test_an_image_that_is_constant_in_each_channel_takes_no_space(places, monkeypatch):
    run, bundle, _ = places
    image = torch.tensor([0.5, 0.25]).view(1, 2, 1, 1, 1) + 5e-5 * torch.rand(1, 2, 40, 40, 40)
    write_checkpoint({**trained(), "x_sub": image, "other": torch.rand(1, 2, 40, 40, 40)}, run / "trained.pt")
    evaluated(run)
    monkeypatch.setattr("tools.ship._require_same_outputs", lambda *args: None)
    target = ship(run, bundle, "model", "39 cases")
    state = read_checkpoint(target)
    assert state["x_sub"].shape == image.shape
    assert (state["x_sub"] - image).abs().max() < 1e-3
    assert target.stat().st_size < 2 * sum(state[name].numel() for name in ("weight", "other")) + 20_000


def test_calibration_and_metrics_are_of_the_bundles_decision(places):
    run, bundle, _ = places
    facts = {"weights": file_digest(run / "trained.pt"), "window": "8x8x8", "spacing": "2x2x2"}
    facts["decision"] = "expected_dice"
    cases = {"cohort": "brats2020", "modalities": ("t1", "t1c", "t2", "flair"), "probabilities": True}
    other = random_evaluation(**cases, facts=facts, seed=1)
    write_evaluation(other, run / "evaluation" / "expected_dice")
    (bundle / "configs" / "inference.json").write_text(json.dumps(INFERENCE | {"decision": "expected_dice"}))
    ship(run, bundle, "model", "39 cases")
    assert (bundle / "models" / "model_calibration.json").is_file()
    assert json.loads((bundle / "configs" / "metadata.json").read_text())["eval_metrics"] == eval_metrics(other)


@pytest.mark.parametrize("name", ["phantom", "single"])
def test_other_weights_than_the_default_leave_the_metrics_alone(name, places):
    run, bundle, _ = places
    assert run_script("ship", run, bundle, name, "the phantom") is None
    assert (bundle / "models" / f"{name}_calibration.json").is_file()
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert metadata["data_source"] == "phantom"
    assert "eval_metrics" not in metadata


def test_what_an_inference_costs():
    threads = torch.get_num_threads()
    cost = inference_cost(REPOSITORY / "bundles" / "m3ae")
    assert cost["voxels"] == [240, 240, 155]
    assert cost["GPU"] == "not measured"
    assert cost["CPU"]["threads"] == 1
    assert 0.3 < cost["CPU"]["processor_seconds"] < 100
    assert 500 < cost["CPU"]["memory_mb"] < 16_000
    assert torch.get_num_threads() == threads


def test_weights_that_bfloat16_holds_keep_their_values(places):
    run, bundle, _ = places
    rounded = trained()["weight"].bfloat16().float() * 2**-15  # float16 would round them once more
    unfit(run, {"weight": rounded, "bias": torch.zeros(30)})
    assert torch.equal(read_checkpoint(ship(run, bundle, "model", "39 cases"))["weight"].float(), rounded)


def unfit(run: Path, state: dict) -> None:
    write_checkpoint(state, run / "trained.pt")
    evaluated(run)


DAMAGES = {
    "too large for half": (lambda run: unfit(run, {**trained(), "weight": trained()["weight"] * 1e6}), "change by nan"),
    "too small for half": (
        lambda run: unfit(run, {"weight": trained()["weight"] * 1e-7, "bias": torch.zeros(30)}),
        r"change by 0\.\d+ of their range",
    ),
    "of another network": (lambda run: unfit(run, {"weight": torch.ones(3)}), "another architecture"),
    "a checkpoint to resume from": (lambda run: unfit(run, {"epoch": 3}), "expected a state dict"),
    "changed since": (lambda run: write_checkpoint({"w": torch.ones(1)}, run / "trained.pt"), "not of the current"),
    "some subsets": (lambda run: evaluated(run, only=["t1", "t2"]), r"no results of t1c, flair, t1\+t1c"),
    "another cohort": (lambda run: evaluated(run, cohort="iseg2017"), "cohort .* is iseg2017, that of .* brats2020"),
    "other windows": (lambda run: evaluated(run, window="8x16x8"), "window .* is 8x16x8, that of .* 8x8x8"),
    "validation cases": (lambda run: evaluated(run, calibration=["c4"]), "calibrated on, e.g. c4"),
    "none": (lambda run: (run / "trained.pt").unlink(), r"neither finetuned\.pt nor trained\.pt"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_is_not_shipped_leaves_the_bundle_as_it_was(places, damage):
    run, bundle, _ = places
    ship(run, bundle, "model", "39 cases")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    do, message = DAMAGES[damage]
    do(run)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        ship(run, bundle, "model", "40 cases")
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


@pytest.mark.parametrize("step", ["write_checkpoint", "write_calibration", "text"])
def test_files_take_their_places_together(places, step, monkeypatch):
    run, bundle, _ = places
    ship(run, bundle, "model", "39 cases")
    before = {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    unfit(run, {"weight": trained()["weight"] + 1, "bias": torch.zeros(30)})

    def full(*_: Any) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(f"tools.ship.{step}", full)
    with pytest.raises(OSError, match="no space left"):
        ship(run, bundle, "model", "40 cases")
    assert before == {path: path.read_bytes() for path in bundle.rglob("*") if path.is_file()}


ROOT = Path(__file__).parents[2]
NAME = "glioma_mri_segmentation_tiny"


@pytest.fixture
def measured(tmp_path, monkeypatch) -> Path:
    """A bundle with what `ship` wrote into its metadata, and its evaluation among the stored ones."""
    bundle = write_bundle(tmp_path / "tiny")
    facts = {"weights": file_digest(bundle / "models" / "model.pt"), "split": "fixed", "part": "test"}
    for decision in ("threshold", "expected_dice"):
        evaluation = random_evaluation(facts={**facts, "decision": decision}, seed=len(decision))
        write_evaluation(evaluation, tmp_path / "results" / decision)
    monkeypatch.setattr(zoo, "RESULTS", tmp_path / "results")
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    metadata |= {"data_source": "nothing", "task": "a task: with a colon", "name": "Tiny", "description": "It is tiny."}
    metadata |= {"eval_metrics": eval_metrics(evaluation), "test_results": dice_by_subset(evaluation)}
    cost = {"voxels": [1, 2, 3], "CPU": {"processor_seconds": 4, "memory_mb": 5}}
    metadata |= {"intended_use": "None.", "inference_cost": cost}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    (bundle / "configs" / "inference.json").write_text(json.dumps({"decision": "expected_dice", "ckpt_path": WEIGHTS}))
    return bundle


@pytest.mark.slow  # makes a package
def test_everything_is_in_the_folder_and_in_the_format_of_the_zoo(measured, tmp_path):
    assert run_script("zoo", measured, tmp_path / "out") is None
    folder = tmp_path / "out" / "models" / NAME
    assert os.listdir(tmp_path / "out") == ["models"]
    names = ["LICENSE", "README.md", "SHA256SUMS", "common", "configs", "docs", "models", "requirements.txt"]
    assert sorted(os.listdir(folder)) == names
    assert (folder / "models" / "model.pt").read_bytes() == b"weights"
    stored = tmp_path / "results" / "expected_dice" / "results.csv"  # by the decision of inference.json
    assert (folder / "models" / "results.csv").read_bytes() == stored.read_bytes()
    sums = dict(reversed(line.split("  ")) for line in (folder / "SHA256SUMS").read_text().splitlines())
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    assert sums == {name: file_digest(path) for name, path in files.items() if name != "SHA256SUMS"}
    for path in folder.rglob("*.json"):
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4) + "\n"
    mode = black.Mode(line_length=120, magic_trailing_comma=False)
    for path in [folder / "common" / "modalities.py", folder / "common" / "networks" / "m3ae.py"]:
        code = path.read_text()
        black.assert_stable(code, black.format_str(code, mode=mode), mode=mode)
        assert code == black.format_str(code, mode=mode)
        assert isort.check_code(code, profile="black", line_length=120, src_paths=(tmp_path,))
        texts = [node for node in ast.parse(code).body if isinstance(getattr(node, "value", None), ast.Constant)]
        assert [node for node in texts if isinstance(node, ast.Expr)] == texts[:1]  # the module's docstring
    assert "# " in (folder / "common" / "modalities.py").read_text()


def test_large_files_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_format", lambda folder: None)  # takes nearly all the time
    source = ROOT / "bundles" / "gss"
    folder = make_zoo_folder(source, tmp_path, url="https://example.org/gss/")
    weights = source / "models" / "model.pt"
    assert weights.stat().st_size > zoo.LINKED
    assert not (folder / "models" / "model.pt").exists()
    assert "models/model.pt" not in (folder / "SHA256SUMS").read_text()  # large_files.yml has its sum
    listed = (folder / "large_files.yml").read_text().splitlines()
    start = listed.index('  - path: "models/model.pt"')
    assert listed[0] == "large_files:"
    assert listed[start + 1 : start + 4] == [
        '    url: "https://example.org/gss/models/model.pt"',
        f'    hash_val: "{hashlib.sha256(weights.read_bytes()).hexdigest()}"',
        '    hash_type: "sha256"',
    ]


def test_no_folder_without_the_evaluation_of_the_weights(measured, tmp_path):
    other = {"decision": "by_sequences", "ckpt_path": WEIGHTS}
    (measured / "configs" / "inference.json").write_text(json.dumps(other))
    (tmp_path / "out").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no evaluation of .*model\.pt by by_sequences"):
        make_zoo_folder(measured, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


def test_nothing_is_replaced_or_left_half_done(measured, tmp_path, monkeypatch):
    bundle = measured
    folder = tmp_path / "out" / "models" / NAME
    folder.mkdir(parents=True)
    with pytest.raises(FileExistsError, match="exists already"):
        make_zoo_folder(bundle, tmp_path / "out")
    folder.rmdir()
    folder.parent.rmdir()
    monkeypatch.setattr(zoo, "LARGEST", 6)
    with pytest.raises(ValueError, match=r"LICENSE has 7 bytes, .* at most 6\. .* give --url"):
        make_zoo_folder(bundle, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow  # a fresh process that imports everything
def test_the_zoo_finds_network_and_weights_as_the_metadata_say(tmp_path):
    """The zoo's check puts the folder first on Python's path, works in the zoo, and exports to TorchScript."""
    folder = make_zoo_folder(ROOT / "bundles" / "m3ae", tmp_path)
    schema = shutil.copy(ROOT / "tests" / "bundles" / "meta_schema.json", tmp_path / "schema.json")
    code = f"""
import sys
sys.path.insert(0, {str(folder)!r})
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out
meta, config = {str(folder / "configs/metadata.json")!r}, {str(folder / "configs/inference.json")!r}
verify_metadata(meta_file=meta, filepath={str(schema)!r})
verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, bundle_root={str(folder)!r})
ckpt_export(net_id="network_def", filepath={str(tmp_path / "model.ts")!r}, meta_file=meta, config_file=config,
            ckpt_file={str(folder / "models/model.pt")!r}, bundle_root={str(folder)!r})
import common
assert common.__file__.startswith({str(folder)!r}), common.__file__
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "model.ts").stat().st_size > 1_000_000
