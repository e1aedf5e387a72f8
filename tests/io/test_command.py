"""What `python -m monai.bundle run` refuses, and how its errors look."""

import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from common.io import bundle_root, check_counts, errors_in_one_line, file_digest, refuse_unknown_options
from common.io.geometry import lengths


def options(monkeypatch, *words):
    """Make this process appear to have been started with a command line."""
    monkeypatch.setattr("sys.argv", ["/lib/monai/bundle/__main__.py", "run", *words])


@pytest.mark.parametrize(
    ("words", "refusal"),
    [
        (("--epochs", "3", "--train#lr=0.5", "--resume", "--logging_file", "x"), None),
        (("--train::lr=0.5", "--device", "$torch.device('cpu')"), None),
        (("--epoch", "3"), "'epoch' is not a key of .*train.json; did you mean epochs"),
        (("--masks", "mr2468"), "'masks' is not a key"),
        (
            ("--output_dir", "2024_01"),
            "--output_dir 2024_01: MONAI reads this as 202401; write it as a path, e.g. ./2024_01",
        ),
        (("--output_dir=out#1",), "MONAI reads this as 'out'"),
        (("--output_dir", "./2024_01"), None),
    ],
)
def test_options_are_keys_of_the_configs(tmp_path, monkeypatch, words, refusal):
    (tmp_path / "train.json").write_text(
        json.dumps({"epochs": 1, "train": {"lr": 1.0}, "resume": False, "device": "", "output_dir": "x"})
    )
    (tmp_path / "recipe.json").write_text(json.dumps({"masks": None}))
    train, recipe = tmp_path / "train.json", tmp_path / "recipe.json"
    options(monkeypatch, "--config_file", str(train), *words)
    if refusal is None:
        refuse_unknown_options(str(tmp_path))
    else:
        with pytest.raises(ValueError, match=refusal):
            refuse_unknown_options(str(tmp_path))
    options(monkeypatch, f"--config_file=['{train}','{recipe}']", "--masks", "mr2468")
    refuse_unknown_options(str(tmp_path))
    monkeypatch.setattr("sys.argv", ["pytest", *words])
    refuse_unknown_options(str(tmp_path))


def raised(work):
    """Return the error that MONAI raises for an error in a config's expression, as the exception hook receives it."""
    try:
        try:
            work()
        except Exception as error:
            raise RuntimeError("Failed to evaluate ConfigExpression") from error
    except RuntimeError as error:
        return type(error), error, error.__traceback__


def test_what_is_refused_ends_in_one_line(monkeypatch, capsys):
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    monkeypatch.setattr("sys.argv", ["pytest"])
    monkeypatch.setattr(logging, "setLogRecordFactory", lambda factory: None)
    before = sys.excepthook
    errors_in_one_line()
    assert sys.excepthook is before
    options(monkeypatch)
    errors_in_one_line()
    sys.excepthook(*raised(lambda: check_counts(epochs="many")))
    assert capsys.readouterr().err == "error: epochs 'many': expected a whole number, 1 or more.\n"
    for error, said in (
        (KeyboardInterrupt(), "error: interrupted.\n"),
        (MemoryError(), "error: memory is full (MemoryError); end other programs.\n"),
        (RuntimeError("x: can't allocate memory\nframe"), "error: memory is full (x: can't allocate memory); end"),
        (RuntimeError("could not create a primitive"), "error: memory is full (could not create a primitive); end"),
    ):
        sys.excepthook(type(error), error, None)
        assert capsys.readouterr().err.startswith(said)
    sys.excepthook(*raised(lambda: file_digest("none.pt")))  # raised by Python, for a file that this package opens
    assert capsys.readouterr().err == "error: none.pt: No such file or directory\n"
    not_meant_for_users = (
        lambda: int("many"),
        lambda: subprocess.run(["no-such-program"]),
        lambda: lengths(["x"]),  # a ValueError of an operation in this package
    )
    for work in not_meant_for_users:
        sys.excepthook(*raised(work))
        said = capsys.readouterr().err
        assert "Traceback" in said
        assert said.endswith("RuntimeError: Failed to evaluate ConfigExpression\n")


def test_logs_have_tracebacks_only_of_other_errors(monkeypatch, caplog):
    monkeypatch.setattr("sys.excepthook", sys.excepthook)
    options(monkeypatch)
    before = logging.getLogRecordFactory()
    errors_in_one_line()
    try:
        for work in (lambda: check_counts(epochs="many"), lambda: int("many")):
            logging.getLogger("training").error("Exception", exc_info=raised(work))
    finally:
        logging.setLogRecordFactory(before)
    assert [bool(record.exc_info) for record in caplog.records] == [False, True]
    assert caplog.messages == ["Exception (epochs 'many': expected a whole number, 1 or more.)", "Exception"]


@pytest.mark.parametrize("name", ["m3ae", "mag_ms", "medmap", "passion", "gss"])
@pytest.mark.parametrize("config", ["train", "inference"])
def test_every_bundle_says_so_first(name, config):
    begin = json.loads(Path(bundle_root(name), "configs", f"{config}.json").read_text())["initialize"]
    first = begin.index("$io.errors_in_one_line()")
    assert first == (1 if config == "train" else 0)  # after start_processes
    assert begin[first + 1] == "$io.refuse_unknown_options(@bundle_root)"
