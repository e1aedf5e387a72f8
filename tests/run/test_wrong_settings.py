"""What `python -m monai.bundle run` refuses in one line, before an image is read or a network is built."""

import json
from collections.abc import Callable
from itertools import product

import pytest
from bundles.running import shipped
from filelock import FileLock
from fire import Fire
from monai.bundle import create_workflow
from processes import run, run_module

from common.io.bundle import bundle_names, bundle_root
from common.io.errors import unwrapped_errors
from common.io.lock import LOCK, unlock_folder


@pytest.fixture
def refusal(tmp_path, coarse_dir) -> Callable[..., str | None]:
    """Return what a run refuses before anything is built, its words read as MONAI does; None if it would go on."""

    def run_until_refused(name: str, configs: tuple[str, ...], *words: str) -> str | None:
        files = str([f"{bundle_root(name)}/configs/{config}" for config in configs])
        given = ["--init_id=initialize#0", "--logging_file=False", f"--output_dir={tmp_path}"]
        given += [] if any(word.startswith("--dataset_dir") for word in words) else [f"--dataset_dir={coarse_dir}"]
        try:
            with unwrapped_errors():
                Fire(create_workflow, ["--config_file", files, *given, *words])
        except (ValueError, OSError) as error:
            return str(error)
        finally:
            unlock_folder(tmp_path)
        return None

    return run_until_refused


EVALUATION = ("inference.json", "evaluate.json", "recipes/phantom.json")


