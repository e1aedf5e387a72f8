"""Tables are right cell by cell, and every rendering is well-formed."""

from dataclasses import replace

import pandas as pd
import pytest
from evaluation.examples import evaluation_of

from common.evaluation.analysis.statistics import compare_to_first
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, Evaluation
from common.evaluation.report.layout import Cell, Column, Table, markdown
from common.evaluation.report.tables import (
    comparison_table,
    missing_table,
    source_table,
    statistics_table,
    subset_table,
)
from common.modalities import subset_name, subsets

NAN = float("nan")
FOUR = ("t1", "t1c", "t2", "flair")


def base(**more) -> Evaluation:
    return evaluation_of(
        {
            ("t1+t2", "WT"): [0.8, 1.0],
            ("t1+t2", "ET"): [0.5, 0.7],
            ("t1", "WT"): [0.25, 0.75],
            ("t1", "ET"): [0.1, NAN],
            ("t2", "WT"): [0.4, 0.4],
            ("t2", "ET"): [NAN, NAN],
        },
        **more,
    )


def steady(value: float, name: str, metric="dice", cases=6, modalities=("t1", "t2"), **more) -> Evaluation:
    """Return an evaluation with nearly the same value everywhere, which differs slightly between cases."""
    row = [value * (1 + 0.001 * number) for number in range(cases)]
    keys = [(subset_name(subset), region) for subset in subsets(modalities) for region in ("WT", "ET")]
    return evaluation_of({key: row for key in keys}, name, metric, modalities, **more)


def texts(table: Table) -> list[list[str]]:
    return [[("*" if cell.star else "") + cell.text for cell in row] for row in table.rows]


def noted(table: Table, *words: str) -> bool:
    """Return whether one of the notes contains all of these words."""
    return any(all(word in note for word in words) for note in table.notes)


def labels(table: Table) -> list[str]:
    return [f"{column.group}/{column.label}" if column.group else column.label for column in table.columns]


class TestSourceTable:
    def test_each_source_has_the_mean_over_subsets_of_the_means_of_its_cases(self):
        first = evaluation_of({("t1", "WT"): [0.2, 0.4, 0.9], ("t2", "WT"): [0.6, 0.8, 0.1]}, regions=("WT",))
        names = first.results["case"].unique()
        first = replace(first, sources=dict(zip(names, ("ucsf", "ucsf", "upenn"), strict=True)))
        better = replace(first, name="better", results=first.results.assign(value=first.results["value"] / 2 + 0.3))
        table = source_table([first, better])
        assert labels(table) == ["data set", "cases", f"WT/{first.name}", "WT/better"]
        assert texts(table) == [["ucsf", "2", "50.0", "55.0"], ["upenn", "1", "50.0", "55.0"]]
        one = replace(first, results=first.results.assign(value=[0.2, 0.4, 0.9, 0.6, 0.8, 0.3]))
        assert texts(source_table([one])) == [["ucsf", "2", "50.0"], ["upenn", "1", "60.0"]]


