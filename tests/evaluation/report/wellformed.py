"""Checks of tables and reports: their HTML, Markdown and LaTeX are well-formed."""

import re
from html.parser import HTMLParser

VOID = {"meta", "img"}


class Page(HTMLParser):
    """The texts and images of a page; its elements are nested, and the rows of a table equally wide."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {"h1": [], "h2": [], "th": [], "td": [], "p": []}
        self.widths: list[list[int]] = []
        """The width of each row, for each table."""
        self.images: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []
        assert all(len(set(widths)) == 1 for widths in self.widths)
        self.headings = self.texts["h1"] + self.texts["h2"]
        self.cells = self.texts["th"] + self.texts["td"]

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        self.tags.add(tag)
        if tag not in VOID:
            self.open.append(tag)
        if tag in self.texts:
            self.texts[tag].append("")
        if tag == "table":
            self.widths.append([])
        if tag == "tr":
            self.widths[-1].append(0)
        if tag in ("td", "th"):
            self.widths[-1][-1] += int(given.get("colspan", 1))
        self.images += [given["src"]] if "src" in given else []

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.texts:
            self.texts[self.open[-1]][-1] += data


def check_markdown(text: str) -> None:
    """Assert that tables are valid: blank lines around them, equal numbers of cells, a rule below the header."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.startswith("|") and not lines[number - 1].startswith("|"):
            end = next(i for i in range(number, len(lines)) if not lines[i].startswith("|"))
            assert lines[number - 1] == lines[end] == ""
            assert lines[number - 2].startswith("**")
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in lines[number:end]}) == 1
            assert re.fullmatch(r"\|( :?-:? \|)+", lines[number + 1])
        if line.startswith(("#", "!", "*", ">")):
            assert {lines[number - 1], lines[number + 1]} == {""} or number == 0


def check_latex(text: str) -> None:
    """Assert that a table's environments, braces and formulas close, and its rows have a cell for each column."""
    begun, ended = re.findall(r"\\begin{(\w+)}", text), re.findall(r"\\end{(\w+)}", text)
    assert begun == ["table", "adjustbox", "tabular"] == ended[::-1]
    bare = re.sub(r"\\[\\&%$#_{}]", "", text)  # without what is escaped
    assert bare.count("{") == bare.count("}")
    assert bare.count("$") % 2 == 0
    assert not set("%#~_^<>") & set(re.sub(r"\$[^$]*\$", "", bare))
    assert text.isascii()
    columns = len(re.search(r"\\begin\{tabular\}\{([lcr]+)\}", text)[1])
    rows = [line for line in text.split("\n") if line.endswith(r"\\")]
    assert rows
    for row in rows:
        spans = sum(int(size) - 1 for size in re.findall(r"\\multicolumn\{(\d+)\}", row))
        assert len(re.findall(r"(?<!\\)&", row)) + 1 + spans == columns
        assert not row.startswith("[")