@pytest.mark.parametrize(
    ("name", "configs"),
    [*product(bundle_names(), [("train.json",)]), *product(shipped(), [("inference.json",), EVALUATION])],
)
def test_configs_as_they_are(refusal, name, configs):
    assert refusal(name, configs) is None


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
        ("gss", ("inference.json",), ["--ckpt_path=/nowhere.pt"], "ckpt_path /nowhere.pt: no such checkpoint"),
        ("gss", ("inference.json",), ["--ckpt_path=['a.pt','b.pt']"], "ckpt_path ['a.pt', 'b.pt']: expected one path"),
        ("gss", ("inference.json",), ["--overlap=1.5"], "overlap 1.5: expected at least 0 and less than 1"),
        ("gss", ("inference.json",), ["--sampling=average"], "trained with sampling 'points', not 'average'"),
        ("gss", ("inference.json",), ["--spacing=[1,1,1]"], "trained with spacing [2.0, 2.0, 2.0], not [1, 1, 1]"),
        ("gss", ("inference.json",), ["--output_dir=2024_01"], "202401: MONAI does not read this as text"),
        ("gss", EVALUATION, ["--part=training2"], "Unknown part 'training2'"),
        ("gss", ("train.json",), ["--normalise"], "'rmalise' is not a key of"),
        ("m3ae", ("train.json",), ["--pretrained_weights=no"], "pretrained_weights 'no': expected one of False, True"),
        ("m3ae", ("train.json",), ["--resume=no"], "resume 'no': expected true or false"),
        ("gss", ("train.json",), ["--device=gpu"], "device gpu: no name of a device; expected cpu"),
        ("gss", EVALUATION, ["--conventions#emtpy=nan"], "conventions: key 'emtpy': expected one of 'empty', 'hd95'"),
        ("gss", ("inference.json",), ["--modalities=true"], "Unknown modality True; expected one of t1, t1c"),
        ("gss", ("inference.json",), ["--modalities=[1]"], "Unknown modality 1; expected one of t1, t1c"),
        ("m3ae", ("train.json",), ["--crop=[16,16,'16']"], "crop [16, 16, '16']: expected 3 numbers"),
        ("m3ae", ("train.json",), ["--crop=[16,True,16]"], "crop [16, True, 16]: expected 3 numbers"),
        ("gss", ("train.json",), ["--val_interval=0"], "val_interval 0: expected a number from 1"),
        ("gss", ("train.json",), ["--num_workers=-1"], "num_workers -1: expected a number from 0 to 1000"),
        ("gss", ("train.json",), ["--conventions=max"], "conventions 'max': expected an object"),
        ("gss", ("train.json",), ["--evaluation_configs=x.json"], "evaluation_configs x.json: no such file"),
        ("gss", ("recipes/brats2020.json", "train.json"), [], "the bundle's own file comes after it and would undo it"),
        ("gss", ("train.json", "../../m3ae/configs/recipes/phantom.json"), [], "'grid' is not a key of this config"),
        (
            "m3ae",
            ("train.json",),
            ["--tracking_uri=http://127.0.0.1:9"],
            "tracking_uri 'http://127.0.0.1:9': not",
        ),
        (
            "medmap",
            ("train.json",),
            ["--prior=adc"],
            "prior 'adc': is not a sequence of the cohort; set",
        ),
        (
            "gss",
            ("train.json",),
            ["--train#optimizer#learning_rate=0.01"],
            "train#optimizer#learning_rate is not an argument of torch.optim.Adam",
        ),
        ("gss", ("train.json",), ["--output_dir='~/out'"], "output_dir ~/out: ~ and variables are not replaced here"),
        (
            "gss",
            ("train.json",),
            ["--dataset_dir='$HOME/data'"],
            "dataset_dir $HOME/data: ~ and variables are not replaced here",
        ),
        ("gss", ("inference.json",), ["--dataset_dir=common"], "common: no image"),
        ("gss", EVALUATION, ["--panel_cases=nobody"], "panel_cases: 'nobody' is not evaluated"),
        ("passion", ("train.json",), ["--missing_rates=[0.5]", "--masks=null"], "missing_rates"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(refusal, name, configs, words, facts):
    said = refusal(name, configs, *words)
    assert facts in said
    assert "\n" not in said


def test_a_server_is_not_asked_for_what_is_not_evaluated(refusal):
    """Nor is a key of an object refused that it takes: `build_network` passes on what it does not know."""
    words = ["--run_id=fit", "--evaluation#overrides#mlflow=http://127.0.0.1:9", "--network_def#dropout_prob=0.1"]
    assert refusal("gss", ("train.json",), *words, "--train#optimizer#betas=[0.9,0.99]") is None


@pytest.mark.parametrize(("step", "said"), [("run", "1 cases in training; expected at least 2"), ("evaluate", None)])
def test_too_few_cases_for_a_batch(tmp_path, refusal, coarse_dir, step, said):
    parts = json.loads((coarse_dir / "datalist.json").read_text())
    (tmp_path / "list.json").write_text(json.dumps({**parts, "training": parts["training"][:1]}))
    refused = refusal("m3ae", ("train.json",), f"--datalist={tmp_path}/list.json", f"--run_id={step}")
    assert (refused and said in refused) if said else refused is None


def test_a_run_resumed_with_other_settings(tmp_path, refusal):
    (tmp_path / "trained_last.pt").touch()
    note = {"version": "another", "settings": {"width": 99, "power": 0.9}, "cases": {"training": {}}}
    (tmp_path / "run.json").write_text(json.dumps(note))
    assert "width was 99, is " in refusal("gss", ("train.json",), "--resume=true")


def test_null_in_a_file_of_arguments(tmp_path, refusal):
    """MONAI leaves None out where the command line gives it, but not where a file does."""
    (tmp_path / "args.json").write_text(json.dumps({"calibrate_on": None}))
    assert refusal("gss", ("train.json",), f"--args_file={tmp_path}/args.json") is None


@pytest.mark.parametrize(
    ("name", "configs", "steps", "known"),
    [
        ("gss", ("train.json",), ("train", "validate", "data", "initialize", "x"), "training, fit, evaluate, run"),
        ("m3ae", ("train.json",), ("cohort",), "training, pretrain, finetune, fit, evaluate, run"),
        ("medmap", ("train.json", "backbones/pmkl.json"), ("teach",), "training, fit, evaluate, run, instruct"),
        ("passion", ("train.json",), ("training",), "fit, evaluate, run"),
        ("gss", ("inference.json",), ("inference", "evaluate", "evaluator"), "evaluating, run"),
        ("gss", EVALUATION, ("evaluate", "report"), "evaluating, run"),
    ],
)
def test_a_word_that_is_no_list_of_steps(refusal, name, configs, steps, known):
    for step in steps:
        expected = f"run {step}: not a list of steps of these configs; expected one of {known}."
        assert refusal(name, configs, "--run_id", step) == expected
    for step in known.split(", "):
        assert refusal(name, configs, "--run_id", step) is None


def test_figures_of_others(tmp_path, refusal):
    for folder, configs in ((tmp_path / "figures", EVALUATION), (tmp_path / "evaluation" / "figures", ("train.json",))):
        folder.mkdir(parents=True)
        (folder / "mine.png").touch()
        assert "mine.png: a report would replace it" in refusal("gss", configs)


def test_a_folder_in_use(tmp_path, refusal):
    with FileLock(tmp_path / LOCK):
        assert "in use by another process" in refusal("gss", ("train.json",))


@pytest.mark.parametrize(
    ("words", "fact"),
    [
        (["--config_file=bundles/gss/configs/train.json", "--epoch=3"], "'epoch' is not a key of "),
        (
            ["--config_file=bundles/gss/configs/inference.json", "--ckpt_path=bundles/m3ae/models/single.pt"],
            "bundles/m3ae/models/single.pt: a checkpoint of another architecture than RFNet. It is of ",
        ),
    ],
)
def test_a_command_ends_in_one_line(tmp_path, coarse_dir, words, fact):
    folders = [f"--dataset_dir={coarse_dir}", f"--output_dir={tmp_path}"]
    code, said = run(run_module, "monai.bundle", "run", *words, *folders)
    assert code == 1
    assert said.splitlines()[-1].startswith(f"error: {fact}")
