"""The command lines, as users type them."""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from evaluation.examples import random_evaluation
from run_tools import run

from common.evaluation.metrics.results import write_evaluation
from mmb.arguments import parse

ROOT = Path(__file__).parents[1]


@pytest.fixture
def data(tmp_path) -> Path:
    """Three subjects with two modalities and a label."""
    rng = np.random.default_rng(0)
    for case in ("a", "b", "c"):
        (tmp_path / "data" / case).mkdir(parents=True)
        for token in ("t1", "flair", "seg"):
            volume = np.zeros((5, 5, 5), np.float32)
            volume[1:4, 1:4, 1:4] = 4 if token == "seg" else rng.uniform(1, 9, (3, 3, 3))
            nib.save(nib.Nifti1Image(volume, np.eye(4)), tmp_path / "data" / case / f"{case}_{token}.nii.gz")
    return tmp_path / "data"


def test_datalist(capsys, data, tmp_path):
    output = tmp_path / "list.json"
    code = run("datalist", "--cohort", "brats2020", "--dataset_dir", data, "--output", output, "--split", "full")
    assert code is None
    assert "3 training, 0 validation, 0 test" in capsys.readouterr().out
    assert [item["case"] for item in json.loads(output.read_text())["training"]] == ["a", "b", "c"]


def unlabelled(data: Path) -> None:
    (data / "a" / "a_seg.nii.gz").rename(data / "a" / "a_mask.nii.gz")


def black(data: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((5, 5, 5), np.float32), np.eye(4)), data / "b" / "b_t1.nii.gz")


@pytest.mark.parametrize(
    ("change", "code", "end"),
    [
        (lambda data: None, None, "3 cases, 0 with problems\n"),
        (unlabelled, None, ", 1 without a readable label; image files ignored because of their names: 1\n"),
        (black, 1, "3 cases, 1 with problems\nb: t1: every voxel is 0\n"),
    ],
    ids=["good", "unlabelled", "bad"],
)
def test_check(capsys, data, change, code, end):
    change(data)
    assert run("check", "--cohort", "brats2020", "--dataset_dir", data) == code
    printed = capsys.readouterr().out
    assert "t1+flair" in printed
    assert f"3 cases, {code or 0} with problems" in printed
    assert end in printed
    assert (data / "checked.json").is_file() == (code is None)


def test_module_runs(monkeypatch, capsys, data):
    monkeypatch.setattr(sys, "argv", ["mmb", "check", "--cohort", "brats2023", "--dataset_dir", str(data)])
    monkeypatch.delitem(sys.modules, "mmb.__main__")
    with pytest.raises(SystemExit) as stop:
        runpy.run_module("mmb", run_name="__main__")
    assert stop.value.code == 1
    assert "label values [4] are not defined in this cohort" in capsys.readouterr().out


def test_help_and_refusals_do_not_wait_for_pytorch():
    code = "import sys, mmb.__main__ as door; sys.argv = ['mmb', 'chek']; "
    code += "import atexit; atexit.register(lambda: print('torch' in sys.modules)); door.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.startswith("error: chek: no such verb; see mmb --help")
    assert done.stdout == "False\n"


def test_what_has_moved_is_named():
    done = subprocess.run([sys.executable, "-m", "tools", "predict"], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stderr) == (1, "error: `python -m tools predict` is `mmb predict` now.\n")


@pytest.mark.parametrize("error", [ValueError("no\x1b"), FileNotFoundError("no\x1b"), PermissionError("no\x1b")])
def test_what_is_wrong_with_files_ends_in_a_line_and_all_else_in_a_traceback(monkeypatch, error):
    def raises(error):
        raise error

    monkeypatch.setattr("mmb.__main__.parse_verb", lambda *_: lambda: raises(error))
    assert run("check") == "error: no\\x1b"
    monkeypatch.setattr("mmb.__main__.parse_verb", lambda *_: lambda: raises(KeyError("a mistake")))
    with pytest.raises(KeyError):
        run("check")


def test_pool_refuses_folders(tmp_path):
    for name in ("a", "b"):
        write_evaluation(random_evaluation(), tmp_path / name)
    for folders in (["a"], ["a", "a"]):
        said = run("pool", tmp_path / "out", "Method", *(tmp_path / name for name in folders))
        assert "expected two or more, each once" in said
    assert "is one of the folders to read" in run("pool", tmp_path / "a", "Method", tmp_path / "a", tmp_path / "b")


