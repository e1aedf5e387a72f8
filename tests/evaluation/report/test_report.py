"""The report is well-formed, self-contained and shows the numbers of the results."""

import base64
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from evaluation.examples import random_evaluation
from evaluation.report.wellformed import Page, check_latex, check_markdown

from common.evaluation.analysis.combine import average_repeats
from common.evaluation.metrics.overlap import SCORES
from common.evaluation.metrics.results import Evaluation
from common.evaluation.report import report, sections
from common.evaluation.report.paper_tables import published_table
from common.evaluation.report.report import write_report
from common.evaluation.report.slices import Slice
from common.modalities import tumour_labels

NASTY, OTHER = "A&B <x> *_1_* 50 % $y$", "a+b (x)_1_50%%[y]"
WORTH = ("What each modality is worth", "Which missing sequence to acquire")
TRUST = ("Reliability of the probabilities", "Intervals of the volume", "Latents of single modalities")
VOLUMES = ("volume", "reference_volume")


def read(folder: Path) -> Page:
    return Page((folder / "report.html").read_text(encoding="utf-8"))


def check(folder: Path) -> Page:
    """Check all files of a report; return its HTML page."""
    page = read(folder)
    assert all(source.startswith("data:image/png;base64,") for source in page.images)
    assert {link.lstrip("#") for link in page.links} == page.ids
    assert not page.tags & {"script", "link", "iframe", "object"}
    html = (folder / "report.html").read_text(encoding="utf-8")
    assert not re.search(r"https?:|url\(|@import", re.sub(r"base64,[^\"]*", "", html))
    assert "nan" not in page.cells
    pictures = {path.read_bytes() for path in (folder / "figures").glob("*.png")}
    assert {base64.b64decode(source.split(",")[1]) for source in page.images} == pictures
    assert all(picture.startswith(b"\x89PNG") for picture in pictures)
    markdown = (folder / "report.md").read_text(encoding="utf-8")
    check_markdown(markdown)
    drawn = re.findall(r"!\[.*\]\((.*)\)", markdown)
    assert sorted(drawn) == sorted(f"figures/{path.name}" for path in (folder / "figures").glob("*.png"))
    assert {path.stem for path in (folder / "figures").iterdir()} == {Path(name).stem for name in drawn}
    for path in (folder / "tables").glob("*.tex"):
        check_latex(path.read_text(encoding="utf-8"))
        table = path.with_suffix(".md").read_text(encoding="utf-8")
        check_markdown(f"\n{table}")
        assert (table in markdown) != (f"](tables/{path.stem}.md)" in markdown)
        assert path.with_suffix(".html").read_text(encoding="utf-8") in html
    return page


def names(folder: Path) -> set[str]:
    return {path.stem for path in folder.iterdir()}


def whole(name: str, seed: int = 0, **more) -> Evaluation:
    """Return an evaluation with everything that a report can show."""
    facts = {"parameters": 2_500_000, "gflops": 2.75, "memory_mb": 900, "seconds": 1.5}
    return random_evaluation(name, calibration=("v1", "v2", "v3"), probabilities=True, facts=facts, seed=seed, **more)


LABELS = tumour_labels(NCR=1, ED=2, ET=4)
LABELS = replace(LABELS, regions={name: LABELS.regions[name] for name in ("WT", "ET")})


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


def by_title(parts: Iterable[sections.Section]) -> dict[str, sections.Section]:
    """Return the sections by their titles."""
    return {section.title: section for section in parts}


@pytest.fixture(scope="module", autouse=True)
def undrawn() -> Iterator[None]:
    """Let each figure be a few bytes of its own, since drawing takes most of the time; test_figures.py draws them."""
    number = itertools.count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sections, "rendered", lambda _: {".png": b"\x89PNG %d" % next(number), ".svg": b""})
        yield


