"""The names that configs and users call: ``python -m tools api`` writes docs/api.md, which is a promise."""

import inspect
import re
from pathlib import Path
from pydoc import locate
from typing import Any

from common.networks.build import NETWORKS

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "api.md"
PYTHON = ("mmb.clinic.options.Options", "mmb.clinic.study.predict")
"""Names for programs, besides those that the guides import."""
HEAD = """# The interface

These names can be relied on: those that the bundles' configs call, those that the guides use from Python, and the
networks that the key `backbone` accepts. From version 1.0 on, an old name will work for one more minor version; until
then [the changelog](../CHANGELOG.md) says what to write instead. All other names may change at any time.
The keys of configs are in [Keys](keys.md), the verbs in `mmb --help`.

`python -m tools api` writes this page; a test fails if it is stale. A name's arguments are promised
with it, by name; of a class, also the methods and attributes that the guides use.
"""


def api(output: str = str(PAGE)) -> None:
    """Write the page of the names that are promised.

    Args:
        output: the file to write.
    """
    Path(output).write_text(page(), encoding="utf-8")
    print(output)


def page() -> str:
    """Return the text of the page."""
    parts = {
        "From Python": sorted({*PYTHON, *_of_guides()}),
        "In configs": sorted(_of_configs()),
        "Networks": sorted({*NETWORKS.values(), "common.networks.m3ae.M3AE"}),
    }
    tables = (f"\n## {title}\n\n{_table(names)}" for title, names in parts.items())
    return HEAD + "".join(tables)


def _table(names: list[str]) -> str:
    rows = [f"| `{name}{_signature(locate(name))}` | {_sentence(locate(name))} |" for name in names]
    return "\n".join(["| name | what it is |", "|---|---|", *rows, ""])


def _of_configs() -> set[str]:
    """Return the names of this project that are targets or are called in configs."""
    texts = "".join(path.read_text() for path in ROOT.glob("bundles/*/configs/**/*.json"))
    modules = {short: name for name, short in re.findall(r"\$import (common[.\w]*) as (\w+)", texts)}
    found = {*re.findall(r"\bcommon(?:\.\w+)+", texts)}
    for short, module in modules.items():
        found |= {f"{module}.{name}" for name in re.findall(rf"(?<![.\w]){short}\.(\w+(?:\.\w+)*)", texts)}
    return {name for name in found if callable(locate(name))}


def _of_guides() -> set[str]:
    """Return the names of this project that Python code in the guides imports."""
    pages = [ROOT / "README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("bundles/*/docs/README.md")]
    lines = [line for path in pages for line in re.findall(r"^from (\S+) import (.+)$", path.read_text(), re.MULTILINE)]
    found = {f"{module}.{name}" for module, names in lines for name in re.split(r", *", names)}
    return {name for name in found if name.split(".")[0] in ("common", "mmb")}


def _signature(item: Any) -> str:
    """Return the names of what an item is called with, those that may be left out in brackets."""
    shown = []
    for name, parameter in inspect.signature(item).parameters.items():
        star = {parameter.VAR_POSITIONAL: "*", parameter.VAR_KEYWORD: "**"}.get(parameter.kind, "")
        shown.append(f"{star}{name}" if parameter.default is parameter.empty else f"[{name}]")
    return f"({', '.join(shown)})"


def _sentence(item: Any) -> str:
    """Return the first sentence of a docstring, for a cell of a table."""
    text = " ".join((inspect.getdoc(item) or "").partition("\n\n")[0].split())
    return re.split(r"(?<=[^.]\.)\s(?=[A-Z])", text)[0].replace("|", "\\|")
