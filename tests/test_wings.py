"""The house: what may import what, and that `common` holds nothing that no bundle reaches (see CONTRIBUTING.md)."""

import ast
import re
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAIN = (
    *("text", "modalities", "io", "cohorts", "transforms", "networks", "losses", "baselines", "papers"),
    *("evaluation", "engines", "run"),
)
"""Modules and folders of `common`; each imports only from itself and from those before it."""
ROOMS = ("intake", "head", "recognise", "report")
"""Of the clinic, likewise; the predictors come before the report."""
REMARK = ("common", "mmb.clinic.remark")
"""The record that all rooms share stands below them."""
MAY_IMPORT = {
    f"common/{part}": ["common.__version__", *(f"common.{before}" for before in CHAIN[: number + 1])]
    for number, part in enumerate(CHAIN)
}
MAY_IMPORT |= {
    "mmb/predictors": ["common", "mmb.errors", "mmb.extras", "mmb.predictors"],
    "mmb/clinic": ["common", "mmb.arguments", "mmb.clinic", "mmb.errors", "mmb.extras", "mmb.predictors"],
    **{
        f"mmb/clinic/{room}": [*REMARK, "mmb.errors", "mmb.extras", *(f"mmb.clinic.{each}" for each in ROOMS[: k + 1])]
        for k, room in enumerate(ROOMS[:3])
    },
    "mmb/clinic/report": [
        *(*REMARK, "mmb.errors", "mmb.extras", "mmb.predictors"),
        *(f"mmb.clinic.{room}" for room in ROOMS),
    ],
    "mmb/server": ["common", "mmb.arguments", "mmb.clinic", "mmb.errors", "mmb.extras", "mmb.predictors", "mmb.server"],
    "mmb/experiments": ["common", "mmb.errors", "mmb.experiments", "mmb.extras", "mmb.predictors"],
    "mmb/authors": ["common", "mmb.authors"],
    "mmb": ["common", "mmb"],
    "tools": ["common", "mmb", "tools"],
}
FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for part in ("common", "mmb", "tools")
    for path in ROOT.glob(f"{part}/**/*.py")
}
"""Module -> its file."""


def imports(path: Path) -> set[str]:
    """Return the modules and names of this project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("common", "mmb", "tools")}


def module(name: str) -> str:
    """Return the module of a dotted name; some packages import the modules of their names when these are used."""
    while name not in FILES:
        name, _, last = name.rpartition(".")
        places = getattr(import_module(name), "_MODULES", {}) if name in FILES else {}
        for place, names in places.items():
            if last in names:
                return f"{name}.{place}"
    return name


@pytest.mark.parametrize("place", MAY_IMPORT)
def test_a_folder_imports_only_what_it_may(place):
    wrong = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in [*ROOT.glob(f"{place}.py"), *ROOT.glob(f"{place}/**/*.py")]
        for name in imports(path)
        if not any(f"{name}.".startswith(f"{known}.") for known in MAY_IMPORT[place])
    }
    assert not wrong


def test_no_file_leads_back_to_itself():
    """Imports within functions count, since a reader follows them, too."""
    graph = {name: {*map(module, imports(path))} - {name} for name, path in FILES.items()}
    TopologicalSorter(graph).prepare()


def test_every_module_of_common_is_reached_by_a_config():
    """A packaged bundle carries `common`, so it holds what its configs name, what that imports, and nothing else."""
    todo = {
        module(f"common.{name}")
        for path in ROOT.glob("bundles/**/*.json")
        for name in re.findall(
            r"\b(?:common\.|(?=(?:io|cohorts|networks|engines|run)\.))(\w+(?:\.\w+)*)", path.read_text()
        )
    }
    reached: set[str] = set()
    while todo:
        name = todo.pop()
        reached.add(name)
        todo |= {*map(module, imports(FILES[name])), name.rpartition(".")[0] or name} - reached
        if name == "common.networks.build":  # which has a table of classes
            todo |= {*map(module, re.findall(r'"(common(?:\.\w+)+)"', FILES[name].read_text()))} - reached
    assert {name for name in FILES if name.split(".")[0] == "common"} - reached == set()


def names(node: ast.AST) -> set[str]:
    """Return the words in code: names, attributes, and those of its texts, which may name what is to be called."""
    found = {each.id for each in ast.walk(node) if isinstance(each, ast.Name)}
    found |= {each.attr for each in ast.walk(node) if isinstance(each, ast.Attribute)}
    found |= {each.asname and each.name for each in ast.walk(node) if isinstance(each, ast.alias)} - {None}
    texts = (each.value for each in ast.walk(node) if isinstance(each, ast.Constant) and isinstance(each.value, str))
    return found | {word for text in texts for word in re.findall(r"\w+", text)}


def test_every_function_of_common_is_reached_by_a_config():
    """By its name, from configs and from what runs when a module is imported; `mmb` has what it alone needs."""
    files = [path.read_text() for name, path in FILES.items() if name.split(".")[0] == "common"]
    todo = {word for path in ROOT.glob("bundles/**/*.json") for word in re.findall(r"\w+", path.read_text())}
    within: dict[str, set[str]] = {}
    for node in (node for file in files for node in ast.parse(file).body):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            within[node.name] = within.get(node.name, set()) | names(node)
        elif not isinstance(node, ast.Expr) and "__all__" not in names(node):
            todo |= names(node)
    reached: set[str] = set()
    while todo:
        reached |= todo
        todo = {word for name in todo & within.keys() for word in within[name]} - reached
    assert within.keys() - reached == set()


def test_the_chain_is_complete():
    parts = {path.stem for path in ROOT.glob("common/*") if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts == {"__init__", *CHAIN}
