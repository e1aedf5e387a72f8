"""Every command in README, guides and model cards refers to what exists, and guides' commands run unless marked.

A block that is not run has the line `<!-- not run: why -->` before it.
"""

import ast
import inspect
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import monai.bundle
import pytest

from mmb.__main__ import VERBS, verb
from mmb.arguments import parse_verb
from tools.__main__ import SCRIPTS, script

ROOT = Path(__file__).parents[1]
GUIDES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
CARDS = sorted(ROOT.glob("bundles/*/docs/README.md"))
BLOCK = re.compile(r"(<!-- not run: [^\n]+ -->\n)?^```(\w*)\n(.*?)^```$", flags=re.M | re.S)
FILE = re.compile(r"`([\w.]+)`:\n\n```\w+\n(.*?)^```$", flags=re.M | re.S)
"""A file that a page asks its reader to write: name and content."""
PROGRAMS = ("python", "mmb", "torchrun", "make")
RUN_OPTIONS = set(inspect.signature(monai.bundle.run).parameters)


def blocks(page: Path) -> list[tuple[bool, str]]:
    """Return a page's blocks of commands, and whether each is to be run."""
    found = [
        (not mark, text.replace("\\\n", " "))
        for mark, language, text in BLOCK.findall(page.read_text())
        if language in ("", "bash")
    ]
    return [(runs, text) for runs, text in found if any(words[0] in PROGRAMS for words in commands(text))]


def commands(block: str) -> list[list[str]]:
    try:
        return [words for line in block.splitlines() if (words := shlex.split(line, comments=True))]
    except ValueError:  # no command lines: a tree of folders, a configuration
        return []


def check_bundle(words: list[str]) -> None:
    """Assert that a function of MONAI's and its options exist, and for `run` the configs, the entry and the keys."""
    name, *rest = words
    options = {word[2:]: value for word, value in zip(rest, [*rest[1:], ""], strict=True) if word.startswith("--")}
    if name != "run":
        assert set(options) <= set(inspect.signature(getattr(monai.bundle, name)).parameters)
        return
    given = options["config_file"]
    given = re.sub(r"\$\(mmb bundle (\w+)\)", r"bundles/\1", given)
    files = ast.literal_eval(given) if given.startswith("[") else [given]
    keys = {key for file in files if (ROOT / file).is_file() for key in json.loads((ROOT / file).read_text())}
    assert keys, files
    entry = "run" if rest[0].startswith("--") else rest[0]
    assert entry in keys
    assert {option.split("#")[0] for option in options} <= keys | RUN_OPTIONS


CHECKS = {
    "mmb": lambda words: parse_verb(
        {"all": {name: verb(name) for names in VERBS.values() for name in names}}, words, "mmb"
    ),
    "monai.bundle": check_bundle,
    "tools": lambda words: parse_verb({"all": {name: script(name) for name in SCRIPTS}}, words, "tools"),
}


@pytest.mark.parametrize("page", [*GUIDES, *CARDS], ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_name_what_exists(page):
    written = {name for name, _ in FILE.findall(page.read_text())}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for words in (words for _, block in blocks(page) for words in commands(block)):
        if words[0] == "mmb":
            CHECKS["mmb"](words[1:])
        elif "-m" in words and words[0] in PROGRAMS:
            module, *rest = words[words.index("-m") + 1 :]
            if module in CHECKS:
                CHECKS[module](rest)
        elif words[:2] == ["pip", "install"]:
            assert set(re.findall(r"\w+", "".join(re.findall(r"\[(.*)\]", words[-1])))) <= extras.keys()
        for path in re.findall(r"(?<![\w/.:])(?:bundles|docs|mmb|common|tools|tests)/[\w./-]+", " ".join(words)):
            assert (ROOT / path).exists() or path in written, path


STANDS_FOR = {
    "/results/m3ae/evaluation": "docs/open_glioma/results/m3ae",
    "/results/zero_filled/evaluation": "docs/open_glioma/results/zero_filled_u_net",
    "/results/seed1/evaluation": "docs/open_glioma/results/rfnet",
    "/results/seed2/evaluation": "docs/open_glioma/results/gss",
    "/results/seed3/evaluation": "docs/open_glioma/results/medmap",
}
"""Inputs named in the guides -> what the tests use instead."""


@pytest.fixture(scope="module")
def clone(tmp_path_factory, phantom_dir) -> Path:
    """A copy of the repository with small phantoms."""
    folder = tmp_path_factory.mktemp("clone")
    for name in ("common", "docs", "mmb", "tools", "pyproject.toml"):
        os.symlink(ROOT / name, folder / name)
    shutil.copytree(ROOT / "bundles", folder / "bundles", ignore=shutil.ignore_patterns("eval"))
    for bundle in folder.glob("bundles/*/models"):  # otherwise a run generates a larger one
        shutil.copytree(phantom_dir, bundle.parent / "eval" / "phantom")
    return folder


def run_with(script: str) -> list[str]:
    """Return the command that runs a block of bash with the Python of the tests."""
    programs = f'python() {{ "{sys.executable}" "$@"; }}; mmb() {{ python -m mmb "$@"; }}; pip() {{ :; }}'
    return ["bash", "-euc", f"{programs}\n{script}"]


@pytest.mark.slow  # trainings and an evaluation, minutes in all
@pytest.mark.parametrize("page", GUIDES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_run(page, clone, phantom_dir, tmp_path):
    for name, content in FILE.findall(page.read_text()):
        (clone / name).write_text(content)
    study = next(case for case in sorted(phantom_dir.iterdir()) if case.is_dir())
    shutil.copytree(study, tmp_path / "studies" / "one")
    places = {"STUDY": study, "STUDIES": tmp_path / "studies", "DIR": tmp_path / "placed", "OUT": tmp_path / "out"}
    places |= STANDS_FOR
    for runs, block in blocks(page):
        if runs:
            script = re.sub(r"^\. .*$", "", block, flags=re.M)  # the tests' own environment is used
            for place, value in places.items():
                script = re.sub(rf"(?<![\w/]){place}\b", str(value), script)
            done = subprocess.run(run_with(script), cwd=clone, capture_output=True, text=True)
            assert done.returncode == 0, f"{block}\n{done.stdout[-2000:]}{done.stderr[-4000:]}"
