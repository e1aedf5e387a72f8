"""The three wings and the door: what may import what, read from the sources (see CONTRIBUTING.md)."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CHAIN = (
    "text",
    "modalities",
    "words",
    "io",
    "cohorts",
    "transforms",
    "networks",
    "losses",
    "baselines",
    "papers",
    "evaluation",
    "engines",
)
"""Modules and folders of `common`; each imports only from itself and from those before it."""
MAY_IMPORT = {
    f"common/{part}": ["common.__version__", *(f"common.{before}" for before in CHAIN[: number + 1])]
    for number, part in enumerate(CHAIN)
}
MAY_IMPORT |= {
    "clinic": ["common", "clinic"],
    "experiments": ["common", "experiments"],
    "experiments/federation": ["common", "experiments.federation"],
    "tools": ["common", "clinic", "experiments", "tools"],
}


def imports(path: Path) -> set[str]:
    """Return the modules and names of this project that a file imports, anywhere in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in ("common", "clinic", "experiments", "tools")}


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
    files = {
        str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__"): path
        for wing in ("common", "clinic", "experiments", "tools")
        for path in ROOT.glob(f"{wing}/**/*.py")
    }

    def module(name: str) -> str:
        return name if name in files else name.rpartition(".")[0]

    TopologicalSorter({file: {*map(module, imports(path))} - {file} for file, path in files.items()}).prepare()


def test_what_is_installed_needs_no_maintenance():
    verbs = [path for path in ROOT.glob("tools/**/*.py") if "maintenance" not in path.parts]
    assert not [name for path in verbs for name in imports(path) if name.startswith("tools.maintenance")]


def test_the_chain_is_complete():
    parts = {path.stem for path in ROOT.glob("common/*") if path.suffix == ".py" or (path / "__init__.py").is_file()}
    assert parts == {"__init__", *CHAIN}
