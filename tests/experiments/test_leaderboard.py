"""A leaderboard's list is checked before anything runs, and interrupted runs continue where they stopped.

And which evaluations can be compared or are folds of one, and the choice of cases.
"""

import json
import os
import re
import shutil
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from threading import Thread

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import random_evaluation
from fire.parser import DefaultParseValue
from run_tools import run

from common.evaluation.metrics.results import Evaluation, write_evaluation
from common.transforms.decision import DECISIONS
from mmb.experiments import trainings
from mmb.experiments.comparison.combine import pool_folds
from mmb.experiments.comparison.comparable import require_comparable, select_cases
from mmb.experiments.evaluations import read_evaluation
from mmb.experiments.folders import finished
from mmb.experiments.lists import read_list
from mmb.experiments.training import Entry
from mmb.experiments.trainings import folders_of, run_entries


def write(path, methods, **more):
    path.write_text(json.dumps({"methods": methods, **more}))
    return path


ROOT = Path(__file__).parents[2]
GSS = {"bundle": "gss", "settings": {"backbone": "mmFormer"}}
RFNET = {"bundle": "gss", "configs": ["baselines/backbone.json"]}
PAIR = [Entry("GSS", "gss"), Entry("RFNet", "gss", ("baselines/backbone.json",))]


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Replace Python and MONAI by a small program that records its call and succeeds, unless its folder says no."""
    program = tmp_path / "python"
    program.write_text(
        f"#!{sys.executable}\n"
        "import fcntl, os, sys\n"
        "from pathlib import Path\n"
        "options = dict(zip(sys.argv[4::2], sys.argv[5::2]))\n"
        "folder = Path(options['--output_dir'])\n"
        "with open(folder / '.lock', 'a') as lock:  # as a training does\n"
        "    fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)\n"
        "with open(folder / 'calls.txt', 'a') as file:\n"
        "    file.write(' '.join(sys.argv[1:]) + '\\n')\n"
        "(folder / 'threads.txt').write_text(os.environ.get('OMP_NUM_THREADS', 'all'))\n"
        "if (folder / 'wait').exists():\n"
        "    import time; time.sleep(60)\n"
        "if (folder / 'fail').exists():\n"
        "    sys.exit('out of memory')\n"
        "(folder / 'evaluation').mkdir()\n"
        "(folder / 'evaluation' / 'evaluation.json').write_text('{}')\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(trainings.sys, "executable", str(program))


@pytest.fixture
def shared(coarse_dir):
    sizes = {"spacing": [6, 6, 6], "crop": [32, 32, 32], "width": 4, "embed_dim": 16, "mlp_dim": 16, "heads": 2}
    return {"cohort": "phantom", "dataset_dir": str(coarse_dir), **sizes}


@pytest.mark.parametrize("value", ["PDT, baseline", "(s,m,l), PASSION", "3", "True", 3, [1.5, "a, b"], False])
def test_a_value_reaches_the_process_as_the_list_has_it(value):
    assert DefaultParseValue(trainings._as_text(value)) == value


def test_what_failed_is_run_again_and_what_is_finished_is_not(tmp_path, python, shared):
    entries = [Entry("GSS", "gss"), Entry("RFNet, alone", "gss", ("baselines/backbone.json",), {"split": None})]
    places = folders_of(entries, tmp_path)
    assert [place.name for place in places.values()] == ["gss", "rfnet_alone"]
    places["GSS"].mkdir()
    (places["GSS"] / "fail").touch()
    (places["GSS"] / "minutes.txt").write_text("50")
    assert run_entries(entries, tmp_path, shared) == ["GSS"]
    assert "out of memory" in (places["GSS"] / "log.txt").read_text()
    (places["GSS"] / "fail").unlink()
    assert run_entries(entries, tmp_path, shared) == []
    assert all(finished(place) for place in places.values())
    assert len((places["GSS"] / "calls.txt").read_text().splitlines()) == 2
    (call,) = (places["RFNet, alone"] / "calls.txt").read_text().splitlines()
    for words in ("--method 'RFNet, alone'", "--cohort phantom", "--resume True", "--split $None"):
        assert words in call
    table = pd.read_csv(tmp_path / "leaderboard.csv")
    assert table["method"].tolist() == ["GSS", "RFNet, alone"]
    assert table["state"].tolist() == ["finished", "finished"]
    assert table["minutes"].tolist() == [pytest.approx(50, abs=0.5), pytest.approx(0, abs=0.5)]  # of all runs


def test_only_one_method_is_run(tmp_path, python, shared):
    places = folders_of(PAIR, tmp_path)
    assert run_entries(PAIR, tmp_path, shared, only="RFNet") == []
    assert [finished(place) for place in places.values()] == [False, True]
    with pytest.raises(ValueError, match="--only 'U-Net': expected one of 'GSS', 'RFNet'"):
        run_entries(PAIR, tmp_path, shared, only="U-Net")


def test_a_clone_that_was_moved_goes_on_and_keeps_what_is_finished(tmp_path, python, shared, monkeypatch):
    def clone(name):
        shutil.copytree(ROOT / "bundles" / "gss" / "configs", tmp_path / name / "bundles" / "gss" / "configs")
        monkeypatch.chdir(tmp_path / name)

    clone("old")
    places = folders_of(PAIR, tmp_path)
    places["GSS"].mkdir()
    (places["GSS"] / "fail").touch()
    assert run_entries(PAIR, tmp_path, shared) == ["GSS"]
    clone("new")
    assert run_entries(PAIR, tmp_path, shared) == ["GSS"]  # once more, and not the one that is finished
    assert len((places["RFNet"] / "calls.txt").read_text().splitlines()) == 1


def test_methods_do_not_share_a_folder(tmp_path):
    for one, other in (("RFNet+", "RFNet-"), ("方法一", "方法二"), ("x" * 60 + ", cv1of2", "x" * 60 + ", cv2of2")):
        with pytest.raises(ValueError, match=r"would share the folder .*; rename one"):
            folders_of([Entry(one, "gss"), Entry(other, "gss")], tmp_path)
    places = folders_of([Entry("Report", "gss"), Entry("phantom", "gss")], tmp_path)  # nor with the report
    assert [place.name for place in places.values()] == ["report_2", "phantom_2"]


def test_a_folder_is_not_used_for_other_settings_nor_a_report_made_of_it(tmp_path, python, shared):
    sizes = {key: value for key, value in shared.items() if key not in ("cohort", "dataset_dir")}
    methods = write(tmp_path / "list.json", {"GSS": GSS, "RFNet": RFNET}, settings=sizes)
    data = {"cohort": "phantom", "dataset_dir": shared["dataset_dir"]}
    run_entries(read_list(methods).trainings(), tmp_path / "out", data)
    write(methods, {"GSS": GSS, "RFNet": RFNET}, settings={**sizes, "width": 8})
    words = ("leaderboard", methods, tmp_path / "out", "--dataset_dir", data["dataset_dir"])
    for more in ((), ("--at_once", 0)):
        assert "the folder was used with width 4, now 8; give the list that" in run(*words, *more)
    assert not (tmp_path / "out" / "report").exists()


def test_a_single_method_has_the_papers_table_and_no_report(tmp_path, capsys):
    tables = [{"published": ["M3AE", "1", "BraTS2018 test split (57)"], "rows": {"M3AE": "M3AE"}}]
    method = {"bundle": "m3ae", "configs": ["recipes/brats2018.json"]}
    methods = write(tmp_path / "list.json", {"M3AE": method}, cohort="brats2018", tables=tables)
    words = ("leaderboard", methods, tmp_path / "out", "--dataset_dir", tmp_path, "--at_once", 0)
    made = random_evaluation("M3AE", ("t1", "t1c", "t2", "flair"), ("WT", "TC", "ET"), seed=0, cohort="brats2018")
    write_evaluation(made, tmp_path / "out" / "m3ae" / "evaluation")
    assert run(*words) is None
    said = capsys.readouterr().out
    assert "No report yet: 1 of 1 methods are finished" in said
    assert "**M3AE, Table 1: Dice (%)**" in said


def test_processes_at_once_share_the_threads(tmp_path, python, shared, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(trainings.torch, "get_num_threads", lambda: 8)
    monkeypatch.setattr(trainings.torch.cuda, "device_count", lambda: 0)
    for at_once, threads in ((None, "all"), (1, "all"), (2, "4"), (20, "1")):
        output_dir = tmp_path / str(at_once)
        assert run_entries(PAIR, output_dir, shared, at_once) == []
        assert {(place / "threads.txt").read_text() for place in folders_of(PAIR, output_dir).values()} == {threads}


def test_gpus_are_those_that_the_user_allows(monkeypatch):
    monkeypatch.setattr(trainings.torch.cuda, "device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    assert [made["CUDA_VISIBLE_DEVICES"] for made in trainings._environments(3)] == ["5", "3", "5"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [made["CUDA_VISIBLE_DEVICES"] for made in trainings._environments(None)] == ["0", "1"]


def test_trainings_end_with_the_leaderboard(tmp_path, python, shared, caplog):
    methods = write(tmp_path / "list.json", {"GSS": GSS, "RFNet": RFNET})
    folder = tmp_path / "out" / "gss"
    folder.mkdir(parents=True)
    (folder / "wait").touch()

    def interrupt() -> None:
        while not (folder / "threads.txt").is_file():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    Thread(target=interrupt).start()
    began = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            run("leaderboard", methods, tmp_path / "out", "--dataset_dir", shared["dataset_dir"])
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - began < 30  # of the 60 seconds that the training would have taken
    assert "GSS: stopped; give the same command again to continue" in caplog.text
    assert not (tmp_path / "out" / "rfnet" / "calls.txt").exists()


def test_nothing_runs_if_one_method_cannot(tmp_path, python, shared):
    entries = [
        Entry("GSS", "gss"),
        Entry("of nothing", "gss", settings={"backbone": "Nonsense"}),
        Entry("to nowhere", "medmap", settings={"anchor": "pd"}),
    ]
    with pytest.raises(ValueError, match="no method was started") as refusal:
        run_entries(entries, tmp_path, shared)
    assert "of nothing: backbone 'Nonsense': expected one of RFNet" in str(refusal.value)
    assert "to nowhere: anchor 'pd': expected one of 'adaptive'" in str(refusal.value)
    assert not list(tmp_path.glob("*/calls.txt"))


ONE = random_evaluation()


def two(**more) -> Evaluation:
    return random_evaluation("two", seed=1, **more)


def without(evaluation: Evaluation, case: str, subset: str | None = None) -> Evaluation:
    """Return an evaluation that lacks a case, or a case's subset."""
    rows = evaluation.results
    gone = (rows["case"] == case) & ((rows["modalities"] == subset) if subset else True)
    return replace(evaluation, results=rows[~gone])


