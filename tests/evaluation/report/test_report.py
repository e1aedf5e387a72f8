"""The report shows the numbers of the results, under the names as they are, and replaces an earlier one as a whole."""

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from evaluation.examples import evaluation_of, random_evaluation

from common.evaluation.metrics.overlap import SCORES
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report import report, sections
from common.evaluation.report.last_screen import last_screen
from common.evaluation.report.report import write_report
from common.evaluation.report.slices import Slice
from common.evaluation.report.tables import markdown
from common.modalities import tumour_labels
from mmb.experiments.comparison.paired import compare_to_first
from mmb.experiments.paper_tables.tables import published_table

NASTY, OTHER = "A&B <x> *_1_* 50 % $y$", "a+b (x)_1_50%%[y]"
TRUST = ("Reliability of the probabilities", "Latents of single modalities")
VOLUMES = ("volume", "reference_volume")
SMALL = {"modalities": ("t1", "t2"), "regions": ("WT",)}
LABELS = tumour_labels(NCR=1, ED=2, ET=4)
LABELS = replace(LABELS, regions={name: LABELS.regions[name] for name in ("WT", "ET")})
COSTS = {"parameters": 2_500_000, "gflops": 2.75, "memory_mb": 900, "seconds": 1.5, "substitute_values": 35_712_000}


def headings(folder: Path) -> list[str]:
    return re.findall(r"^## (.*)$", (folder / "report.md").read_text(encoding="utf-8"), re.MULTILINE)


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def whole(name: str, seed: int = 0, **more) -> Evaluation:
    """Return an evaluation with everything that a report can show."""
    more |= {"calibration": ("v1", "v2", "v3"), "probabilities": True, "lesion_wise": "GLI"}
    return random_evaluation(name, facts=COSTS, seed=seed, **more)


def slices(kinds: Sequence[str]) -> list[Slice]:
    """Return slices of the best case, the worst one or another one."""
    image = np.random.default_rng(0).random((3, 12, 10)).astype(np.float32)
    label = np.zeros((12, 10), np.uint8)
    label[4:8, 3:7] = 2
    return [
        Slice(f"{kind} case: c1", subset, image, label, np.roll(label, 1), (0.5, float("nan")))
        for kind in kinds
        for subset in ("t1", "t1+flair")
    ]


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Let each figure be a few bytes of its own, since drawing takes most of the time; test_figures.py draws them."""
    number = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "rendered", lambda _: {".png": b"\x89PNG %d" % next(number), ".pdf": b""})
        yield


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A complete report on two methods whose names are difficult in every format and yield similar file names."""
    folder, methods = tmp_path_factory.mktemp("both"), [whole(NASTY), whole(OTHER, seed=1)]
    remarks, panels = ["Another <b>remark</b>."], {NASTY: slices(["best", "worst"])}
    beside = published_table(("M3AE", "1", "BraTS2018 test split (57)"), methods)
    write_report(methods, folder, compare_to_first(methods), beside, remarks, panels, LABELS)
    return folder


