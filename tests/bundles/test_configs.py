"""The bundles' configs are what `make configs` makes of bundles/base and each paper.json, which is a page to read."""

import json

import pytest

from tools.configs import BUNDLES, configs, merged

PAPERS = sorted(BUNDLES.glob("*/paper.json"))
MOST_LINES, MOST_KEYS = 300, 60


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.parent.name)
def test_no_config_is_stale(paper):
    made = dict(configs(paper.parent))
    assert [path for path, text in made.items() if path.read_text() != text] == []  # else: make configs
    marked = [path for path in paper.parent.glob("configs/**/*.json") if "_made_by_" in json.loads(path.read_text())]
    assert sorted([*marked, paper.parent / "configs" / "metadata.json"]) == sorted(made)


@pytest.mark.parametrize("paper", PAPERS, ids=lambda paper: paper.parent.name)
def test_a_paper_is_a_page(paper):
    assert len(paper.read_text().splitlines()) <= MOST_LINES
    assert max(map(len, json.loads(paper.read_text()).values())) <= MOST_KEYS


@pytest.mark.parametrize("file", ["configs/logging.conf", "LICENSE"])
def test_other_files_are_the_same(file):
    assert len({(paper.parent / file).read_bytes() for paper in PAPERS}) == 1


def test_merging_is_that_of_monai():
    base = {"a": {"b": 1, "c": 2}, "d": [1], "e": 3}
    own = {"new": 0, "a#b": 4, "+d": [2], "e": {"f": 5}, "x#y": 6, "+z": [7]}
    config = merged(base, own)
    assert config == {"new": 0, "a": {"b": 4, "c": 2}, "d": [1, 2], "e": {"f": 5}, "x#y": 6, "+z": [7]}
    assert next(iter(config)) == "new"