def with_reference(value: float) -> Evaluation:
    """Return the second method with another reference volume of ET in case c2, 7 ml in the first."""
    rows = two().results
    chosen = (rows["case"] == "c2") & (rows["region"] == "ET") & (rows["metric"] == "reference_volume")
    return replace(two(), results=rows.assign(value=rows["value"].where(~chosen, value)))


def only_volumes(evaluation: Evaluation) -> Evaluation:
    """Return an evaluation without scores of case c2, as of an empty reference under ``skip``."""
    rows = evaluation.results
    return replace(evaluation, results=rows[(rows["case"] != "c2") | rows["metric"].isin(["reference_volume"])])


@pytest.mark.parametrize(
    "evaluations",
    [
        [ONE],
        [ONE, two()],
        [ONE, with_reference(7.0006)],
        [ONE, two(only=["t1+t2+flair"])],  # subsets that a method lacks altogether are no missing cases
        [only_volumes(random_evaluation(empty="skip", probabilities=True)), only_volumes(two(empty="skip"))],
    ],
    ids=["alone", "alike", "rounding", "fewer subsets", "no scores"],
)
def test_what_is_comparable(evaluations):
    assert require_comparable(evaluations) == []


@pytest.mark.parametrize(("fact", "values"), [("decision", DECISIONS[:2]), ("precision", ("float32", "bfloat16"))])
def test_different_decisions_and_precisions_are_remarked(fact, values):
    one, other = (replace(e, facts={fact: value}) for e, value in zip((ONE, two()), values, strict=True))
    (remark,) = require_comparable([one, other])
    assert f"The {fact}s differ (one: {values[0]}, two: {values[1]})" in remark
    assert require_comparable([one, replace(other, facts=one.facts)]) == []
    assert require_comparable([one, two()]) == []