class TestWholeReport:
    def test_has_all_sections(self, both):
        text = (both / "report.md").read_text(encoding="utf-8")
        metrics = ["Dice", "HD95", "Lesion-wise Dice", "Lesion-wise HD95", "Further metrics"]
        assert headings(both) == [
            *(*metrics, "Published numbers", "Paired tests"),
            *(f"What each modality is worth: {markdown(name)}" for name in (NASTY, OTHER)),
            "Entropy of the predictions",
            *(f"{title}: {markdown(name)}" for name in (NASTY, OTHER) for title in TRUST),
            "Size and speed",
            f"Cases: {markdown(NASTY)}",
        ]
        assert "\n> **Another &lt;b>remark&lt;/b>.**\n" in text
        assert "The best, worst case by mean Dice." in text
        assert "M3AE‡" in text
        drawn = re.findall(r"!\[.*\]\((.*)\)", text)
        assert sorted(drawn) == sorted(f"figures/{path.name}" for path in (both / "figures").glob("*.png"))

    def test_each_table_is_in_it_or_linked(self, both):
        text = (both / "report.md").read_text(encoding="utf-8")
        for path in (both / "tables").glob("*.md"):
            table = path.read_text(encoding="utf-8")
            assert (f"\n\n{table}\n" in text) != (f"](tables/{path.name})" in text)
            assert path.with_suffix(".tex").is_file()

    def test_each_method_has_its_own_files(self, both):
        figures, tables = names(both / "figures"), names(both / "tables")
        for kind in ("boxplots", "latents"):
            assert {f"{kind}_a_b_x_1_50_y", f"{kind}_a_b_x_1_50_y_2"} <= figures
        for kind in ("shapley", "ece"):
            assert {f"{kind}_a_b_x_1_50_y", f"{kind}_a_b_x_1_50_y_2"} <= tables

    def test_numbers_are_those_of_the_results(self, both):
        values = whole(NASTY).values("dice").loc["t1+flair", "ET"]
        assert f"{100 * values.mean():.1f} ± {100 * values.std():.1f}" in (both / "tables" / "dice.md").read_text()
        values = 1000 * whole(NASTY).values("divergence").loc["t1+flair", "ET"]
        assert f"{values.mean():.1f} ± {values.std():.1f}" in (both / "tables" / "divergence.md").read_text()
        costs = (both / "tables" / "efficiency.md").read_text().split("\n")[4]
        assert costs.split(" | ")[1:] == ["2.5", "2.75", "900", "1.5", "35.71 |"]  # in millions, GFLOPs, MB and seconds

    def test_names_are_shown_as_they_are(self, both):
        latex = (both / "tables" / "efficiency.tex").read_text(encoding="utf-8")
        assert r"A\&B $<$x$>$ $^{*}$\_1\_$^{*}$ 50 \% \$y\$ &" in latex
        assert "<x" not in (both / "report.md").read_text(encoding="utf-8")


def test_parts_of_an_earlier_report_do_not_stay(tmp_path):
    write_report([whole("before", **SMALL)], tmp_path)
    assert [path for path in tmp_path.rglob("*") if "before" in path.name]
    (tmp_path / "tables" / "mine.txt").write_text("not ours")
    write_report([random_evaluation("after", only=["t1"], **SMALL)], tmp_path)
    assert (tmp_path / "tables" / "dice.md").is_file()
    assert not [path for path in tmp_path.rglob("*") if "before" in path.name]
    assert (tmp_path / "tables" / "mine.txt").is_file()


