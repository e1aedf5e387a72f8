"""What a weights file says of its training."""

import io
import zipfile

import pytest
import torch

from common.io import read_checkpoint, read_weights, setting_of_weights, write_checkpoint
from common.io.facts import PLACE, TrainingFacts, read_facts, unseen

FACTS = TrainingFacts(
    method="M3AE",
    bundle="m3ae",
    cases=25,
    modalities=["t1c", "flair"],
    recipe=["own.json"],
    before="36 open cases",
    settings={"cohort": "brats2023", "width": 8, "crop": [64, 80, 64], "feature_encoder": None, "dedicated": [["t1"]]}
    | {"backbone": "monai.networks.nets.SegResNet"},  # MONAI's networks may be named
)


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
    assert FACTS.trained_on == (
        "25 cases of brats2023 with images of T1c + FLAIR, by own.json; before that on 36 open cases"
    )


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
        (
            "width",
            '"$__import__(\\"os\\").abort()"',
            r"settings\.width: .*expected a text .* not begin with \$, @ or %",
        ),
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