class TestSubsetTable:
    def test_one_method(self):
        table = subset_table([base()])
        assert labels(table) == ["T1", "T2", "WT", "ET"]
        assert texts(table) == [
            ["●", "○", "50.0 ± 35.4", "10.0"],
            ["○", "●", "40.0 ± 0.0", "–"],
            ["●", "●", "90.0 ± 14.1", "60.0 ± 14.1"],
            ["mean", "60.0 ± 26.5", "35.0 ± 35.4"],
        ]
        assert table.rows[-1][0].span == 2
        assert not any(cell.bold or cell.star for row in table.rows for cell in row)
        assert table.title == "Dice (%); WT, ET: toy, 2 cases"
        assert noted(table, "±", "0 to 2 of 2 cases")
        assert noted(table, "empty = brats", "hd95 = max")

    def test_best_is_bold_and_ties_share_it(self):
        table = subset_table([steady(0.5, "a"), steady(0.5001, "b"), steady(0.4, "c")])
        assert labels(table)[2:5] == ["WT/a", "WT/b", "WT/c"]
        assert [[cell.bold for cell in row[-3:]] for row in table.rows] == [[True, True, False]] * 4
        table = subset_table([steady(0.5, "a"), steady(0.5001, "b")])
        assert not any(cell.bold for row in table.rows for cell in row)  # where all are equal, none is best

    def test_title_says_part_split_and_folds(self):
        one = replace(base(), facts={"part": "test", "split": "full"})
        assert subset_table([one]).title == "Dice (%); WT, ET: toy, test part of split full, 2 cases"
        pooled = replace(base(), name="pooled", facts={"part": "test", "folds": 5})
        both = "toy, test part of split full and toy, test part, 5 folds, 2 cases"
        assert subset_table([one, pooled]).title == f"Dice (%); WT, ET: {both}"

    def test_smallest_distance_is_bold_and_volumes_have_no_best(self):
        for metric, bold in (("hd95", [False, True]), ("volume", [False, False])):
            table = subset_table([steady(9, "a", metric), steady(5, "b", metric)], metric)
            assert [cell.bold for cell in table.rows[0][2:4]] == bold
            assert table.rows[0][2].text == "9.0 ± 0.0"
        assert table.title == "Volume (ml); WT, ET: toy, 6 cases"

    def test_stars_are_after_correction(self):
        # n cases that all differ have p = 2 / 2^n; times six subsets and regions, and times two for the means
        for cases, rows, means in ((6, False, False), (7, False, True), (8, True, True)):
            methods = [steady(0.5, "a", cases=cases), steady(0.6, "b", cases=cases)]
            table = subset_table(methods, tests=compare_to_first(methods))
            expected = [[False, starred] * 2 for starred in (rows, rows, rows, means)]
            assert [[cell.star for cell in row[-4:]] for row in table.rows] == expected
        assert noted(table, "* p < 0.05 against a", "Wilcoxon", "Holm")

    def test_stars_are_of_this_metric_and_reference_where_methods_differ(self):
        methods = [steady(0.5, "a", cases=9), steady(0.6, "b", cases=9), steady(0.5, "c", cases=9)]
        tests = compare_to_first(methods)
        starred = {
            (number, cell.star)
            for row in subset_table(methods, tests=tests).rows
            for number, cell in enumerate(row[-6:])
        }
        assert starred == {(0, False), (1, True), (2, False), (3, False), (4, True), (5, False)}
        for change in ({"metric": "hd95"}, {"other": "x"}):
            table = subset_table(methods, tests=tests.assign(**change))
            assert not any(cell.star for row in table.rows for cell in row)

    def test_pooled(self):
        rows = [
            (case, "t1", "WT", metric, value)
            for case, dice, predicted, reference in (("a", 0.6, 40, 60), ("b", 1 / 3, 20, 10))
            for metric, value in (("dice", dice), ("volume", predicted), ("reference_volume", reference))
        ]
        pooled = Evaluation(
            "a", "toy", ("t1",), ("WT",), Conventions(average="voxel"), pd.DataFrame(rows, columns=COLUMNS)
        )
        table = subset_table([pooled])
        assert texts(table) == [["●", "53.8"], ["mean", "53.8"]]  # 2 * (30 + 5) / (100 + 30)
        assert noted(table, "pooled voxels of 2 cases")
        other = replace(pooled, name="b")
        tests = compare_to_first([pooled, other])
        for build in (subset_table, comparison_table):
            assert noted(build([pooled, other], tests=tests), "* p <", "The tests compare cases")

    @pytest.mark.parametrize(
        ("values", "expected"),
        [
            ({("t1", "WT"): [0.5], ("t1", "ET"): [0.5]}, "over 1 case."),
            ({("t1", "WT"): [0.5, 0.5], ("t1", "ET"): [0.5, 0.5]}, "over 2 cases."),
            ({("t1", "WT"): [0.5, NAN], ("t1", "ET"): [NAN, 0.5]}, "over 1 of 2 cases"),
            ({("t1", "WT"): [0.5, 0.5], ("t1", "ET"): [NAN, 0.5]}, "over 1 to 2 of 2 cases"),
            ({("t1", "WT"): [0.5, NAN], ("t1", "ET"): [0.5, NAN]}, "over 1 case."),
        ],
    )
    def test_number_of_cases(self, values, expected):
        assert noted(subset_table([evaluation_of(values)]), expected)
        assert noted(missing_table([evaluation_of(values)]), expected)

    def test_what_one_method_has_alone_is_never_bold(self):
        some = evaluation_of({("t1", "WT"): [0.2]}, "some")
        third = evaluation_of({("t1", "WT"): [0.1], ("t2", "WT"): [0.1]}, "third")
        bold = {row[0].text + row[1].text: [c.bold for c in row[2:5]] for row in subset_table([base(), some]).rows[:3]}
        assert bold == {"●○": [True, False, False], "○●": [False] * 3, "●●": [False] * 3}
        assert [cell.bold for cell in subset_table([base(), some, third]).rows[1][2:5]] == [True, False, False]

    def test_differing_conventions_are_marked(self):
        table = subset_table([base(), base(name="b", hd95="pooled")])
        assert noted(table, "Not comparable", "b: toy, empty = brats, hd95 = pooled")
        assert noted(subset_table([base(), base(name="b", cohort="y")]), "Not comparable", "b: y")

    @pytest.mark.parametrize(
        ("other", "said"),
        [
            (base(), "the same name"),
            (
                steady(0.5, "b", modalities=FOUR),
                "'b' has modalities t1, t1c, t2, flair; expected those of 'base', t1, t2",
            ),
            (base(name="b", regions=("WT",)), "has regions WT; expected those of 'base', WT, ET"),
        ],
    )
    def test_refuses(self, other, said):
        with pytest.raises(ValueError, match=said):
            subset_table([base(), other])
        for build in (subset_table, missing_table, comparison_table):
            with pytest.raises(ValueError, match="Unknown metric 'dise'"):
                build([base()], "dise")