LEADERBOARD = ("leaderboard", "bundles/leaderboard.json", "OUT")
DATALIST = ("datalist", "brats2020", "DATA", "OUT")
PREDICT = ("predict", "DATA/a", "OUT", "m3ae")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("dattalist", "brats2020"), "dattalist: no such verb; see mmb --help"),
        (("check", "brats", "x"), "Unknown cohort 'brats'"),
        (("check", "brats2020", "nowhere\x1b[2J"), "nowhere\\x1b[2J: no such folder"),
        ((*LEADERBOARD, "--slurm", "--at_once", 2), "--slurm, --only and --at_once: expected at most one"),
        ((*LEADERBOARD, "--at_once", -1), "--at_once -1: expected a number from 0 to inf."),
        ((*LEADERBOARD, "--dry_run", "--dataset_dir", "DATA"), "--dry_run makes its own data; give only one"),
        ((*LEADERBOARD, "--cohort", "brats2020"), "--dataset_dir: missing; expected the folder of cohort brats2020"),
        ((*PREDICT, "--modalities", 5), "Unknown modality '5'"),
    ],
)
def test_what_is_refused_leaves_nothing_behind(data, tmp_path, words, message):
    said = run(*(str(word).replace("DATA", str(data)).replace("OUT", str(tmp_path / "out")) for word in words))
    assert said.startswith("error: ")
    assert message in said
    assert not (tmp_path / "out").is_file()
    assert not list(tmp_path.glob("out/*"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*DATALIST, "--sead", 5), "unrecognized arguments: --sead 5"),
        ((*DATALIST, "--seed", "five"), "--seed: five: expected a whole number"),
        ((*DATALIST, "--split", "--seed", 5), "--split: expected one argument"),
        ((*DATALIST, "--split", ""), "--split: expected a value, not an empty one"),
        ((*DATALIST, "full"), "unrecognized arguments: full"),
        (DATALIST[:3], "the following arguments are required: OUTPUT"),
        ((*LEADERBOARD, "--dry_run=perhaps"), "--dry_run: perhaps: expected true or false"),
        ((*PREDICT, "--serie", "t1c=7"), "unrecognized arguments: --serie t1c=7"),
        ((*PREDICT, "--series", "7"), "--series: 7: expected NAME=VALUE"),
    ],
)
def test_words_that_do_not_fit(capsys, tmp_path, words, message):
    assert run(*words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"usage: mmb {words[0]} ")
    assert message in said


def test_empty_folders_with_names_of_ours_in_the_working_directory_do_no_harm(tmp_path):
    for name in ("common", "mmb", "tools", "clinic"):
        (tmp_path / name).mkdir()
    for words in (["-m", "mmb", "--help"], ["-c", "import common; print(common.__version__)"]):
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, *words], cwd=tmp_path, env=environment, capture_output=True)
        assert done.returncode == 0, done.stderr


def test_help(capsys):
    assert run("datalist", "--help") == 0
    printed = " ".join(capsys.readouterr().out.split())
    assert "seed of a split that is drawn at random" in printed
    assert "COHORT DATASET_DIR OUTPUT" in printed
    assert run("--help") == 0
    assert re.search(r"^patients\n  predict +Segment", capsys.readouterr().out, re.M)


def verb(
    text: str,
    number: int | None = None,
    *more: str,
    flag: bool = False,
    sizes: Sequence[int] = (),
    pairs: dict | None = None,
) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["007"], ("007", None, (), {})),
        (["--text", "1e3", "--number=None", "a", "b"], ("1e3", None, ("a", "b"), {})),
        (["a", "--flag", "b", "--number", "-8", "c"], ("a", -8, ("b", "c"), {"flag": True})),
        (["a", "--flag", "false", "--sizes=[80, 64,80]"], ("a", None, (), {"sizes": [80, 64, 80]})),
        (
            ["a", "--sizes", "5", "--pairs", "t1c=7", "t1=none"],
            ("a", None, (), {"sizes": [5], "pairs": {"t1c": "7", "t1": None}}),
        ),
        (["a", "--pairs", "t1c=7", "--pairs", "t2=3-1"], ("a", None, (), {"pairs": {"t1c": "7", "t2": "3-1"}})),
    ],
)
def test_words_become_values_by_their_annotations(words, expected):
    call, (text, number, more, named) = parse(verb, words, "verb"), expected
    assert call.args == (text, number, *more)
    assert call.keywords == {"flag": False, "sizes": (), "pairs": None} | named


