"""Tables are right cell by cell, and every rendering is well-formed."""

from dataclasses import replace

import pandas as pd
from evaluation.examples import evaluation_of

from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.evaluation.report.tables import Table, comparison_table, framed, markdown, statistics_table, subset_table
from common.modalities import subset_name, subsets
from mmb.experiments.comparison.paired import compare_to_first

NAN = float("nan")


def base(**more) -> Evaluation:
    values = {("t1+t2", "WT"): [0.8, 1.0], ("t1", "WT"): [0.25, 0.75], ("t2", "WT"): [0.4, 0.4]}
    values |= {("t1+t2", "ET"): [0.5, 0.7], ("t1", "ET"): [0.1, NAN], ("t2", "ET"): [NAN, NAN]}
    return evaluation_of(values, **more)


def steady(value: float, name: str, metric="dice", cases=6, modalities=("t1", "t2"), **more) -> Evaluation:
    """Return an evaluation with nearly the same value everywhere, which differs slightly between cases."""
    row = [value * (1 + 0.001 * number) for number in range(cases)]
    keys = [(subset_name(subset), region) for subset in subsets(modalities) for region in ("WT", "ET")]
    return evaluation_of({key: row for key in keys}, name, metric, modalities, **more)


def texts(table: Table) -> list[list[str]]:
    return table.frame.to_numpy().tolist()


def starred(table: Table) -> list[list[bool]]:
    return [[text.endswith("*") for text in row] for row in texts(table)]


def noted(table: Table, *words: str) -> bool:
    """Return whether one of the notes contains all of these words."""
    return any(all(word in note for word in words) for note in table.notes)


class TestSubsetTable:
    def test_one_method(self):
        table = subset_table([base()])
        assert list(table.frame) == ["T1", "T2", "WT", "ET"]
        assert texts(table) == [
            ["●", "○", "50.0 ± 35.4", "10.0"],
            ["○", "●", "40.0 ± 0.0", "–"],
            ["●", "●", "90.0 ± 14.1", "60.0 ± 14.1"],
            ["mean", "", "60.0 ± 26.5", "35.0 ± 35.4"],
        ]
        assert table.title == "Dice (%); WT, ET: toy, 2 cases"
        assert noted(table, "±", "0 to 2 cases")
        assert noted(table, "empty = brats", "hd95 = max")

    def test_title_says_part_split_and_folds(self):
        whole = replace(base(), facts={"part": "test", "split": "full"})
        pooled = replace(base(), name="pooled", facts={"part": "test", "folds": 5})
        assert subset_table([whole]).title == "Dice (%); WT, ET: toy, test part of split full, 2 cases"
        assert subset_table([base(), pooled]).title == "Dice (%); WT, ET: toy, test part, 5 folds, 2 cases"

    def test_stars_are_after_correction(self):
        # n cases that all differ have p = 2 / 2^n; times six subsets and regions, and times two for the means
        for cases, rows, means in ((6, False, False), (7, False, True), (8, True, True)):
            methods = [steady(0.5, "a", cases=cases), steady(0.6, "b", cases=cases)]
            table = subset_table(methods, tests=compare_to_first(methods))
            assert [row[-4:] for row in starred(table)] == [[False, star] * 2 for star in (rows, rows, rows, means)]
        assert noted(table, "Against a", "* p < 0.05", "Wilcoxon", "Holm")

    def test_stars_are_of_this_metric_where_methods_differ(self):
        methods = [steady(0.5, "a", cases=9), steady(0.6, "b", cases=9), steady(0.5, "c", cases=9)]
        tests = compare_to_first(methods)
        assert [row[-6:] for row in starred(subset_table(methods, tests=tests))] == [[False, True, False] * 2] * 4
        assert not any(map(any, starred(subset_table(methods, tests=tests.assign(metric="hd95")))))

    def test_pooled(self):
        rows = [
            (case, "t1", "WT", metric, value)
            for case, dice, predicted, reference in (("a", 0.6, 40, 60), ("b", 1 / 3, 20, 10))
            for metric, value in (("dice", dice), ("volume", predicted), ("reference_volume", reference))
        ]
        results, conventions = pd.DataFrame(rows, columns=COLUMNS), Conventions(average="voxel")
        table = subset_table([Evaluation("a", "toy", ("t1",), ("WT",), conventions, results)])
        assert texts(table) == [["●", "53.8"], ["mean", "53.8"]]  # 2 * (30 + 5) / (100 + 30)
        assert noted(table, "pooled voxels of 2 cases")


class TestLackingSubsets:
    """Means cover the subsets that all methods have; one method is better on these, and lacks the difficult ones."""

    TWO = {("t1", "WT"): [0.2, 0.4], ("t2", "WT"): [0.5, 0.7]}  # noqa: RUF012
    FULL = evaluation_of(TWO | {("t1+t2", "WT"): [0.8, 0.8]}, regions=("WT",))
    SOME = evaluation_of({("t2", "WT"): [0.5, 0.5], ("t1+t2", "WT"): [0.9, 0.9]}, "some", regions=("WT",))
    LAST = evaluation_of({("t1+t2", "WT"): [0.7, 0.7]}, "last", regions=("WT",))
    ONLY = evaluation_of({("t1", "WT"): [0.7, 0.7]}, "only", regions=("WT",))

    def test_means_are_over_what_all_have(self):
        table = subset_table([self.FULL, self.SOME])
        assert texts(table) == [
            ["●", "○", "30.0 ± 14.1", "–"],
            ["○", "●", "60.0 ± 14.1", "50.0 ± 0.0"],
            ["●", "●", "80.0 ± 0.0", "90.0 ± 0.0"],
            ["mean", "", "70.0 ± 14.1", "70.0 ± 28.3"],
        ]
        assert noted(table, "over 2 of 3 subsets: T2, T1 + T2")
        table = comparison_table([self.FULL, self.SOME])
        assert texts(table) == [["base", "70.0 [65.0, 75.0]", "–"], ["some", "70.0 [70.0, 70.0]", "+0.0"]]
        assert noted(table, "over 2 of 3 subsets: T2, T1 + T2")

    def test_nothing_is_shared_or_nothing_is_lacking(self):
        table = subset_table([self.LAST, self.ONLY])
        assert texts(table)[-1] == ["mean", "", "–", "–"]
        assert noted(table, "over 0 of 2 subsets: none")
        assert texts(comparison_table([self.LAST, self.ONLY])) == [["last", "–", "–"], ["only", "–", "–"]]
        for methods in ([self.SOME], [self.SOME, replace(self.SOME, name="same")]):
            assert not noted(subset_table(methods), "leave out")


