"""How `python -m monai.bundle run` was started, and the errors that MONAI wraps."""

import pytest

from common.io.command import given_run, is_run, recipe_names, unwrapped_errors


@pytest.fixture
def words(monkeypatch):
    """Return a function that makes this process appear to have been started with a command line."""
    return lambda *words: monkeypatch.setattr("sys.argv", ["/lib/monai/bundle/__main__.py", "run", *words])


def test_settings_are_told_from_monai_s_own_options(words, monkeypatch):
    words("--config_file", "['a/train.json','b/own.json']", "--epochs", "3", "--train::lr=0.5", "--resume")
    assert given_run() == (["a/train.json", "b/own.json"], {"epochs": 3, "train#lr": 0.5, "resume": True})
    assert recipe_names() == ["own.json"]
    words("--config_file=train.json", "--logging_file", "x", "--device", "$torch.device('cpu')")
    assert given_run() == (["train.json"], {"device": "$torch.device('cpu')"})
    monkeypatch.setattr("sys.argv", ["pytest", "--epochs", "3"])
    assert (is_run(), recipe_names()) == (False, [])


@pytest.mark.parametrize(
    ("option", "read"),
    [("--output_dir=2024_01", "202401"), ("--output_dir=out#1", "'out'"), ("--output_dir=./1", None)],
)
def test_a_path_that_monai_reads_as_something_else(words, option, read):
    words("--config_file=train.json", option)
    if read is None:
        assert given_run()[1] == {"output_dir": "./1"}
    else:
        with pytest.raises(ValueError, match=f"MONAI reads this as {read}; write it as a path"):
            given_run()


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x")])
def test_an_error_without_those_around_it(error):
    outer = RuntimeError("Failed to instantiate")
    outer.__cause__ = RuntimeError("Failed to evaluate")
    outer.__cause__.__cause__ = error
    with pytest.raises(type(error)) as info, unwrapped_errors():
        raise outer
    assert info.value is error
