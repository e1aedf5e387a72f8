"""What the documentation lists is complete and exists: keys of the configs, times."""

import json
import re
from pathlib import Path

from common.cohorts.splits import ALL_TEST
from common.networks import unetr
from common.papers import m3ae

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(ROOT.glob("bundles/*/configs/*.json"))
METHOD = {"imports", "bundle_root", "run", "initialize", "finalize", "pretrain", "finetune", "fit", "evaluate"}
METHOD |= {"take_weights", "training_cases", "pretraining_cases", "cohort_def", "network", "data", "cases"}
METHOD |= {"calibration_cases", "facts", "_made_by_", "_run_", "start_processes"}
"""Keys of text or lists that are no settings: what is run, and what follows from other keys."""


def settings(file: str) -> set[str]:
    """Return the keys of all bundles' configs of this name whose values are set by users."""
    items = [item for path in CONFIGS if path.name == file for item in json.loads(path.read_text()).items()]
    held = {key for key, value in items if isinstance(value, dict) or (isinstance(value, list) and has_object(value))}
    return {key for key, _ in items if "#" not in key} - (held - {"conventions", "leaders"}) - METHOD


def has_object(value: list) -> bool:
    return any(isinstance(part, dict) for part in value)


def listed(file: str) -> list[str]:
    """Return the keys in the tables of the page's section about a config."""
    (section,) = (
        part for part in (ROOT / "docs/keys.md").read_text().split("\n## ") if f"`{file}`" in part.split("\n")[0]
    )
    return re.findall(r"^\| `(\w+)` \|", section, flags=re.M)


def test_every_key_is_listed_once_and_exists():
    train, inference, evaluate = (listed(file) for file in ("train.json", "inference.json", "evaluate.json"))
    assert sorted(train) == sorted(settings("train.json"))
    assert set(inference) <= settings("inference.json")
    assert settings("inference.json") - set(train) <= set(inference)
    assert sorted(evaluate) == sorted(settings("evaluate.json") - {"conventions"})
    assert len(set(inference)) == len(inference)


def test_the_words_that_a_key_takes_are_listed():
    page = (ROOT / "docs/keys.md").read_text()
    for key, words in (("fill", {*m3ae.FILLS, *unetr.FILLS}), ("masking", m3ae.MASKINGS), ("split", [ALL_TEST])):
        lines = " ".join(re.findall(rf"^\| `{key}` \|.*$", page, flags=re.M))
        assert not [word for word in words if f"`{word}`" not in lines]