@pytest.fixture(scope="module")
def both(tmp_path_factory) -> Path:
    """A complete report on two methods whose names are difficult in every format and yield similar file names."""
    folder = tmp_path_factory.mktemp("both")
    remarks = [f"{NASTY} lacks a case.", "Another <b>remark</b>."]
    panels = {NASTY: slices(["best", "worst"])}
    methods = [whole(NASTY), whole(OTHER, seed=1)]
    beside = published_table(("M3AE", "1", "BraTS2018 test split (57)"), methods)
    write_report(methods, folder, 0.5, beside, remarks, panels, LABELS)
    return folder


class TestWholeReport:
    def test_is_well_formed_and_opens_offline(self, both):
        page = check(both)
        assert page.remarks == [f"{NASTY} lacks a case.", "Another <b>remark</b>."]
        assert page.headings == [
            f"Segmentation with missing modalities: {NASTY}, {OTHER} on toy",
            *("Dice", "HD95", "Further metrics", "Published numbers", "Paired tests"),
            *(f"{title}: {name}" for name in (NASTY, OTHER) for title in WORTH),
            "Entropy of the predictions",
            *(f"{title}: {name}" for name in (NASTY, OTHER) for title in TRUST),
            "Size and speed",
            f"Cases: {NASTY}",
        ]

    def test_each_method_has_its_own_files(self, both):
        figures, tables = names(both / "figures"), names(both / "tables")
        for kind in ("boxplots", "shapley", "reliability", "latents"):
            assert {f"{kind}_a_b_x_1_50_y", f"{kind}_a_b_x_1_50_y_2"} <= figures
        for kind in ("shapley", "best", "advice", "ranking", "ece", "volumes"):
            assert {f"{kind}_a_b_x_1_50_y", f"{kind}_a_b_x_1_50_y_2"} <= tables
        one, other = (both / "tables" / f"volumes_a_b_x_1_50_y{end}.md" for end in ("", "_2"))
        assert one.read_text() != other.read_text()

    def test_numbers_are_those_of_the_results(self, both):
        page = read(both)
        values = whole(NASTY).values("dice").loc["t1+flair", "ET"]
        assert f"{100 * values.mean():.1f} ± {100 * values.std():.1f}" in page.cells
        values = whole("other", seed=1).values("hd95").loc["t2", "WT"]
        assert any(cell.startswith(f"{values.mean():.1f} ± {values.std():.1f}") for cell in page.cells)

        values = 1000 * whole(NASTY).values("divergence").loc["t1+flair", "ET"]
        assert f"{values.mean():.1f} ± {values.std():.1f}" in page.cells

    def test_names_are_shown_as_they_are(self, both):
        assert NASTY in read(both).cells
        markdown = (both / "report.md").read_text(encoding="utf-8")
        assert r"A&B &lt;x> \*\_1\_\* 50 % \$y\$" in markdown
        assert "<x" not in markdown
        latex = (both / "tables" / "efficiency.tex").read_text(encoding="utf-8")
        assert r"A\&B $<$x$>$ $^{*}$\_1\_$^{*}$ 50 \% \$y\$ &" in latex

    def test_a_substitute_image_is_told_from_the_parameters(self, both):
        facts = {"parameters": 4_704_505, "substitute_values": 35_712_000}
        (section,) = sections.efficiency([random_evaluation("M3AE", facts=facts)], sections.Drawer())
        table = section.tables["efficiency"].to_markdown()
        header, _, row = [line for line in table.splitlines() if line.startswith("|")]
        assert "substitute image (million values)" in header
        assert row.split(" | ")[1:] == ["4.705", "35.71 |"]
        assert "not counted among the parameters" in table
        assert "substitute" not in (both / "tables" / "efficiency.md").read_text(encoding="utf-8")

    def test_pooled_coverage_has_no_quantile(self, both):
        rows = (both / "tables" / "volumes_a_b_x_1_50_y.md").read_text().split("\n")
        pooled = [row for row in rows if row.startswith("| all |")]
        assert [row.split(" | ")[1:4] for row in pooled] == [["WT", "", ""], ["ET", "", ""]]

    def test_tables_that_are_folded_away_can_be_told_apart(self, both):
        summaries = re.findall(r"<summary>(.*?)</summary>", (both / "report.html").read_text(encoding="utf-8"))
        of_one = [title for title in summaries if not title.startswith(("Expected gain", "How well", "Coverage"))]
        assert len(of_one) == len(set(of_one)) > 10

    def test_what_is_published_is_said_to_be(self, both):
        assert "M3AE‡" in read(both).cells
        assert "† Published, not measured: M3AE (Liu et al., AAAI 2023), Table 1" in (both / "report.md").read_text()


