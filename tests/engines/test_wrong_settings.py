"""What `python -m monai.bundle run` refuses in one line, before data are read or a network is built."""

from pathlib import Path

import pytest
from filelock import FileLock
from fire import Fire
from monai.bundle import create_workflow
from processes import run, run_module

from common.io import bundle_root, unlock_folder
from common.io.command import unwrapped_errors
from common.io.lock import LOCK

NAMES = ("m3ae", "mag_ms", "medmap", "passion", "gss")


def refusal(folder: Path, name: str, configs: tuple[str, ...], *words: str) -> str | None:
    """Return what a run refuses before anything is built, its words read as MONAI does; None if it would go on."""
    files = str([f"{bundle_root(name)}/configs/{config}" for config in configs])
    given = ["--init_id=initialize::0", "--logging_file=False", f"--output_dir={folder}", f"--dataset_dir={folder}"]
    try:
        with unwrapped_errors():
            Fire(create_workflow, ["--config_file", files, *given, *words])
    except (ValueError, OSError) as error:
        return str(error)
    finally:
        unlock_folder(folder)
    return None


EVALUATION = ("inference.json", "evaluate.json", "recipes/phantom.json")


@pytest.mark.parametrize("configs", [("train.json",), ("inference.json",), EVALUATION])
@pytest.mark.parametrize("name", NAMES)
def test_configs_as_they_are(tmp_path, name, configs):
    assert refusal(tmp_path, name, configs) is None


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
        ("gss", ("inference.json",), ["--output_dir=2024_01"], "202401: MONAI reads this as no text"),
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
def test_what_is_wrong_is_said_in_one_line(tmp_path, name, configs, words, facts):
    said = refusal(tmp_path, name, configs, *words)
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
def test_a_word_that_is_no_list_of_steps(tmp_path, name, configs, steps, known):
    for step in steps:
        expected = f"run {step}: not a list of steps of these configs; expected one of {known}."
        assert refusal(tmp_path, name, configs, "--run_id", step) == expected
    for step in known.split(", "):
        assert refusal(tmp_path, name, configs, "--run_id", step) is None


def test_figures_of_others(tmp_path):
    for folder, configs in ((tmp_path / "figures", EVALUATION), (tmp_path / "evaluation" / "figures", ("train.json",))):
        folder.mkdir(parents=True)
        (folder / "mine.png").touch()
        assert "mine.png: a report would replace it" in refusal(tmp_path, "gss", configs)


def test_a_folder_in_use(tmp_path):
    with FileLock(tmp_path / LOCK):
        assert "in use by another process" in refusal(tmp_path, "gss", ("train.json",))


def test_a_command_ends_in_one_line():
    root = bundle_root("gss")
    code, said = run(run_module, "monai.bundle", "run", f"--config_file={root}/configs/train.json", "--epoch=3")
    assert code == 1
    assert said.splitlines()[-1].startswith("error: 'epoch' is not a key of ")