def test_an_error_leaves_an_earlier_report(tmp_path, monkeypatch):
    write_report([whole("before", **SMALL)], tmp_path)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(report, "write_table", lambda *_: 1 / 0)  # after the figures
    with pytest.raises(ZeroDivisionError):
        write_report([random_evaluation("after", only=["t1"], **SMALL)], tmp_path)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_files_that_no_report_wrote_are_not_removed(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_text("not ours")
    with pytest.raises(ValueError, match=r"figures/mine\.png: a report would replace it"):
        write_report([random_evaluation(only=["t1"], **SMALL)], tmp_path)
    assert [path.name for path in tmp_path.rglob("*")] == ["figures", "mine.png"]


SOME = random_evaluation(**SMALL)
SOME = replace(SOME, results=SOME.results.query("metric in ('dice', 'volume')"))


@pytest.mark.parametrize(
    ("evaluation", "expected", "words", "tables"),
    [
        (random_evaluation(), ["What each modality is worth: one"], "4 cases, 7 subsets of T1, T2, FLAIR.", 11),
        # there is nothing to attribute
        (random_evaluation(only=["t2"], cases=("c1",)), [], "1 case, 1 subset of T1", 10),
        (SOME, [], "4 cases, 3 subsets of T1, T2.", 3),
    ],
    ids=["only metrics", "one case", "some metrics"],
)
def test_what_there_is_none_of_is_left_out(tmp_path, evaluation, expected, words, tables):
    write_report([evaluation], tmp_path)
    measured = [name for name in ("Dice", "HD95") if name.lower() in set(evaluation.results["metric"])]
    assert headings(tmp_path) == [*measured, "Further metrics", *expected]
    assert words in (tmp_path / "report.md").read_text()
    assert len(names(tmp_path / "tables")) == tables
    assert names(tmp_path / "figures") == {"heatmap", "boxplots", "robustness"}


@pytest.mark.parametrize("empty", ["nan", "skip"])
def test_a_region_that_no_reference_has(tmp_path, empty):
    """Its scores are undefined under ``nan`` and absent under ``skip``."""
    evaluations = []
    for number, name in enumerate(("one", "two") if empty == "nan" else ("one",)):
        evaluation = whole(name, seed=number, modalities=("t1", "t2"), empty=empty)
        parts = {}
        for key in ("results", "calibration"):
            rows = getattr(evaluation, key)
            absent = rows["region"] == "ET"
            volumes, scores = (rows["metric"].isin(metrics) for metrics in (VOLUMES, SCORES))
            rows = rows.assign(value=rows["value"].mask(absent & scores).mask(absent & volumes, 0.0))
            parts[key] = rows[~(absent & scores)] if empty == "skip" else rows
        evaluations.append(replace(evaluation, **parts))
    tests = compare_to_first(evaluations) if len(evaluations) > 1 else None
    write_report(evaluations, tmp_path, tests)
    row = (tmp_path / "tables" / "shapley_one.md").read_text().split("\n")[4]
    assert re.fullmatch(r"\| T1 \| \d.*\] \|  \|", row)
    assert "nan" not in (tmp_path / "tables" / "dice.md").read_text().partition("\n\nMean")[0]


def test_entropy_is_of_methods_with_probabilities():
    without = random_evaluation("maps", seed=1, lesion_wise="GLI")
    drawn = {s.kind: s for s in sections.all_sections([whole("one"), without], None, {}, {}, None)}
    assert "maps" not in drawn["entropy"].tables["entropy"].to_markdown()
    assert "entropy" not in [s.kind for s in sections.all_sections([without], None, {}, {}, None)]


NOTHING = replace(random_evaluation(), results=random_evaluation().results[:0])
UNSCORED = random_evaluation(empty="skip")
UNSCORED = replace(UNSCORED, results=UNSCORED.results[UNSCORED.results["metric"].isin(VOLUMES)])


@pytest.mark.parametrize(
    ("evaluations", "fact"),
    [
        ([random_evaluation("two", seed=1), NOTHING], "one: no case has all modalities of any of the subsets"),
        ([UNSCORED], r"one: no case has a Dice \(convention empty: skip\)"),
        # the level is checked last, when all figures on accuracy have been drawn
    ],
)
def test_errors_leave_nothing_behind(tmp_path, evaluations, fact):
    with pytest.raises(ValueError, match=fact):
        write_report(evaluations, tmp_path / "report")
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (["M3AE", "nnU-Net v2"], ["m3ae", "nnu_net_v2"]),
        (["A+B", "a b", "A-B", "a b 2"], ["a_b", "a_b_2", "a_b_3", "a_b_2_2"]),
        (["模型", "../../x", "方法"], ["method", "x", "method_2"]),
        (["x" * 300], ["x" * 60]),
    ],
)
def test_stems_are_safe_and_differ(given, expected):
    assert list(sections.stems(given).values()) == expected


def test_the_last_screen_by_hand():
    values = {("t1", "WT"): [0, 0.5], ("t2", "WT"): [1, 0.5], ("t1+t2", "WT"): [1, 1]}
    values |= {(subset, "ET"): [1, 0] for subset in ("t1", "t2", "t1+t2")}
    found = evaluation_of(values, "M", cohort="phantom")
    volumes = evaluation_of({("t1", "WT"): [2, 3], ("t1", "ET"): [0, 1]}, metric="reference_volume").results
    found = replace(found, results=pd.concat([found.results, volumes]))
    lines = last_screen(found, "OUT/report.md", "for 1:15 minutes on 24 cases of phantom", [60, 50.04]).splitlines()
    assert lines[0] == "M, trained for 1:15 minutes on 24 cases of phantom; evaluated on 2 cases of phantom."
    rows = {line[:23].strip(): line[23:].split() for line in lines[1:6]}
    assert rows["Mean Dice (%)"] == ["WT", "ET"]
    assert rows["T1 + T2"] == ["100.0", "50.0"]
    assert list(rows)[2:4] == ["T2 alone, best mean", "T1 alone, worst"]
    assert (rows["mean of 3 subsets"][:2], "60.0 50.0;" in lines[5]) == (["66.7", "50.0"], True)
    assert lines[6] == "1 case of 2 without ET: any mark there counts as Dice 0, none as 1."
    assert lines[-1].endswith(": OUT/report.md")
    assert "nothing about patients" in lines[7]
    other = replace(found, cohort="open_glioma", results=found.results.query("case == 'c1'"))
    other = last_screen(other, "OUT/report.md", "on 36 cases")
    assert other.startswith("M, trained on 36 cases; evaluated on 1 case of open_glioma.")
    assert "without ET" not in other
    assert "patients" not in other