SMALL = {"modalities": ("t1", "t2"), "regions": ("WT",)}


def test_parts_of_an_earlier_report_do_not_stay(tmp_path):
    write_report([whole("before", **SMALL)], tmp_path, 0.5)
    assert [path for path in tmp_path.rglob("*") if "before" in path.name]
    (tmp_path / "tables" / "mine.txt").write_text("not ours")
    write_report([random_evaluation("after", only=["t1"], **SMALL)], tmp_path, 0.5)
    assert (tmp_path / "tables" / "dice.md").is_file()
    assert not [path for path in tmp_path.rglob("*") if "before" in path.name]
    assert (tmp_path / "tables" / "mine.txt").is_file()


def test_an_error_leaves_an_earlier_report(tmp_path, monkeypatch):
    write_report([whole("before", **SMALL)], tmp_path, 0.5)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    monkeypatch.setattr(report, "write_table", lambda *_: 1 / 0)  # after the figures
    with pytest.raises(ZeroDivisionError):
        write_report([random_evaluation("after", only=["t1"], **SMALL)], tmp_path, 0.5)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_files_that_no_report_wrote_are_not_removed(tmp_path):
    (tmp_path / "figures").mkdir()
    (tmp_path / "figures" / "mine.png").write_text("not ours")
    with pytest.raises(ValueError, match=r"figures/mine\.png: a report would replace it"):
        write_report([random_evaluation(only=["t1"], **SMALL)], tmp_path, 0.5)
    assert [path.name for path in tmp_path.rglob("*")] == ["figures", "mine.png"]


SOME = random_evaluation(**SMALL)
SOME = replace(SOME, results=SOME.results.query("metric in ('dice', 'volume')"))


@pytest.mark.parametrize(
    ("evaluation", "headings", "said"),
    [
        (
            random_evaluation(),
            ["Dice", "HD95", "Further metrics", "What each modality is worth: one"],
            "4 cases, 7 subs",
        ),
        # there is nothing to attribute, and no interval over a single case
        (
            random_evaluation(only=["t2"], cases=("c1",)),
            ["Dice", "HD95", "Further metrics"],
            "1 case, 1 subset of T1, T2",
        ),
        (SOME, ["Dice", "Further metrics", "What each modality is worth: one"], "4 cases, 3 subsets of T1, T2."),
    ],
    ids=["only metrics", "one case", "some metrics"],
)
def test_what_there_is_none_of_is_left_out(tmp_path, evaluation, headings, said):
    write_report([evaluation], tmp_path, 0.9)
    assert check(tmp_path).headings[1:] == headings
    text = (tmp_path / "report.md").read_text()
    assert said in text
    assert "Paired" not in text
    if evaluation is SOME:
        assert names(tmp_path / "tables") == {"dice", "dice_missing", "dice_overall", "volume", "best_one"}
    if len(headings) == 4:
        assert names(tmp_path / "figures") == {"heatmap", "boxplots", "robustness", "shapley_one"}


def test_two_modalities_and_other_regions(tmp_path):
    """With two modalities at most one is missing: there is advice, but nothing to rank."""
    write_report([whole("iseg", modalities=("t1", "t2"), regions=("CSF", "GM", "WM"))], tmp_path, 0.5)
    page = check(tmp_path)
    assert "Which missing sequence to acquire: iseg" in page.headings
    assert {"advice_iseg"} == {name for name in names(tmp_path / "tables") if name.startswith(("advice", "ranking"))}
    assert {"CSF", "GM", "WM"} <= set(page.cells)


