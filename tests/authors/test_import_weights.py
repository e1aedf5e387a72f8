"""The authors' checkpoints become weights that load, and say what they are."""

from pathlib import Path

import pytest
import torch
from networks.golden import GRID, m3ae_state, path_state
from run_tools import run

from common.io.checkpoints import load_weights
from common.io.facts import setting_of_weights
from common.networks import ACN, M3AE, M2FTrans, MMFormer, RFNet
from mmb.authors.authors_weights import method_of
from mmb.authors.fusion_keys import export_fusion

GOLDEN = Path(__file__).parents[1] / "golden"


def recorded(weights: Path, *keys: str) -> list[object]:
    return [setting_of_weights(weights, key, None) for key in keys]


def test_a_network_for_all_subsets(tmp_path, capsys):
    network = RFNet(width=4)
    theirs = export_fusion(network)
    torch.save({"epoch": 299, "state_dict": theirs, "optim_dict": {"state": {}}}, tmp_path / "theirs.pth")
    assert run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt") is None
    assert "has the keys of RFNet" in (said := capsys.readouterr().out)
    assert "288 tensors" in said
    ours = load_weights(RFNet(width=4), tmp_path / "model.pt")
    assert all(torch.equal(value, ours.state_dict()[key]) for key, value in network.state_dict().items())
    for file, todo in (("theirs.pth", "convert a file .* by import_weights"), ("model.pt", "of RFNet, .*bundle gss")):
        with pytest.raises(ValueError, match=f"{file}: a checkpoint of another architecture than M3AE.*{todo}"):
            load_weights(M3AE(4, 3, 8, GRID), tmp_path / file)
    facts = recorded(tmp_path / "model.pt", "method", "backbone", "width", "crop", "spacing")
    assert facts == ["RFNet, authors' weights", "RFNet", 4, [80, 80, 80], [1.0, 1.0, 1.0]]
    theirs["module.decoder_sep.seg_layer.weight"] = torch.zeros(4, 8, 1, 1, 1)
    torch.save({"state_dict": theirs}, tmp_path / "theirs.pth")
    assert "another width" in run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt")
    torch.save({"state_dict": export_fusion(RFNet(classes=5, width=4))}, tmp_path / "theirs.pth")
    assert run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt") is None
    assert recorded(tmp_path / "model.pt", "cohort") == ["brats2015"]


@pytest.mark.parametrize(("network", "crop"), [(MMFormer(width=2, crop=(48, 48, 48)), 48), (M2FTrans(width=2), 80)])
def test_the_crop_that_a_file_tells(tmp_path, network, crop):
    torch.save({"state_dict": export_fusion(network)}, tmp_path / "theirs.pth")
    assert run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt") is None
    assert recorded(tmp_path / "model.pt", "width", "crop") == [2, [crop] * 3]


def test_m3ae_whose_file_tells_its_sizes(tmp_path):
    theirs = {f"module.{key}": value for key, value in m3ae_state(8).items()}
    torch.save({"epoch": 3, "state_dict": theirs}, tmp_path / "theirs.pth")
    assert run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt") is None
    load_weights(M3AE(4, 3, 8, GRID), tmp_path / "model.pt")
    assert recorded(tmp_path / "model.pt", "width", "grid") == [8, list(GRID)]


def test_a_path_for_each_file(tmp_path):
    torch.save(path_state("acn", "full"), tmp_path / "full.pth")
    torch.save(path_state("acn", "mono", channels=1), tmp_path / "mono.pth")
    words = ("import_weights", tmp_path / "full.pth", tmp_path / "model.pt", f"t1c={tmp_path / 'mono.pth'}")
    assert run(*words) is None
    load_weights(ACN(subsets=[(1,)]), tmp_path / "model.pt")
    assert recorded(tmp_path / "model.pt", "backbone", "width", "dedicated") == ["ACN", 16, [["t1c"]]]


@pytest.mark.parametrize("method", [(), ("--method", "M3AE"), ("--method", "RFNet"), ("--method", "ACN")])
@pytest.mark.parametrize("content", [[1], None, {}, {3: torch.zeros(1)}, {"state_dict": {"a": None}}])
def test_what_holds_no_weights_is_refused(tmp_path, method, content):
    torch.save(content, tmp_path / "theirs.pth")
    message = run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt", *method)
    assert message.startswith(f"error: {tmp_path / 'theirs.pth'}: ")
    assert "expected a state dict" in message
    assert not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("method", "more", "fact"),
    [
        ("UNet", (), "UNet: no such method; expected one of M3AE, ACN, SMU-Net, RFNet, mmFormer, M2FTrans."),
        ("RFNet", ("--crop", "[80,0,80]"), "--crop 0: expected a number from 1 to 1024."),
        ("RFNet", ("t1c=x",), "t1c=x: the weights of RFNet are in one file"),
        ("ACN", ("--crop", "[80,80,80]"), "not an option of ACN."),
        ("ACN", ("t1c",), "expected SUBSET=FILE, each subset once"),
    ],
)
def test_options_are_checked_before_the_file_is_read(tmp_path, method, more, fact):
    assert fact in run("import_weights", "nowhere", tmp_path / "model.pt", *more, "--method", method)


@pytest.mark.parametrize("method", ["M3AE", "RFNet", "mmFormer", "M2FTrans", "ACN", "SMU-Net"])
def test_published_keys_tell_the_method(tmp_path, method):
    name = method.lower().replace("-", "")
    lines = (GOLDEN / f"state_dict_{name}.txt").read_text().splitlines()
    keys = [line.split()[0] for line in lines if not line.startswith(("#", "d_"))]  # not of discriminators
    torch.save({"state_dict": {f"module.{key}": torch.zeros(1) for key in keys}}, tmp_path / "theirs.pth")
    assert method_of(str(tmp_path / "theirs.pth")) == method


def test_the_file_to_write_is_neither_the_authors_nor_a_folder(tmp_path):
    theirs = tmp_path / "theirs.pth"
    torch.save(export_fusion(RFNet(width=4)), theirs)
    before = theirs.read_bytes()
    assert "is the authors' file" in run("import_weights", theirs, theirs)
    assert ": a folder; expected the name of a file" in run("import_weights", theirs, tmp_path)
    assert theirs.read_bytes() == before


def test_keys_of_no_method_are_refused(tmp_path):
    torch.save({"encoder.weight": torch.zeros(1), "head.bias": torch.zeros(1)}, tmp_path / "theirs.pth")
    message = run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt")
    assert "its 2 keys, encoder.weight, head.bias, ..., are those of none of M3AE" in message
    assert "by --method" in message
    assert "--method RFNet" in run("import_weights", tmp_path / "theirs.pth", "RFNet", tmp_path / "model.pt")
