"""What `monai.bundle.load` gives of the bundles: the network with all its weights, or an error."""

import pytest
import torch
from monai.bundle import load
from processes import ROOT

from common.io.checkpoints import read_weights

WEIGHTS = [(name, "models/model.pt") for name in ("gss", "m3ae", "mag_ms", "medmap", "passion")]
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