@pytest.mark.parametrize("empty", ["nan", "skip"])
def test_a_region_that_no_reference_has(tmp_path, empty):
    """Its scores are undefined under ``nan`` and absent under ``skip``."""
    evaluations = []
    for number, name in enumerate(("one", "two") if empty == "nan" else ("one",)):
        found = whole(name, seed=number, modalities=("t1", "t2"), empty=empty)
        parts = {}
        for key in ("results", "calibration"):
            rows = getattr(found, key)
            absent = rows["region"] == "ET"
            volumes, scores = (rows["metric"].isin(those) for those in (VOLUMES, SCORES))
            rows = rows.assign(value=rows["value"].mask(absent & scores).mask(absent & volumes, 0.0))
            parts[key] = rows[~(absent & scores)] if empty == "skip" else rows
        evaluations.append(replace(found, **parts))
    write_report(evaluations, tmp_path, 0.5)
    page = check(tmp_path)
    assert {"WT", "ET", "–"} <= set(page.cells)
    assert f"Empty regions ({empty}): " in (tmp_path / "report.md").read_text()
    row = (tmp_path / "tables" / "shapley_one.md").read_text().split("\n")[4]
    assert re.fullmatch(r"\| T1 \| \d.*\] \|  \|", row)


def test_the_best_subset_is_told_with_some_subsets_and_where_it_was_chosen():
    few = {"only": ["t2", "t1+t2+flair"], "regions": ("WT",)}
    drawer, tables = sections.Drawer(), {}
    for one in (random_evaluation(**few), random_evaluation("two", calibration=("v1",), seed=1, **few)):
        (section,) = (part for part in sections.attribution(one, one.name, drawer) if "worth" in part.title)
        tables |= section.tables
    assert set(tables) == {"best_one", "best_two"}
    one, two = (table.to_markdown() for table in tables.values())
    assert {"| evaluated |" in one, "on the same cases on which it is measured" in one} == {True}
    assert {"| calibration |" in two, "on the calibration cases" in two, "| evaluated |" not in two} == {True}
    dice = random_evaluation(**few).values("dice")["WT"].unstack("case").mean(axis=1)
    best = {"t2": "T2", "t1+t2+flair": "T1 + T2 + FLAIR"}[dice.idxmax()]
    assert f"| WT | {best} | {100 * dice.max():.1f} | {100 * dice['t1+t2+flair']:.1f} |" in one
    assert not drawer.figures


def test_entropy_is_of_methods_with_probabilities():
    without = random_evaluation("maps", seed=1)
    (section,) = sections.entropy([whole("one"), without])
    assert "maps" not in section.tables["entropy"].to_markdown()
    averaged = average_repeats("both", [whole("one"), random_evaluation("old", seed=1, calibration=("v1", "v2", "v3"))])
    assert averaged.values("entropy").isna().all(axis=None)
    assert list(sections.entropy([averaged, without])) == []


@pytest.mark.parametrize(("subsets", "advised"), [(["t1", "t2+flair"], False), (["t1", "t1+t2"], True)])
def test_advice_is_on_subsets_that_are_nested(subsets, advised):
    titles = by_title(sections.attribution(whole("one", only=subsets), "one", sections.Drawer()))
    assert ("Which missing sequence to acquire: one" in titles) == advised


@pytest.mark.parametrize(("coverage", "said"), [(0.9, True), (0.5, False)])
def test_too_few_calibration_cases_are_said(coverage, said):
    """There are three; the level 0.9 requires nine."""
    parts = sections.reliability(whole("one", **SMALL), coverage, "one", sections.Drawer())
    text = " ".join(by_title(parts)["Intervals of the volume: one"].text)
    assert ("requires at least 9 calibration cases" in text) == said


