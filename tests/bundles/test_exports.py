"""Exported demo networks give the logits of eager ones for every subset, and packaged bundles work on their own.

Packages are downloaded and run in fresh processes that cannot import the repository.
"""

import http.server
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import nibabel as nib
import onnxruntime
import pytest
import torch
from bundles.running import DEMO, shipped
from monai.bundle import ConfigParser, load, onnx_export
from processes import answering, python
from run_tools import run_script

import common
from common.io.checkpoints import load_weights
from common.networks import build_network
from tools.package import make_package

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = shipped()
WINDOW = [32, 32, 32]
SUBSETS = [(0, 1, 2, 3), (1,), (0, 3)]
"""Channels that are present; the example of the export has all."""


@pytest.fixture(scope="module", params=NAMES)
def bundle(request):
    """The folder of a bundle and its network with the shipped weights."""
    folder = BUNDLES / request.param
    parser = ConfigParser()
    parser.read_config([folder / "configs" / name for name in DEMO])
    network = load_weights(parser.get_parsed_content("network_def"), folder / "models" / "phantom.pt")
    return folder, network.eval()


def images(window: Sequence[int] = WINDOW) -> torch.Tensor:
    """Return a batch in which each sample has one of the subsets."""
    image = torch.rand(len(SUBSETS), 4, *window, generator=torch.Generator().manual_seed(0))
    for row, subset in enumerate(SUBSETS):
        image[row, [m for m in range(4) if m not in subset]] = torch.nan
    return image


def places(folder: Path) -> dict[str, Any]:
    configs, metadata = [str(folder / "configs" / name) for name in DEMO], folder / "configs" / "metadata.json"
    weights = folder / "models" / "phantom.pt"
    return {"config_file": configs, "meta_file": str(metadata), "ckpt_file": str(weights)}


def assert_equal(exported, network, window: Sequence[int] = WINDOW) -> None:
    """Compare logits sample by sample and as a batch: within 1e-4 of the largest, and probabilities within 1e-4."""
    image = images(window)
    with torch.no_grad():
        logits = torch.cat([network(image[row : row + 1]) for row in range(len(image))])
        found = [torch.cat([exported(image[row : row + 1]) for row in range(len(image))]), exported(image)]
    assert not torch.allclose(logits[0], logits[1], atol=0.1)  # samples of the batch have different subsets
    for one in found:
        for row in range(len(image)):
            torch.testing.assert_close(one[row], logits[row], rtol=0, atol=1e-4 * float(logits[row].abs().max()))
        activated = (torch.sigmoid, lambda x: x.softmax(dim=1))
        assert all(torch.allclose(act(one), act(logits), rtol=0, atol=1e-4) for act in activated)


@pytest.mark.slow  # an export takes seconds for each bundle
def test_onnx(bundle, tmp_path):
    folder, network = bundle
    kwargs = {"dynamo": False, "input_names": ["image"], "output_names": ["pred"]}
    kwargs["dynamic_axes"] = {"image": {0: "batch"}, "pred": {0: "batch"}}
    options = {"use_trace": True, "input_shape": [1, 4, *WINDOW], "converter_kwargs": kwargs, **places(folder)}
    onnx_export("network_def", filepath=str(tmp_path / "model.onnx"), **options)
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    assert_equal(lambda image: torch.from_numpy(session.run(None, {"image": image.numpy()})[0]), network)


TINY = {"crop": (16, 16, 16), "width": 8, "hidden": 16, "mlp_dim": 16, "heads": 2}


@pytest.mark.slow  # an export takes seconds for each bundle
def test_traced_without_any_sequence_gives_nothing_that_looks_like_a_result():
    network = build_network("MAG-MS", 4, 4, **TINY).eval()
    exported = torch.jit.trace(network, torch.rand(1, 4, 16, 16, 16))
    image = torch.rand(2, 4, 16, 16, 16)
    image[1] = torch.nan
    with torch.no_grad():
        logits = exported(image)
        torch.testing.assert_close(logits[:1], network(image[:1]), rtol=0, atol=1e-4)
    assert bool(logits[1].isnan().all())


@pytest.mark.parametrize("name", ["PMKL", "SMU-Net", "U-HVED", "RobustSeg", "UNETR per subset"])
def test_networks_whose_path_depends_on_the_subset_are_not_traced(name):
    dedicated = {"subsets": [(0,)]} if name not in ("U-HVED", "RobustSeg") else {}
    network = build_network(name, 4, 4, **TINY, **dedicated).eval()
    with pytest.raises(ValueError, match="This network cannot be exported"):
        torch.jit.trace(network, torch.rand(1, 4, 16, 16, 16))