def test_further_options_have_a_dot():
    def serve(port: int = 8000, **settings: str) -> None:
        raise AssertionError("called")

    assert parse(serve, [], "serve").args == (8000,)
    call = parse(serve, ["--m3ae.ckpt-path", "x", "--port=1"], "serve")
    assert (call.args, call.keywords) == ((1,), {"m3ae.ckpt_path": "x"})
    with pytest.raises(SystemExit):
        parse(serve, ["--prot=1"], "serve")


def test_texts_stay_as_they_are_typed(monkeypatch, data, tmp_path):
    monkeypatch.chdir(tmp_path)
    for name in ("2024_01", "out#1", "(a)", "1e3", "007", "None"):
        assert run("datalist", "--cohort", "brats2020", data, name, "--seed=5") is None
        assert json.loads(Path(name).read_text())["seed"] == 5
    assert len(list(tmp_path.iterdir())) == 7


def test_what_a_terminal_would_obey_is_written_out(capsys, tmp_path):
    case = tmp_path / "data" / "\x1b]0;owned\x07\u202ea"
    save(np.zeros((2, 2, 2), np.uint8), case / "a_t1.nii.gz")
    assert run("check", "brats2020", case.parent) == 1
    assert "\\x1b]0;owned\\x07\\u202ea" in capsys.readouterr().out


PATIENTS = ("P_01", "P_02", "P_03", "P_04", "P_05")


def tumour(case: str, moved: int = 0) -> np.ndarray:
    """Return nested boxes of oedema, rim and core, 6 to 10 planes; predictions are moved."""
    label, end = np.zeros((20, 19, 18), np.uint8), 9 + int(case[-2:])
    label[4:end, 4:15, 4:14], label[5:end, 5:14, 5:13], label[6:end, 6:13, 6:12] = 2, 4, 1
    return np.roll(label, moved, axis=0)


def cell(moved: int | None) -> str:
    """Return what a table shows of the whole tumour's Dice."""
    values = [100 * (planes - (moved or 0)) / planes for planes in range(6, 11)]
    return "–" if moved is None else f"{np.mean(values):.1f} ± {np.std(values, ddof=1):.1f}"


def save(label: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(label, np.diag([-1, -1, 1, 1])), path)


@pytest.fixture
def others(tmp_path) -> Path:
    """The outputs of other programs: a BraTS folder, and label maps of two programs in their own layouts."""
    for case in PATIENTS:
        for modality in ("t1", "t1ce", "t2", "flair"):
            save(np.full((20, 19, 18), 7, np.int16), tmp_path / "brats" / case / f"{case}_{modality}.nii.gz")
        save(tumour(case), tmp_path / "brats" / case / f"{case}_seg.nii.gz")
        for folder, moved in {"t1+t2": 3, "t1c+flair": 2, "t1+t1c+t2+flair": 1}.items():
            save(tumour(case, moved), tmp_path / "careful" / folder / f"{case}.nii.gz")
        for folder, moved in {"t1c+flair": 5, "t1+t1c+t2+flair": 4}.items():
            save(tumour(case, moved), tmp_path / "guessing" / folder / f"{case}.nii.gz")
    return tmp_path


def compare(others: Path, *more: object, careful: str = "careful", guessing: str = "guessing") -> list[object]:
    """Return the command line that compares the two programs."""
    methods = [f"Careful={others / careful}", f"A&B <guess>={others / guessing}"]
    return ["compare", others / "out", *methods, "--reference", others / "brats", "--cohort", "brats2020", *more]


def test_compare_label_maps_of_other_programs(others, capsys):
    assert run(*compare(others)) is None
    assert capsys.readouterr().out == f"{others / 'out' / 'report.md'}: 2 methods, 5 cases\n"

    figures = {path.name for path in (others / "out" / "figures").iterdir()}
    stems = ("comparison", "robustness", "boxplots_careful", "boxplots_a_b_guess")
    assert figures == {f"{stem}.{suffix}" for stem in stems for suffix in ("png", "pdf")}
    markdown = (others / "out" / "report.md").read_text(encoding="utf-8")
    rows = [line.strip("| ").split(" | ") for line in (others / "out" / "tables" / "dice.md").read_text().split("\n")]
    for circles, careful, guessing in (("●○●○", 3, None), ("○●○●", 2, 5), ("●●●●", 1, 4)):
        (row,) = (row for row in rows if "".join(row[:4]) == circles)
        assert row[4:6] == [cell(careful), cell(guessing)]
        assert row[4] in markdown
    assert "They are over 2 of 3 subsets: T1c + FLAIR, T1 + T1c + T2 + FLAIR." in markdown
    assert "## Paired tests" in markdown