@pytest.mark.parametrize(
    ("others", "fact"),
    [
        ([two(cohort="brats2020")], "cohort of one is 'toy', of two 'brats2020'"),
        ([two(empty="skip", hd95="pooled")], "empty of one is 'brats', of two 'skip'; hd95 of one is 'max', of two"),
        ([two(), random_evaluation("three", empty="nan")], "of one is 'brats', of three 'nan'"),
        ([with_reference(7.5)], "the reference of case c2 is another one (ET 7 ml for one, 7.5 ml for two)"),
        ([with_reference(7.0008)], "the reference of case c2 is another one"),
        ([two(modalities=("t1", "t2"))], "modalities of one is ('t1', 't2', 'flair'), of two ('t1', 't2')"),
        ([without(two(), "c1")], "two lacks c1. Complete them, or name the cases to compare with --cases."),
        ([two(cases=("c1", "c2", "c3", "c4", "c5"))], "one lacks c5"),
        ([without(without(two(), "c2", "t1+t2"), "c3")], "two lacks c2 (t1+t2), c3"),
    ],
)
def test_what_is_not(others, fact):
    with pytest.raises(ValueError, match=re.escape(fact)):
        require_comparable([ONE, *others])


def test_selected_cases_are_left_in_everything_that_is_drawn():
    found = select_cases(random_evaluation(probabilities=True), ["c[12]", "c4"])
    for frame in (found.results, found.bins, found.latents):
        assert set(frame["case"]) == {"c1", "c2", "c4"}
    with pytest.raises(ValueError, match=r"^one: no case matches C1, d\*; there are c1, c2"):
        select_cases(ONE, ["C1", "c[12]", "d*"])


