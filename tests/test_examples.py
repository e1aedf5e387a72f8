"""The examples in docstrings print what they show, and each of them can be pasted into an empty session."""

import doctest
import os
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("common", "mmb")
    for path in ROOT.glob(f"{package}/**/*.py")
    if ">>>" in path.read_text(encoding="utf-8")
)
FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.mark.parametrize("name", MODULES)
def test_examples_print_what_they_show(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(name), globs={}, optionflags=FLAGS)  # without the module's own names
    assert result.attempted
    assert not result.failed
    assert os.listdir(tmp_path) == []


def test_what_users_construct_has_an_example():
    finder = doctest.DocTestFinder(exclude_empty=True)
    found = {test.name for name in MODULES for test in finder.find(import_module(name)) if test.examples}
    assert len(found) >= 20
