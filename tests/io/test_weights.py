"""Weights: complete checkpoints are read and all else refused; what a file says of its training; shipped weights."""

import io
import json
import zipfile
from pathlib import Path

import pytest
import torch
from refusals import refused
from torch import nn

from common.io.checkpoints import load_weights, read_checkpoint, read_weights, write_checkpoint
from common.io.facts import PLACE, TrainingFacts, read_facts, setting_of_weights, unseen
from common.io.files import file_digest
from common.io.weights import shipped_weights, tell_weights


class Small(nn.Module):
    """A network with a width."""

    def __init__(self, width: int = 2) -> None:
        super().__init__()
        self.conv = nn.Conv3d(1, width, 1)
        self.norm = nn.BatchNorm3d(width)


def test_round_trip(tmp_path):
    state = {"network": Small().state_dict(), "epoch": 3, "best": {"score": 0.5}}
    write_checkpoint(state, tmp_path / "new" / "last.pt")
    read = read_checkpoint(tmp_path / "new" / "last.pt")
    assert (read["epoch"], read["best"]) == (3, {"score": 0.5})
    torch.testing.assert_close(read["network"], state["network"], rtol=0, atol=0)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["last.pt"]


def truncated(path: Path) -> None:
    torch.save({"a": torch.rand(1000)}, path)
    path.write_bytes(path.read_bytes()[:2000])


def executable(path: Path) -> None:
    torch.save({"a": Small()}, path)


def flipped(path: Path) -> None:
    torch.save({"a": torch.zeros(1000)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(bytes(4000)) + 2003] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        truncated,
        flipped,
        executable,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_text("hello world"),
    ],
)
def test_damaged_or_not_of_plain_tensors(tmp_path, damage):
    path = tmp_path / "model.pt"
    with refused(FileNotFoundError, "model.pt: no such checkpoint. Train first, or name one"):
        read_checkpoint(path)
    damage(path)
    with refused(ValueError, "model.pt: not an intact checkpoint of plain tensors ("):
        read_checkpoint(path)


STATE, PREFIXES = Small().state_dict(), ("module.", "_orig_mod.", "model.backbone.")
ANOTHER = ("than Small", "Use the config of its training (cohort, backbone, width, crop); convert a file")


@pytest.mark.parametrize(
    ("state", "facts"),
    [
        (Small(4).state_dict(), (*ANOTHER, "conv.weight", "[4, 1, 1, 1, 1]")),
        ({key.replace("conv.bias", "extra"): value for key, value in STATE.items()}, (*ANOTHER, "conv.bias", "extra")),
        *(
            (
                {prefix + key: value for key, value in STATE.items()},
                (f"its names begin with '{prefix}'", "state_dict()"),
            )
            for prefix in PREFIXES
        ),
        *(
            (STATE | {"norm.bias": torch.tensor(value, dtype=torch.double)}, ("'norm.bias' holds NaN or infinity",))
            for value in ([0, float("nan")], [float("inf"), 0], [1, 1e300])
        ),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, state, facts):
    torch.save(state, tmp_path / "model.pt")
    with refused(ValueError, str(tmp_path / "model.pt"), *facts):
        load_weights(Small(), tmp_path / "model.pt")


@pytest.mark.parametrize("key", ["state_dict", "model"])  # of MONAI's zoo and of other programs
def test_half_precision_and_what_is_saved_around_it(tmp_path, key):
    state = {key: value.half() if value.is_floating_point() else value for key, value in Small().state_dict().items()}
    write_checkpoint({"epoch": 3, key: state, "optim_dict": {"state": {}}}, tmp_path / "model.pt")
    assert all(torch.equal(value, state[key]) for key, value in read_weights(tmp_path / "model.pt").items())
    assert torch.equal(load_weights(Small(), tmp_path / "model.pt").conv.weight, state["conv.weight"].float())


@pytest.mark.parametrize(
    "what", [[1, 2], None, {}, {"state_dict": None}, {7: torch.ones(2)}, {"network": {}, "optimizer": {}}]
)
def test_something_else_than_weights(tmp_path, what):
    torch.save(what, tmp_path / "model.pt")
    with refused(ValueError, "model.pt: the file holds a ", "expected a state dict"):
        read_weights(tmp_path / "model.pt")


KNOWN = {"cohort": "brats2023", "width": 8, "crop": [64, 80, 64], "feature_encoder": None, "dedicated": [["t1"]]}
KNOWN |= {"backbone": "monai.networks.nets.SegResNet"}  # MONAI's networks may be named
TRAINING = {"method": "M3AE", "bundle": "m3ae", "cases": 25, "modalities": ["t1c", "flair"], "recipe": ["own.json"]}
FACTS = TrainingFacts(**TRAINING, before="36 open cases", settings=KNOWN)


def test_facts_travel_in_the_file_and_leave_it_a_plain_state_dict(tmp_path):
    state = {"weight": torch.rand(300, 5), "bias": torch.arange(3)}
    for name, facts in (("a.pt", FACTS), ("b.pt", FACTS), ("plain.pt", None)):
        write_checkpoint(state, tmp_path / name, facts)
    assert (tmp_path / "a.pt").read_bytes() == (tmp_path / "b.pt").read_bytes()
    copied = tmp_path / "elsewhere.pt"
    (tmp_path / "a.pt").rename(copied)
    assert read_facts(copied) == FACTS
    assert read_facts(tmp_path / "plain.pt") is read_facts(tmp_path / "none.pt") is None
    for options in ({}, {"mmap": True}):
        loaded = torch.load(copied, weights_only=True, **options)
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[key], value) for key, value in state.items())
    assert read_weights(copied).keys() == read_checkpoint(copied).keys() == state.keys()
    said = "25 cases of brats2023 with images of T1c + FLAIR, by own.json; before that on 36 open cases"
    assert FACTS.trained_on == said