class TestComparisonTable:
    def test_means_and_differences(self):
        values = {("t1", "WT"): [0.5, 0.5], ("t2", "WT"): [0.5, 0.5], ("t1+t2", "WT"): [0.8, 0.8]}
        values |= {("t1", "ET"): [0.3, 0.3], ("t1+t2", "ET"): [0.6, 0.7]}
        values["t2", "ET"] = [0.9, 0.9]  # where the first method has no value
        table = comparison_table([base(), evaluation_of(values, "other")])
        assert list(table.frame) == [("", "method"), *((r, c) for r in ("WT", "ET", "mean") for c in ("Dice", "Δ"))]
        first, second = texts(table)
        assert first[1:3] == ["60.0 [48.3, 71.7]", "–"]
        assert second[1:3] == ["60.0 [60.0, 60.0]", "+0.0"]
        assert first[3].startswith("35.0 ")
        assert second[3:5] == ["47.5 [45.0, 50.0]", "+12.5"]  # without T2 alone
        assert noted(table, "leave out what any method lacks (–)", "over 3 of 3 subsets")

    def test_stars_are_those_of_the_means_over_subsets(self):
        methods = [steady(0.5, "a", cases=8), steady(0.6, "b", cases=8)]  # p = 2 / 256, times two regions
        table = comparison_table(methods, tests=compare_to_first(methods))
        assert starred(table) == [[False] * 7, [False, True, False, True, False, False, False]]

    def test_one_method(self):
        table = comparison_table([base()])
        assert list(table.frame) == [("", "method"), ("WT", "Dice"), ("ET", "Dice"), ("mean", "Dice")]
        assert texts(table)[0][:2] == ["base", "60.0 [48.3, 71.7]"]


def test_statistics_table():
    table = statistics_table(compare_to_first([steady(0.5, "a", cases=9), steady(0.6, "b", cases=9)]))
    assert (table.title, len(texts(table))) == ("Paired tests of Dice (%)", 8)
    last = ["b", "a", "mean", "ET", "9", "60.2", "50.2", "+10.0 [10.0, 10.1]", "0.004", "0.008*", "+1.00"]
    assert (texts(table)[-1], texts(table)[4][2]) == (last, "T1 + T2")
    few = statistics_table(compare_to_first([base(), base(name="b")]))
    assert texts(few)[1][4:] == ["1", "10.0", "10.0", "+0.0", "–", "–", "–"]


class TestRendering:
    TABLE = Table(
        "Dice (%) of a_b",
        framed([(("", "T1"), ["●", "mean"]), (("WT", "x|y"), ["5.0 ± 1.0*", "−1"]), (("WT", "q*"), ["<b>&_", ""])]),
        ["* p < 0.05", "50 % & more"],
    )

    def test_markdown(self):
        assert self.TABLE.to_markdown() == (
            "**Dice (%) of a\\_b**\n\n"
            "| T1 | WT x\\|y | WT q\\* |\n"
            "| :- | -: | -: |\n"
            "| ● | 5.0 ± 1.0\\* | &lt;b>&\\_ |\n"
            "| mean | −1 |  |\n\n"
            "\\* p &lt; 0.05\n\n"
            "50 % & more\n"
        )

    def test_latex(self):
        lines = self.TABLE.to_latex().splitlines()
        assert lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")] == [
            r"\toprule",
            r" & \multicolumn{2}{c}{WT} \\",
            r"T1 & x$|$y & q$^{*}$ \\",
            r"\midrule",
            r"$\bullet$ & 5.0 $\pm$ 1.0$^{*}$ & $<$b$>$\&\_ \\",
            r"mean & $-$1 &  \\",
        ]
        assert r"\caption{Dice (\%) of a\_b}" in lines
        assert r"\begin{tabular}{lrr}" in lines

    def test_html(self):
        html = "".join(line.strip() for line in self.TABLE.to_html().splitlines())
        assert "<table><caption>Dice (%) of a_b</caption>" in html
        assert '<th colspan="2">WT</th>' in html
        assert "<td >5.0 ± 1.0*</td><td >&lt;b&gt;&amp;_</td>" in html
        assert '<p class="note">50 % &amp; more</p>' in html


def test_markdown_of_text_with_markup():
    """Names of methods and cases come from files: they must not insert HTML, fetched pictures or line breaks."""
    text = markdown("<script>x</script> ![a](http://b) c\n# d [78.9, 83.4] $x$")
    assert text == r"&lt;script>x&lt;/script> ![a]\(http://b) c # d [78.9, 83.4] \$x\$"