class TestLackingSubsets:
    """Means cover the subsets that all methods have; one method is better on these, and lacks the difficult ones."""

    FULL = evaluation_of(
        {("t1", "WT"): [0.2, 0.4], ("t2", "WT"): [0.5, 0.7], ("t1+t2", "WT"): [0.8, 0.8]}, regions=("WT",)
    )
    SOME = evaluation_of({("t2", "WT"): [0.5, 0.5], ("t1+t2", "WT"): [0.9, 0.9]}, "some", regions=("WT",))
    LAST = evaluation_of({("t1+t2", "WT"): [0.7, 0.7]}, "last", regions=("WT",))
    ONLY = evaluation_of({("t1", "WT"): [0.7, 0.7]}, "only", regions=("WT",))

    def test_subset_table(self):
        table = subset_table([self.FULL, self.SOME])
        assert texts(table) == [
            ["●", "○", "30.0 ± 14.1", "–"],
            ["○", "●", "60.0 ± 14.1", "50.0 ± 0.0"],
            ["●", "●", "80.0 ± 0.0", "90.0 ± 0.0"],
            ["mean", "70.0 ± 14.1", "70.0 ± 28.3"],
        ]
        assert [cell.bold for cell in table.rows[2]][2:] == [False, True]
        assert not any(cell.bold for cell in table.rows[-1])  # equal
        assert noted(table, "some has 2 of the 3 subsets")
        assert noted(table, "only the 2 subsets that all methods have: T2, T1 + T2")

    def test_one_shared_subset(self):
        table = subset_table([self.FULL, self.SOME, self.LAST])
        assert texts(table)[-1] == ["mean", "80.0", "90.0", "70.0"]
        assert noted(table, "only the 1 subset that all methods have: T1 + T2")

    def test_missing_table(self):
        table = missing_table([self.FULL, self.SOME])
        assert texts(table) == [["0", "1", "80.0", "90.0"], ["1", "1", "60.0", "50.0"]]
        assert noted(table, "only the 2 subsets that all methods have: T2, T1 + T2")
        assert texts(missing_table([self.FULL, self.LAST])) == [["0", "1", "80.0", "70.0"], ["1", "0", "–", "–"]]

    def test_comparison_table(self):
        table = comparison_table([self.FULL, self.SOME])
        assert texts(table) == [["base", "70.0 [65.0, 75.0]", "–", "1"], ["some", "70.0 [70.0, 70.0]", "+0.0", "1"]]
        assert noted(table, "won: number of the 2 subsets")
        assert noted(table, "only the 2 subsets that all methods have: T2, T1 + T2")
        assert noted(comparison_table([self.FULL, self.LAST]), "won: number of the 1 subset")

    def test_nothing_is_shared(self):
        methods = [self.LAST, self.ONLY]
        assert texts(subset_table(methods)) == [
            ["●", "○", "–", "70.0 ± 0.0"],
            ["●", "●", "70.0 ± 0.0", "–"],
            ["mean", "–", "–"],
        ]
        assert texts(missing_table(methods)) == [["0", "0", "–", "–"], ["1", "0", "–", "–"]]
        assert texts(comparison_table(methods)) == [["last", "–", "–", "–"], ["only", "–", "–", "–"]]
        for build in (subset_table, missing_table, comparison_table):
            table = build(methods)
            assert noted(table, "No subset has results for all methods")
            assert not any(cell.bold or cell.star for row in table.rows for cell in row)

    def test_nothing_is_lacking(self):
        for build in (subset_table, missing_table, comparison_table):
            for methods in ([self.SOME], [self.SOME, replace(self.SOME, name="same")]):
                assert not noted(build(methods), "subsets that all methods have")


