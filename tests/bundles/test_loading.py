"""What `monai.bundle.load` gives of the bundles: the network with all its weights, or an error."""

import pytest
import torch
from monai.bundle import load
from processes import ROOT

from common.io.checkpoints import read_weights

WEIGHTS = [(name, "models/model.pt") for name in ("gss", "mag_ms", "medmap", "passion")]
WEIGHTS += [("m3ae", "models/ensemble.pt"), ("m3ae", "models/model.pt")]


@pytest.mark.parametrize(("name", "file"), WEIGHTS)
def test_all_weights_are_loaded(name, file, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)  # the bundle is found by its config, not by the working directory
    one = {"count": 1} if (name, file) == ("m3ae", "models/model.pt") else {}  # the default has several networks
    network = load(
        name, bundle_dir=ROOT / "bundles", model_file=file, workflow_type="inference", device="cpu", net_override=one
    )
    stored, loaded = read_weights(ROOT / "bundles" / name / file), network.state_dict()
    assert stored.keys() == loaded.keys()
    assert all(torch.equal(value, loaded[key]) for key, value in stored.items())
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("name", "file"), [("m3ae", "models/model.pt"), ("passion", "models/phantom.pt")])
def test_weights_of_another_network_are_refused(name, file):
    with pytest.raises(ValueError, match=r"^\d+ of the network's \d+ weights, e.g. \S+, are not in the file"):
        load(name, bundle_dir=ROOT / "bundles", model_file=file, workflow_type="inference", device="cpu")


def test_weights_are_not_loaded_into_a_network_that_is_to_be_trained():
    with pytest.raises(RuntimeError) as info:
        load("gss", bundle_dir=ROOT / "bundles", device="cpu")
    error: BaseException | None = info.value
    while error.__cause__ is not None:
        error = error.__cause__
    assert 'monai.bundle.load(..., workflow_type="inference")' in str(error)