CASES = ("a", "b", "c", "d", "e")


def fold(tested, everything=CASES, **more):
    others = tuple(case for case in everything if case not in tested)
    evaluation = random_evaluation("".join(tested), cases=tested, seed=sum(map(ord, tested)), **more)
    return replace(evaluation, other_cases=others)


def test_each_case_is_taken_from_the_fold_that_tested_it(tmp_path):
    folds = [fold(cases, facts={"part": "test", "split": f"cv{i}of3"}) for i, cases in enumerate(("ab", "cd", "e"), 1)]
    for one in folds:
        write_evaluation(one, tmp_path / one.name)
    pooled = pool_folds("method", [read_evaluation(tmp_path / one.name) for one in folds])
    values = pooled.values("dice")
    assert sorted(values.index.unique("case")) == list(CASES)
    for one in folds:
        expected = one.values("dice")
        np.testing.assert_allclose(values.loc[expected.index], expected)
    assert pooled.facts == {"folds": 3, "part": "test"}  # of no single split
    assert pooled.calibration.empty


@pytest.mark.parametrize(
    ("folds", "said"),
    [
        ([fold("ab"), fold("bc"), fold("de")], "b: tested by 2 of ab, bc, de"),
        ([fold("ab"), fold("de")], "c: tested by 0 of ab, de"),
        ([fold("ab"), fold("cde", "bcde")], "a: not in the split of cde, but in that of another"),
        ([fold("ab"), replace(fold("cde"), other_cases=())], "cde: its evaluation.json does not list"),
        ([fold("ab"), fold("cde", cohort="another")], "cohort of cde is another, of ab toy"),
        ([fold("ab"), fold("cde", facts={"decision": "expected_dice"})], "the decisions differ"),
        ([fold("ab"), fold("cde", only=("t1",))], "subsets of cde"),
    ],
)
def test_what_is_no_whole_cross_validation_is_refused_by_name(folds, said):
    with pytest.raises(ValueError, match=said):
        pool_folds("method", folds)
