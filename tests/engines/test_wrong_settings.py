"""What `python -m monai.bundle run` refuses in one line, before data are read or a network is built."""

from pathlib import Path

import pytest
from filelock import FileLock

from common.engines.settings import check_run, refuse_wrong_settings
from common.io import bundle_root, unlock_folder
from common.io.lock import LOCK

NAMES = ("m3ae", "mag_ms", "medmap", "passion", "gss")


def refusal(monkeypatch, folder: Path, name: str, configs: tuple[str, ...], *words: str) -> object:
    """Return the message with which the command would end before anything is built; None if it would go on."""
    root = bundle_root(name)
    files = str([f"{root}/configs/{config}" for config in configs])
    given = [f"--output_dir={folder}", f"--dataset_dir={folder}", *words]
    monkeypatch.setattr("sys.argv", ["/lib/monai/bundle/__main__.py", "run", "--config_file", files, *given])
    try:
        refuse_wrong_settings(root, str(folder) if configs[0] == "train.json" else None)
    except SystemExit as stop:
        return stop.code
    finally:
        unlock_folder(folder)
    return None


EVALUATION = ("inference.json", "evaluate.json", "recipes/phantom.json")


@pytest.mark.parametrize("configs", [("train.json",), ("inference.json",), EVALUATION])
@pytest.mark.parametrize("name", NAMES)
def test_configs_as_they_are(monkeypatch, tmp_path, name, configs):
    assert refusal(monkeypatch, tmp_path, name, configs) is None


@pytest.mark.parametrize(
    ("name", "configs", "words", "facts"),
    [
        ("gss", ("train.json",), ["--epoch=3"], "'epoch' is not a key of"),
        *[
            ("gss", ("train.json",), [f"--{key}={value}"], f"{key} {value}: expected a number from 0 to {highest}")
            for key, value, highest in (
                *[("learning_rate", value, 1) for value in (-0.001, 2)],
                *[("flip_prob", value, 1) for value in (50, -0.1)],
                ("rotation", 15, 3.14159),
            )
        ],
        ("gss", ("train.json",), ["--init_from=/nowhere.pt"], "init_from /nowhere.pt: no such file"),
        ("gss", ("train.json",), ["--dataset_dir=/nowhere"], "dataset_dir /nowhere: no such folder"),
        ("gss", ("train.json",), ["--spacing=[1,1]"], "spacing [1, 1]: expected 3 numbers"),
        ("gss", ("train.json",), ["--cohort=brats1999"], "Unknown cohort 'brats1999'"),
        ("gss", ("train.json",), ["--mirror_axes=[3]"], "mirror_axes"),
        ("gss", ("train.json",), ["--device=cuda:99"], "device cuda:99: not available"),
        ("gss", ("train.json",), ["--precision=half"], "precision 'half': expected one of"),
        ("gss", ("train.json",), ["--decision=best"], "decision 'best': expected one of"),
        ("gss", ("train.json",), ["--matmul_precision=low"], "matmul_precision 'low': expected one of"),
        ("gss", ("train.json",), ["--conventions#empty=none"], "conventions: empty is 'none'"),
        ("gss", ("train.json",), ["--calibrate_on=tests"], "Unknown part 'tests'"),
        ("gss", ("train.json",), ["--output_dir=/proc/version/out"], "cannot write there"),
        ("gss", ("inference.json",), ["--ckpt_path=/nowhere.pt"], "ckpt_path /nowhere.pt: no such file"),
        ("gss", ("inference.json",), ["--output_dir=2024_01"], "MONAI reads this as 202401"),
        ("gss", EVALUATION, ["--part=training2"], "Unknown part 'training2'"),
        ("gss", ("train.json",), ["--calibrate_on=None"], "calibrate_on None: MONAI leaves this out"),
        ("gss", ("train.json",), ["--normalise"], "'rmalise' is not a key of"),
        ("m3ae", ("train.json",), ["--pretrained_weights=no"], "pretrained_weights 'no': expected true or false"),
        ("gss", ("train.json",), ["--device=gpu"], "device gpu: no name of a device; expected cpu"),
        ("gss", ("train.json",), ["--conventions=max"], "conventions 'max': expected an object"),
        ("gss", ("train.json",), ["--evaluation_configs=x.json"], "evaluation_configs x.json: no such file"),
        ("gss", ("recipes/brats2020.json", "train.json"), [], "train.json: would undo"),
        ("gss", ("train.json", "../../m3ae/configs/recipes/phantom.json"), [], "phantom.json: of another bundle than"),
        ("gss", EVALUATION, ["--mlflow=http://127.0.0.1:9"], "not a server or store that can be used"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(monkeypatch, tmp_path, name, configs, words, facts):
    said = refusal(monkeypatch, tmp_path, name, configs, *words)
    assert said.startswith("error: ")
    assert facts in said
    assert "\n" not in said


@pytest.mark.parametrize(
    ("name", "configs", "steps", "known"),
    [
        ("gss", ("train.json",), ("train", "training", "validate", "data", "initialize", "x"), "fit, evaluate, run"),
        ("m3ae", ("train.json",), ("training", "cohort"), "pretrain, finetune, fit, evaluate, run"),
        ("medmap", ("train.json", "backbones/pmkl.json"), ("teach",), "fit, evaluate, run, instruct"),
        ("gss", ("inference.json",), ("inference", "evaluate", "evaluator"), "run"),
        ("gss", EVALUATION, ("evaluate", "report"), "run"),
    ],
)
def test_a_word_that_is_no_list_of_steps(monkeypatch, tmp_path, name, configs, steps, known):
    for step in steps:
        for words in ([step], ["--run_id", step]):
            expected = f"error: run {step}: not a list of steps of these configs; expected one of {known}."
            assert refusal(monkeypatch, tmp_path, name, configs, *words) == expected
    for step in known.split(", "):
        assert refusal(monkeypatch, tmp_path, name, configs, step) is None


def test_figures_of_others(monkeypatch, tmp_path):
    for folder, configs in ((tmp_path / "figures", EVALUATION), (tmp_path / "evaluation" / "figures", ("train.json",))):
        folder.mkdir(parents=True)
        (folder / "mine.png").touch()
        assert "mine.png: a report would replace it" in refusal(monkeypatch, tmp_path, "gss", configs)


def test_a_folder_in_use(monkeypatch, tmp_path):
    with FileLock(tmp_path / LOCK):
        assert "in use by another process" in refusal(monkeypatch, tmp_path, "gss", ("train.json",))


def test_a_program_gets_the_error_itself(monkeypatch):
    monkeypatch.setattr("sys.argv", ["pytest"])
    root = bundle_root("gss")
    refuse_wrong_settings(root)
    with pytest.raises(ValueError, match="learning_rate 2: expected a number"):
        check_run([f"{root}/configs/train.json"], {"learning_rate": 2, "dataset_dir": root}, root)