@pytest.mark.parametrize(
    ("kinds", "said"),
    [
        (["best", "median", "worst"], "The best, median and worst case by mean Dice"),
        (["best", "worst"], "The best and worst case by mean Dice"),
        (["only"], "The only case, in"),
    ],
)
def test_captions_say_which_cases_are_drawn(kinds, said):
    drawer, methods = sections.Drawer(), {"My method": slices(kinds), "another": []}
    (section,) = sections.panels(methods, LABELS, ("t1", "t2", "flair"), {"My method": "my_method"}, drawer)
    assert section.title == "Cases: My method"
    assert section.figures["panels_my_method"].startswith(said)
    assert list(drawer.figures) == ["panels_my_method"]


class TestForced:
    def test_cohorts_side_by_side_have_no_tests(self, tmp_path):
        few = {**SMALL, "only": ["t1", "t1+t2"]}
        evaluations = [random_evaluation(**few), random_evaluation("two", cohort="phantom", cases=("p1",), **few)]
        write_report(evaluations, tmp_path, 0.9, remarks=["Compared by force although not comparable: cohort."])
        page = check(tmp_path)
        assert page.headings[0].endswith(": one, two on toy and phantom")
        assert "Paired tests" not in page.headings
        assert page.remarks == ["Compared by force although not comparable: cohort."]
        markdown = (tmp_path / "report.md").read_text()
        assert "one: 4 cases, 2 subsets of T1, T2." in markdown
        assert "two: 1 case, 2 subsets of T1, T2." in markdown
        assert "The phantom cohort is synthetic" in markdown
        assert "Not comparable" in markdown

    def test_conventions_are_said_of_each(self, tmp_path):
        few = {**SMALL, "only": ["t1+t2"]}
        evaluations = [
            random_evaluation(**few),
            random_evaluation("two", seed=1, hd95="pooled", et_min_voxels=500, **few),
        ]
        write_report(evaluations, tmp_path, 0.9)
        lines = (tmp_path / "report.md").read_text().split("\n")
        (one,) = (line for line in lines if line.startswith("one: Empty"))
        (two,) = (line for line in lines if line.startswith("two: Empty"))
        assert "the larger of the two directed 95th" in one
        assert "both directions together" in two
        assert "below 500 voxels" in two


NOTHING = replace(random_evaluation(), results=random_evaluation().results[:0])
UNSCORED = random_evaluation(empty="skip")
UNSCORED = replace(UNSCORED, results=UNSCORED.results[UNSCORED.results["metric"].isin(VOLUMES)])


class TestErrors:
    @pytest.mark.parametrize(
        ("evaluations", "coverage", "said"),
        [
            ([NOTHING], 0.9, "one: no case has all modalities of any of the subsets"),
            ([random_evaluation("two", seed=1), NOTHING], 0.9, "one: no case has all modalities of any of the subsets"),
            ([UNSCORED], 0.9, r"one: no case has a Dice \(convention empty: skip\)"),
            ([random_evaluation(only=["t1"]), random_evaluation("two", only=["t2"])], 0.9, "'two' and 'one' share no"),
            # the level is checked last, when all figures on accuracy have been drawn
            ([whole("one", only=["t1"], **SMALL)], 90, "coverage 90: expected a level above 0 and below 1"),
        ],
    )
    def test_leave_nothing_behind(self, tmp_path, evaluations, coverage, said):
        with pytest.raises(ValueError, match=said):
            write_report(evaluations, tmp_path / "report", coverage)
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


def test_nothing_is_said_of_intervals_and_deviations_that_a_single_case_lacks():
    for cases, said in ((("c1",), False), (("c1", "c2"), True)):
        one = random_evaluation(cases=cases)
        parts = [
            *sections.attribution(one, "one", sections.Drawer()),
            *sections.accuracy([one], None, {}, sections.Drawer()),
        ]
        printed = "".join(table.to_markdown() for part in parts for table in part.tables.values())
        assert [words in printed for words in ("95 %", "Mean ± standard")] == [said, said]