PACKAGED = sorted(path.parents[1] for path in Path(common.__file__).parents[1].glob("bundles/*/configs/metadata.json"))


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A folder that contains nothing but the unpacked bundles."""
    zips, folder = tmp_path_factory.mktemp("zips"), tmp_path_factory.mktemp("alone")
    for bundle in PACKAGED:
        zipfile.ZipFile(make_package(bundle, zips)).extractall(folder)
    return folder


@pytest.mark.slow  # makes the packages
def test_the_repository_is_out_of_reach(alone):
    assert not [page for page in alone.glob("*/docs/*.md") if "](../../" in page.read_text()]
    assert "No module named 'common'" in python("-c", "import common", cwd=alone).stderr


@pytest.fixture(scope="module")
def case(phantom_dir) -> Path:
    return sorted(path for path in phantom_dir.iterdir() if path.is_dir())[-1]


@pytest.mark.slow  # exports take seconds for each bundle
@pytest.mark.parametrize("name", NAMES)
def test_torchscript_lies_in_the_package(alone, name):
    network, extra = load(name, bundle_dir=BUNDLES), {"metadata.json": "", "inference.json": ""}
    exported = torch.jit.load(str(alone / name / "models" / "model.ts"), _extra_files=extra)
    assert json.loads(extra["metadata.json"])["bundle"] == name
    assert_equal(exported, network.eval(), [48, 64, 48])


@pytest.mark.slow  # fresh processes that import everything
@pytest.mark.parametrize(("tool", "below"), [("monai", ""), ("curl", "gss")], ids=["from-its-parent", "from-inside"])
def test_from_the_package_to_a_segmentation(tmp_path, capsys, case, tool, below):
    """A bundle is packaged, served, downloaded by a command that `package` prints, and segments a case."""
    assert run_script("package", PACKAGED[NAMES.index("gss")], tmp_path / "dist") is None
    (command,) = [line for line in capsys.readouterr().out.splitlines() if tool in line and "URL/" in line]
    (tmp_path / "placed").mkdir()
    with answering(partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "dist")) as url:
        command = command.replace("URL", url).replace("DIR", "placed")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True)
    placed, cwd = tmp_path / "placed" / "gss", tmp_path / "placed" / below
    words = ["--config_file", os.path.relpath(placed / "configs/inference.json", cwd), "--dataset_dir", str(case)]
    words += ["--output_dir", str(tmp_path / "out"), "--modalities", "['t1c','flair']"]
    done = python("-m", "monai.bundle", "run", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    label = nib.load(tmp_path / "out" / case.name / f"{case.name}_seg.nii.gz")
    assert label.shape == nib.load(case / f"{case.name}_flair.nii.gz").shape
    assert set(label.get_fdata().ravel()) <= {0, 1, 2, 3}
    assert str(placed) in done.stderr + done.stdout  # the messages on shipped weights contain their path


@pytest.mark.slow  # a fresh process that imports everything
def test_predict_takes_the_folder_of_a_package(alone, case, tmp_path):
    words = [sys.executable, "-m", "mmb", "predict", str(case), str(tmp_path), str(alone / "m3ae")]
    words += ["--modalities", "t2,flair", "--device", "cpu"]
    done = subprocess.run(words, cwd=Path(common.__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert nib.load(tmp_path / "label.nii.gz").shape == nib.load(case / f"{case.name}_flair.nii.gz").shape


LOAD = """
import monai.bundle
from pathlib import Path
for name in {names}:
    network = monai.bundle.load(name, bundle_dir=".")
    print("loaded", name, type(network).__name__, all(bool(p.isfinite().all()) for p in network.parameters()))
import common
print("common of", Path(common.__file__).parent.relative_to(Path.cwd()))
"""


@pytest.mark.slow  # a fresh process that imports everything
def test_load(alone):
    done = python("-c", LOAD.format(names=NAMES), cwd=alone)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("loaded") and line.endswith("True")] == NAMES
    assert f"common of {NAMES[0]}/common" in lines


@pytest.mark.slow  # a fresh process that imports everything
def test_another_version_of_common_in_one_process(alone, tmp_path):
    for name in ("m3ae", "passion"):
        shutil.copytree(alone / name, tmp_path / name)
    manifest = tmp_path / "passion" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"common": "99.0.0"}))
    done = python("-c", LOAD.format(names=["m3ae", "passion"]), cwd=tmp_path)
    assert done.returncode == 1
    assert "loaded m3ae" in done.stdout
    assert "passion was made with version 99.0.0 of `common`, but this process has loaded" in done.stderr
