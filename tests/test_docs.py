"""Documentation: links, keys of the configs, versions and the tutorial."""

import json
import re
from pathlib import Path

import pytest

from common import __version__
from common.cohorts.splits import ALL_TEST
from common.networks import unetr
from common.papers import m3ae

ROOT = Path(__file__).parents[1]
PLACES = ("*.md", "docs/**/*.md", "bundles/*/docs/*.md", "common/**/*.md")
PAGES = [page for place in PLACES for page in ROOT.glob(place)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings as GitHub generates them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.*)$", text, flags=re.M)
    plain = [re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower() for heading in headings]
    return {re.sub(r"[^\w\- ]", "", heading).strip().replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in map("".join, re.findall(r"\]\(([^)\s]+)\)|src(?:set)?=\"([^\"]+)\"", page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), target
        if anchor and there.suffix == ".md":
            assert anchor in anchors(there), target


CONFIGS = sorted(ROOT.glob("bundles/*/configs/*.json"))
METHOD = {
    "imports",
    "+imports",
    "bundle_root",
    "run",
    "initialize",
    "finalize",
    "pretrain",
    "finetune",
    "fit",
    "evaluate",
}
METHOD |= {"evaluate", "evaluating", "take_weights", "training_cases", "pretraining_cases", "cohort_def", "network"}
METHOD |= {"data", "cases", "calibration_cases", "trained_for", "facts", "start_processes"}
"""Keys of text or lists that are no settings: what is run, and what follows from other keys."""


def settings(file: str) -> set[str]:
    """Return the keys of all bundles' configs of this name whose values are set by users."""
    items = [item for path in CONFIGS if path.name == file for item in json.loads(path.read_text()).items()]
    held = {key for key, value in items if isinstance(value, dict) or (isinstance(value, list) and has_object(value))}
    return {key for key, _ in items if "#" not in key and key[0] != "_"} - (held - {"conventions", "leaders"}) - METHOD


def has_object(value: list) -> bool:
    return any(isinstance(part, dict) for part in value)


def listed(file: str) -> list[str]:
    """Return the keys in the tables of the sections about a config, of the page and of bundles' cards."""
    pages = [ROOT / "docs/keys.md", *ROOT.glob("bundles/*/docs/README.md")]
    parts = (part for page in pages for part in page.read_text().split("\n## ") if f"`{file}`" in part.split("\n")[0])
    return re.findall(r"^\| `(\w+)` \|", "\n".join(parts), flags=re.M)


def test_every_key_is_listed_once_and_exists():
    train, inference, evaluate = (listed(file) for file in ("train.json", "inference.json", "evaluate.json"))
    assert ({*train} - settings("train.json"), settings("train.json") - {*train}) == (set(), set())
    assert sorted(train) == sorted({*train})
    assert set(inference) <= settings("inference.json")
    assert settings("inference.json") - set(train) <= set(inference)
    added = settings("evaluate.json") - (settings("inference.json") - {"output_dir"})
    assert sorted(evaluate) == sorted(added - {"conventions"})
    assert len(set(inference)) == len(inference)


def test_the_words_that_a_key_takes_are_listed():
    page = (ROOT / "docs/keys.md").read_text()
    for key, words in (("fill", {*m3ae.FILLS, *unetr.FILLS}), ("masking", m3ae.MASKINGS), ("split", [ALL_TEST])):
        lines = " ".join(re.findall(rf"^\| `{key}` \|.*$", page, flags=re.M))
        assert not [word for word in words if f"`{word}`" not in lines]


def test_the_version_is_that_of_the_newest_entries():
    metadata = [json.loads(path.read_text()) for path in ROOT.glob("bundles/*/configs/metadata.json")]
    assert {(meta["version"], next(iter(meta["changelog"]))) for meta in metadata} == {(__version__, __version__)}
    headings = re.findall(r"^## \[(.*?)\]", (ROOT / "CHANGELOG.md").read_text(), flags=re.M)
    assert headings[:2] == ["Unreleased", __version__]


def test_the_baselines_are_counted():
    """README and home page give the number of baselines in the table, which names every baseline's config."""
    section = (ROOT / "docs/train.md").read_text().split("### Baselines\n")[1].split("\n#")[0]
    table = re.findall(r"^\| (?!baseline)[^|]+ \| `(\w+)` \| `([^` ]+)[^|]* \|$", section, flags=re.M)
    for page in ("README.md", "docs/index.md"):
        assert re.findall(r"(\d+) baselines", (ROOT / page).read_text()) == [str(len(table))]
    configs = {
        (path.parts[-4], f"{path.parent.name}/{path.name}")
        for folder in ("baselines", "backbones")
        for path in ROOT.glob(f"bundles/*/configs/{folder}/*.json")
    }
    any_network = {("gss", "baselines/moddrop.json"), ("gss", "baselines/zero_filled.json")}
    assert configs - any_network == set(table) - {("passion", "--training")}


TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def kinds(cells: list[dict]) -> list[set[str]]:
    """Return the kinds of output of each cell: names of streams, and media types."""
    return [
        {kind for output in cell.get("outputs", []) for kind in output.get("data", [output.get("name", "error")])}
        for cell in cells
    ]


def test_it_has_outputs_and_no_errors():
    found = set().union(*kinds(json.loads(TUTORIAL.read_text())["cells"]))
    assert {"stdout", "image/png", "text/markdown"} <= found
    assert not {"stderr", "error"} & found
    assert TUTORIAL.stat().st_size < 500_000


@pytest.mark.slow  # six segmentations and a comparison, two minutes
def test_it_runs():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(TUTORIAL, 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(TUTORIAL.parent)}}).execute()
    assert kinds(notebook.cells) == kinds(json.loads(TUTORIAL.read_text())["cells"])