def test_compare_takes_what_it_measured(capsys, others, undrawn):
    """Evaluations can replace label maps; other label maps then get the conventions of the evaluation."""
    assert run(*compare(others, "--conventions", "hd95=pooled", "et_min_voxels=500")) is None
    first = (others / "out" / "tables" / "hd95.md").read_text()
    assert "hd95 = pooled, et\\_min\\_voxels = 500" in first
    assert run(*compare(others, careful="out/evaluations/careful")) is None
    assert (others / "out" / "tables" / "hd95.md").read_text() == first
    progress = capsys.readouterr().err
    assert progress.count("Careful:   0%") == 1  # nothing is measured a second time
    measured = [f"{name}={others}/out/evaluations/{folder}" for name, folder in (("x", "careful"), ("y", "a_b_guess"))]
    said = run("compare", others / "again", *measured, "--conventions", "hd95=pooled")
    assert said == "error: --conventions: is for label maps; results keep their own conventions."
    assert not (others / "again").exists()


@pytest.fixture
def reports(monkeypatch) -> list[tuple]:
    """Write no reports, which takes seconds; return the arguments that each would be written with."""
    given = []
    monkeypatch.setattr("mmb.experiments.comparison.compare.write_report", lambda *arguments: given.append(arguments))
    return given


def test_compare_some_cases_alone(tmp_path, reports, capsys):
    for name, seed in (("one", 0), ("two", 1)):
        write_evaluation(random_evaluation(name, cases=("A_1", "A_2", "B_1", "2024"), seed=seed), tmp_path / name)
    methods = ["compare", tmp_path / "out", f"one={tmp_path / 'one'}", f"two={tmp_path / 'two'}"]
    for words, count, said in ((["A_*,B_1"], 3, "A_*, B_1"), (["2024"], 1, "2024")):
        assert run(*methods, "--cases", *words) is None
        assert capsys.readouterr().out.endswith(f"2 methods, {count} cases\n")
        assert f"Only the cases {said}." in reports[-1][4]
    assert "no case matches C_*" in run(*methods, "--cases", "C_*")
    assert "is one of the folders to read" in run("compare", tmp_path / "one", *methods[2:])


def refused(others: Path, *more: object, **folders: str) -> str:
    """Return the message about a comparison that must be refused."""
    said = run(*compare(others, *more, **folders))
    assert isinstance(said, str)
    assert said.startswith("error: ")
    assert not {"report.md", "tables", "figures"} & {path.name for path in (others / "out").glob("*")}
    return said


class TestCompareRefuses:
    def test_other_conventions_and_references(self, others, undrawn):
        assert run(*compare(others)) is None
        shutil.copytree(others / "out" / "evaluations" / "careful", others / "measured")
        shutil.rmtree(others / "out")
        save(tumour("P_05"), others / "brats" / "P_04" / "P_04_seg.nii.gz")
        said = refused(others, "--conventions", "empty=nan", careful="measured")
        assert "Not comparable: empty of Careful is 'brats', of A&B <guess> 'nan'; " in said
        assert "the reference of case P_04 is another one" in said

    @pytest.mark.parametrize(
        ("more", "message"),
        [
            (["--conventions", "empty=lenient"], "conventions: empty is 'lenient'; expected brats or released"),
            (["--cohort", "brats"], "Unknown cohort 'brats'"),
            (["--published", "M3AE"], "--published M3AE: expected PAPER/TABLE/DATASET."),
            (["--published", "M3AE/99/x"], "No published table M3AE, 99, x"),
            (["--panel_cases", "P_01"], "slices that evaluations store, and Careful is label maps"),
            (["Careful=."], "two have the same name; give each its own."),
            (["."], "expected two or more NAME=FOLDER, or with --published one"),
            (["third=nowhere"], "nowhere: no such folder; expected an evaluation's output, or label maps."),
        ],
    )
    def test_what_the_command_line_got_wrong(self, others, more, message):
        assert message in refused(others, *more)
        assert not (others / "out").exists() or not list((others / "out").iterdir())

    def test_label_maps_without_their_reference(self, others):
        said = run("compare", others / "out", f"a={others / 'careful'}", f"b={others / 'guessing'}")
        assert said == f"error: {others / 'careful'}: has no results.csv; for label maps give --reference and --cohort."
