"""MONAI's own calls on the bundles, as its documentation and the cards of its model zoo show them."""

import json
import shlex
import shutil
import subprocess
import sys
import traceback

import pytest
import torch
from bundles.running import shipped
from monai.bundle import load
from processes import ROOT

from common.io.checkpoints import read_weights, write_checkpoint
from common.io.facts import read_facts
from common.io.files import file_digest

WEIGHTS = [(name, "models/model.pt") for name in shipped()]
WEIGHTS += [("m3ae", "models/single.pt")]


@pytest.mark.parametrize("workflow", ["train", "inference"])  # MONAI's default is the first
@pytest.mark.parametrize(("name", "file"), WEIGHTS)
def test_all_weights_are_loaded(name, file, workflow, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the bundle is found by its config, not by the working directory
    given = {} if file == "models/model.pt" else {"model_file": file, "net_override": {"count": 1}}
    network = load(name, bundle_dir=ROOT / "bundles", workflow_type=workflow, **given)
    stored, loaded = read_weights(ROOT / "bundles" / name / file), network.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(value, loaded[key]) for key, value in stored.items())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "file"), [("m3ae", "models/single.pt"), ("passion", "models/phantom.pt")])
def test_weights_of_another_network_are_refused(name, file):
    with pytest.raises(ValueError, match=r"^\d+ of the network's \d+ weights, e.g. \S+, are not in the file"):
        load(name, bundle_dir=ROOT / "bundles", model_file=file, workflow_type="inference", device="cpu")


def test_weights_choose_no_code_that_is_imported(tmp_path, capsys):
    folder = shutil.copytree(ROOT / "bundles" / "gss", tmp_path / "gss")
    weights = folder / "models" / "model.pt"
    facts = read_facts(weights).model_copy(update={"settings": {"backbone": "this.s"}})
    write_checkpoint(read_weights(weights), weights, facts)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["weights"]["model.pt"]["sha256"] = file_digest(weights)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(RuntimeError) as refused:
        load("gss", bundle_dir=tmp_path, device="cpu")
    assert "must not choose which code is imported" in "".join(traceback.format_exception(refused.value))
    assert "Zen" not in capsys.readouterr().out


META, LOG = "--meta_file configs/metadata.json", "--logging_file configs/logging.conf"
TRAINED = "\"['configs/train.json','configs/evaluate.json']\""
SEVERAL = "\"['configs/train.json','configs/multi_gpu_train.json']\""
MODULE, PROCESSES = "python -m monai.bundle", "torchrun --standalone --nnodes=1 --nproc_per_node=2 -m monai.bundle"
CALLS = {  # of the cards of brats_mri_segmentation, spleen_ct_segmentation and wholeBrainSeg_Large_UNEST_segmentation
    f"{MODULE} run --config_file configs/train.json": "mean of 2 subsets",
    f"{MODULE} run training {META} --config_file configs/train.json {LOG}": "mean of 2 subsets",
    f"{PROCESSES} run --config_file {SEVERAL}": "mean of 2 subsets",
    f"{PROCESSES} run training {META} --config_file {SEVERAL} {LOG}": "mean of 2 subsets",
    f"{MODULE} run --config_file {TRAINED}": "mean of 2 subsets",
    f"{MODULE} run evaluating {META} --config_file {TRAINED} {LOG}": "mean of 2 subsets",
    f"{MODULE} run --config_file configs/inference.json": "100%",
    f"{MODULE} run evaluating {META} --config_file configs/inference.json {LOG}": "100%",
}
"""A call -> what it prints."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of m3ae, elsewhere."""
    return shutil.copytree(ROOT / "bundles" / "m3ae", tmp_path_factory.mktemp("zoo") / "m3ae")


def call(text, folder):
    script = (
        f'python() {{ "{sys.executable}" "$@"; }}; torchrun() {{ "{sys.executable}" -m torch.distributed.run "$@"; }}'
    )
    done = subprocess.run(["bash", "-c", f"{script}; {text}"], cwd=folder, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.mark.slow  # trainings and evaluations, a minute each
@pytest.mark.parametrize("text", CALLS)
def test_a_call_of_the_zoo(text, folder, coarse_dir):
    added = {"dataset_dir": coarse_dir}
    if "evaluate" in text:
        added |= {"cohort": "phantom", "subsets": [["t1"], ["flair"]]}
    elif "train" in text:
        added |= {"epochs": 1, "pretrain_epochs": 1, "evaluation#overrides#subsets": [["t1"], ["flair"]]}
    else:
        added |= {"cohort": "phantom", "modalities": ["t1"]}
    code, said = call(text + "".join(f" --{key} {shlex.quote(str(value))}" for key, value in added.items()), folder)
    assert code == 0, said[-3000:]
    assert CALLS[text] in said


@pytest.mark.slow  # fresh processes that import everything
@pytest.mark.parametrize(
    ("text", "last"),
    [
        (
            f"{MODULE} run --config_file configs/inference.json",
            "error: dataset_dir /workspace/data/open_glioma: no such folder.",
        ),
        (
            f"{MODULE} trt_export --net_id network_def --filepath models/model_trt.ts --ckpt_file models/model.pt "
            f"{META} --config_file configs/inference.json --precision fp16 --input_shape '[1,4,80,96,80]'",
            "Cannot find any GPU devices.",
        ),
    ],
)
def test_the_last_line_says_what_is_refused(text, last, folder):
    code, said = call(text, folder)
    assert code != 0
    assert said.strip().splitlines()[-1].endswith(last)