def test_a_setting_is_the_trainings_or_else_the_default(tmp_path):
    write_checkpoint({"weight": torch.ones(1)}, tmp_path / "a.pt", FACTS)
    for key, default, expected in (
        ("width", 16, 8),
        ("backbone", "RFNet", "monai.networks.nets.SegResNet"),
        ("crop", [1, 2, 3], [64, 80, 64]),
        ("feature_encoder", "shared", None),
        ("spacing", [2.0, 2.0, 2.0], [2.0, 2.0, 2.0]),  # which the file does not say
        ("method", "GSS", "M3AE"),
        ("modalities", None, ["t1c", "flair"]),
    ):
        assert setting_of_weights(tmp_path / "a.pt", key, default) == expected
    assert setting_of_weights(tmp_path / "none.pt", "width", 16) == 16


@pytest.mark.parametrize(
    ("key", "text", "message"),
    [
        ("width", '"8"', "was trained with width '8'; expected a value such as 16"),
        ("width", '"$__import__(\\"os\\").abort()"', r"width: .*expected a text .* not begin with \$, @ or %"),
        ("cohort", '"@network"', "expected a text"),
        ("crop", '[8, ["%x.json"]]', "expected a text"),
        ("width", '{"a": 1}', "expected a text, a number, or a list of these"),
        ("backbone", '"antigravity.Network"', "not choose.*--backbone antigravity.Network"),
        ("width", "[", "Invalid JSON"),
    ],
)
def test_facts_are_data(key, text, message, tmp_path):
    with io.BytesIO() as file:
        torch.save({"weight": torch.ones(1)}, file)
        (tmp_path / "a.pt").write_bytes(file.getvalue())
    with zipfile.ZipFile(tmp_path / "a.pt", "a") as archive:
        archive.writestr(PLACE, f'{{"method": "M3AE", "bundle": "m3ae", "settings": {{"{key}": {text}}}}}')
    with pytest.raises(ValueError, match=rf"a\.pt.*{message}"):
        setting_of_weights(tmp_path / "a.pt", key, "RFNet" if key == "backbone" else 16)


@pytest.mark.parametrize(
    ("used", "seen", "expected"),
    [
        (["t1"], None, None),
        (["t1c"], ["t1c", "flair"], None),
        (["t1", "t2"], ["t1c"], "The network never saw T1 + T2 in training, only T1c: do not trust the result."),
        (["t1", "t1c"], ["t1c"], "The network never saw T1 in training, only T1c: the result may be better without."),
    ],
)
def test_modalities_that_no_training_case_had(used, seen, expected):
    assert unseen(used, seen) == expected


def a_bundle_with_weights(folder: Path) -> Path:
    (folder / "configs").mkdir()
    (folder / "models").mkdir()
    weights = folder / "models" / "model.pt"
    weights.write_bytes(b"weights")
    said = {"sha256": file_digest(weights), "data_source": "39 cases"}
    metadata = {"bundle": "tiny", "version": "0.2.0", "intended_use": "Research only.", "weights": {"model.pt": said}}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    return weights


def test_shipped_weights_say_what_they_are_and_others_do_not(tmp_path, caplog):
    weights = a_bundle_with_weights(tmp_path)
    own = tmp_path / "own.pt"
    own.write_bytes(b"other weights")
    with caplog.at_level("INFO"):
        tell_weights(str(own), str(tmp_path))
        assert shipped_weights(own, tmp_path) is None
        assert "own.pt: has no record of its training, so the settings of inference.json are used" in caplog.text
        facts = TrainingFacts(method="tiny", bundle="tiny", cases=4, settings={"cohort": "brats2023"})
        write_checkpoint({"weight": torch.ones(1)}, own, facts)
        tell_weights(str(own), str(tmp_path))
        assert f"own.pt, SHA-256 {file_digest(own)}: trained on 4 cases of brats2023" in caplog.text
        tell_weights(str(weights), str(tmp_path))
        assert "trained on: 39 cases. Research only." in caplog.text


@pytest.mark.parametrize("name", ["model.pt", "other.pt"])
def test_weights_of_another_version_of_the_bundle_are_refused(tmp_path, name):
    a_bundle_with_weights(tmp_path)
    found = tmp_path / "models" / name
    found.write_bytes(b"newer")
    with pytest.raises(ValueError, match=rf"{name} \(SHA-256 \w+\) is not the file that tiny 0\.2\.0 .*--ckpt_path"):
        shipped_weights(found, tmp_path)
