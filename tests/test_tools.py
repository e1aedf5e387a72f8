"""The command lines, as users type them."""

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from evaluation.examples import random_evaluation
from mutations import MUTATIONS
from run_tools import run

from common.evaluation.metrics.results import write_evaluation
from mmb.arguments import parse

ROOT = Path(__file__).parents[1]


def save(voxels: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels, np.diag([-1, -1, 1, 1])), path)


@pytest.fixture
def data(tmp_path) -> Path:
    """Three subjects with two modalities and a label."""
    rng = np.random.default_rng(0)
    for case in ("a", "b", "c"):
        for token in ("t1", "flair", "seg"):
            volume = np.zeros((5, 5, 5), np.float32)
            volume[1:4, 1:4, 1:4] = 4 if token == "seg" else rng.uniform(1, 9, (3, 3, 3))
            save(volume, tmp_path / "data" / case / f"{case}_{token}.nii.gz")
    return tmp_path / "data"


def test_datalist(capsys, data, tmp_path):
    output = tmp_path / "list.json"
    code = run("datalist", "--cohort", "brats2020", "--dataset_dir", data, "--output", output, "--split", "full")
    assert code is None
    assert "3 training, 0 validation, 0 test" in capsys.readouterr().out
    assert [item["case"] for item in json.loads(output.read_text())["training"]] == ["a", "b", "c"]


def test_check(capsys, data):
    (data / "a" / "a_seg.nii.gz").rename(data / "a" / "a_mask.nii.gz")
    assert run("check", "--cohort", "brats2020", "--dataset_dir", data) is None
    printed = capsys.readouterr().out
    assert "t1+flair" in printed
    assert "3 cases, 0 with problems" in printed
    assert ", 1 without a readable label; image files ignored because of their names: 1\n" in printed
    (data / "checked.json").unlink()
    save(np.zeros((5, 5, 5), np.float32), data / "b" / "b_t1.nii.gz")
    assert run("check", "--cohort", "brats2020", "--dataset_dir", data) == 1
    printed = capsys.readouterr().out
    assert "3 cases, 1 with problems" in printed
    assert "\nb: t1: every voxel is 0\n" in printed
    assert not (data / "checked.json").exists()


def test_help_and_refusals_do_not_wait_for_pytorch():
    code = "import sys, mmb.__main__ as door; sys.argv = ['mmb', 'chek']; "
    code += "import atexit; atexit.register(lambda: print('torch' in sys.modules)); door.main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr.startswith("error: chek: no such verb; see mmb --help")
    assert done.stdout == "False\n"


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
        (("check", "brats2020", "nowhere\x1b[2J"), "nowhere\\x1b[2J: no such folder"),
        ((*LEADERBOARD, "--slurm", "--at_once", 2), "--slurm, --only and --at_once: expected at most one"),
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
        (DATALIST[:3], "the following arguments are required: OUTPUT"),
        ((*LEADERBOARD, "--dry_run=perhaps"), "--dry_run: perhaps: expected true or false"),
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
    save(tumour("P_05"), others / "brats" / "P_04" / "P_04_seg.nii.gz")
    said = run(*compare(others, "--conventions", "hd95=max", careful="out/evaluations/careful"))
    assert "Not comparable: hd95 of Careful is 'pooled', of A&B <guess> 'max'; " in said
    assert "the reference of case P_04 is another one" in said


def test_compare_some_cases_alone(tmp_path, capsys, monkeypatch):
    reports = []  # instead of written ones, which take seconds
    monkeypatch.setattr("mmb.experiments.comparison.compare.write_report", lambda *given: reports.append(given))
    for name, seed in (("one", 0), ("two", 1)):
        write_evaluation(random_evaluation(name, cases=("A_1", "A_2", "B_1", "2024"), seed=seed), tmp_path / name)
    methods = ["compare", tmp_path / "out", f"one={tmp_path / 'one'}", f"two={tmp_path / 'two'}"]
    assert run(*methods, "--cases", "A_*,2024") is None
    assert capsys.readouterr().out.endswith("2 methods, 3 cases\n")
    assert "Only the cases A_*, 2024." in reports[0][4]
    assert "is one of the folders to read" in run("compare", tmp_path / "one", *methods[2:])


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--conventions", "empty=lenient"], "conventions: empty is 'lenient'; expected brats or released"),
        (["--cohort", "brats"], "Unknown cohort 'brats'"),
        (["--published", "M3AE"], "--published M3AE: expected PAPER/TABLE/DATASET."),
        (["--panel_cases", "P_01"], "slices that evaluations store, and Careful is label maps"),
        (["Careful=."], "two have the same name; give each its own."),
        (["."], "expected two or more NAME=FOLDER, or with --published one"),
        (["third=nowhere"], "nowhere: no such folder; expected an evaluation's output, or label maps."),
    ],
)
def test_what_a_comparison_got_wrong_is_refused(others, more, message):
    said = run(*compare(others, *more))
    assert said.startswith("error: ")
    assert message in said
    assert not list(others.glob("out/*"))


def test_label_maps_without_their_reference(others):
    said = run("compare", others / "out", f"a={others / 'careful'}", f"b={others / 'guessing'}")
    assert said == f"error: {others / 'careful'}: has no results.csv; for label maps give --reference and --cohort."


def test_each_mutation_has_its_line_once():
    for each in MUTATIONS:
        text = (ROOT / each.file).read_text()
        assert len(re.findall(rf"^ *{re.escape(each.line)}$", text, re.MULTILINE)) == 1, each.name
