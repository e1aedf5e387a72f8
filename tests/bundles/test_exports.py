"""Exported demo networks give the same logits as eager ones, also for subsets other than that of the example."""

import json
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
from bundles.running import DEMO
from monai.bundle import ConfigParser, ckpt_export, onnx_export

from common.io import load_weights
from common.networks import build_network

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = ["gss", "m3ae", "mag_ms", "medmap", "passion"]
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


def images() -> torch.Tensor:
    """Return a batch in which each sample has one of the subsets."""
    image = torch.rand(len(SUBSETS), 4, *WINDOW, generator=torch.Generator().manual_seed(0))
    for row, subset in enumerate(SUBSETS):
        image[row, [m for m in range(4) if m not in subset]] = torch.nan
    return image


def places(folder: Path) -> dict[str, Any]:
    configs, metadata = [str(folder / "configs" / name) for name in DEMO], folder / "configs" / "metadata.json"
    weights = folder / "models" / "phantom.pt"
    return {"config_file": configs, "meta_file": str(metadata), "ckpt_file": str(weights)}


def assert_equal(exported, network) -> None:
    """Compare logits sample by sample and as a batch: within 1e-4 of the largest, and probabilities within 1e-4."""
    image = images()
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
def test_torchscript(bundle, tmp_path):
    folder, network = bundle
    traced = {} if folder.name == "m3ae" else {"use_trace": True, "input_shape": [1, 4, *WINDOW]}
    ckpt_export("network_def", filepath=str(tmp_path / "model.ts"), **places(folder), **traced)
    extra = {"metadata.json": "", "inference.json": ""}
    assert_equal(torch.jit.load(str(tmp_path / "model.ts"), _extra_files=extra), network)
    assert json.loads(extra["metadata.json"])["bundle"] == folder.name


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