def test_missing_table():
    table = missing_table([base(), base(name="same")])
    assert labels(table) == ["missing", "subsets", "WT/base", "WT/same", "ET/base", "ET/same"]
    assert texts(table) == [["0", "1", "90.0", "90.0", "60.0", "60.0"], ["1", "2", "45.0", "45.0", "10.0", "10.0"]]


class TestComparisonTable:
    def test_means_differences_and_wins(self):
        other = evaluation_of(
            {
                ("t1", "WT"): [0.5, 0.5],  # a tie, which no method wins
                ("t2", "WT"): [0.5, 0.5],
                ("t1+t2", "WT"): [0.8, 0.8],
                ("t1", "ET"): [0.3, 0.3],
                ("t2", "ET"): [0.9, 0.9],  # where the first method has no value
                ("t1+t2", "ET"): [0.6, 0.7],
            },
            "other",
        )
        table = comparison_table([base(), other])
        assert labels(table) == ["method", *(f"{r}/{c}" for r in ("WT", "ET", "mean") for c in ("Dice", "Δ", "won"))]
        first, second = texts(table)
        assert first[1:4] == ["60.0 [48.3, 71.7]", "–", "1"]
        assert second[1:4] == ["60.0 [60.0, 60.0]", "+0.0", "1"]
        assert first[4].startswith("35.0 ")
        assert second[4:7] == ["47.5 [45.0, 50.0]", "+12.5", "2"]  # without T2 alone
        assert noted(table, "no value (–)", "leave out this cell for all methods")
        assert [cell.bold for cell in table.rows[0][1::3]] == [False, False, False]  # WT: both 60.0
        assert [cell.bold for cell in table.rows[1][1::3]] == [False, True, True]

    def test_smaller_distances_win(self):
        table = comparison_table([steady(9, "a", "hd95"), steady(5, "b", "hd95")], "hd95")
        assert [row[3].text for row in table.rows] == ["0", "3"]
        assert table.rows[1][2].text == "−4.0"
        assert [row[1].bold for row in table.rows] == [False, True]

    def test_stars_are_those_of_the_means_over_subsets(self):
        methods = [steady(0.5, "a", cases=8), steady(0.6, "b", cases=8)]
        tests = compare_to_first(methods)  # p = 2 / 256, times two regions
        table = comparison_table(methods, tests=tests)
        assert [cell.star for cell in table.rows[1]] == [False, *[True, False, False] * 2, *[False] * 3]
        assert not any(cell.star for cell in table.rows[0])
        assert noted(table, "Holm-corrected for the regions")

    def test_one_method(self):
        table = comparison_table([base()])
        assert labels(table) == ["method", "WT/Dice", "ET/Dice", "mean/Dice"]
        assert texts(table)[0][:2] == ["base", "60.0 [48.3, 71.7]"]
        assert noted(table, "In brackets")
        assert not noted(comparison_table([steady(0.5, "a", cases=1)]), "In brackets")  # one case has no interval


def test_statistics_table():
    tests = compare_to_first([steady(0.5, "a", cases=9), steady(0.6, "b", cases=9)])
    table = statistics_table(tests)
    assert len(table.rows) == 8
    assert texts(table)[-1] == [
        *("b", "a", "Dice (%)", "mean", "ET", "9", "60.2", "50.2", "+10.0 [10.0, 10.1]", "0.004", "*0.008", "+1.00")
    ]
    assert texts(table)[4][3] == "T1 + T2"
    few = statistics_table(compare_to_first([base(), base(name="b")]))
    assert texts(few)[1][5:] == ["1", "10.0", "10.0", "+0.0", "–", "–", "–"]


class TestRendering:
    TABLE = Table(
        title="Dice (%) of a_b",
        columns=[Column("T1", align="c"), Column("x|y", "WT"), Column("q*", "WT", published=True)],
        rows=[
            [Cell("●"), Cell("5.0 ± 1.0", bold=True, star=True), Cell("<b>&_")],
            [Cell("mean"), Cell("covers two", span=2)],
        ],
        notes=["* p < 0.05", "50 % & more"],
        totals=1,
    )

    def test_markdown(self):
        assert self.TABLE.to_markdown() == (
            "**Dice (%) of a\\_b**\n\n"
            "| T1 | WT x\\|y | WT q\\* |\n"
            "| :-: | -: | -: |\n"
            "| ● | **5.0 ± 1.0**\\* | &lt;b>&\\_ |\n"
            "| mean | covers two |  |\n\n"
            "\\* p &lt; 0.05\n\n"
            "50 % & more\n"
        )
        assert Table("$x$", [], []).to_markdown().startswith(r"**\$x\$**")

    def test_latex(self):
        lines = self.TABLE.to_latex().splitlines()
        body = lines[lines.index(r"\toprule") : lines.index(r"\bottomrule")]
        assert body == [
            r"\toprule",
            r"\multicolumn{1}{c}{} & \multicolumn{2}{c}{WT} \\",
            r"\cmidrule(lr){2-3}",
            r"T1 & x$|$y & q$^{*}$ \\",
            r"\midrule",
            r"$\bullet$ & \textbf{5.0 $\pm$ 1.0}$^{*}$ & $<$b$>$\&\_ \\",
            r"\midrule",
            r"mean & \multicolumn{2}{l}{covers two} \\",
        ]
        assert r"\caption{Dice (\%) of a\_b}" in lines
        assert r"\begin{tabular}{crr}" in lines

    def test_html(self):
        html = self.TABLE.to_html()
        assert '<td colspan="1"></td><th scope="colgroup" colspan="2">WT</th>' in html
        assert '<th scope="col" class="published">q*</th>' in html
        assert (
            '<tr><th scope="row" class="present">●</th><td class="best significant"><strong>5.0 ± 1.0</strong>'
            '<sup>*</sup></td><td class="published">&lt;b&gt;&amp;_</td></tr>'
        ) in html
        assert '<tbody class="total">\n<tr><th scope="row">mean</th><td colspan="2">covers two</td></tr>' in html
        assert '<td class="note" colspan="3">* p &lt; 0.05<br>\n50 % &amp; more</td>' in html


def test_markdown_of_text_with_markup():
    """Names of methods and cases come from files: they must not insert HTML, fetched pictures or line breaks."""
    said = markdown("<script>x</script> ![a](http://b) c\n# d [78.9, 83.4]")
    assert said == "&lt;script>x&lt;/script> ![a]\\(http://b) c # d [78.9, 83.4]"
