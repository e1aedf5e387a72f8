"""Write the configs of all bundles from what they share and what is a paper's own: ``make configs``.

``bundles/base`` has the files that all bundles share, and ``bundles/<name>/paper.json`` a section for each of them. A
section is merged into its file as MONAI merges configs: a key replaces, ``a#b`` replaces b within a, and ``+a`` adds to
a. In an overlay, such as a recipe, which has no a, ``a#b`` and ``+a`` stay, for the config that it is given after.

``metadata.json`` also has the version of `common`, and what `tools.ship` wrote. ``train.json`` is ``settings``, then
``pretrainer`` if the paper has it, then ``train``; ``evaluate.json`` is ``inference`` with ``evaluate`` merged into it,
so that it can be given alone or after either. A recipe of ``full_size`` is that folder's ``all``, with the settings of
the paper's authors, then its own. Of two parts, the keys that are new in the second stand first; what a run is checked
by (`CHECKS`) stands last. ``logging.conf`` and the licence are copies.
"""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser
from monai.bundle.utils import merge_kv

from common import __version__

BUNDLES = Path(__file__).parents[1] / "bundles"
README = BUNDLES.parent / "README.md"
FILES = ("inference", "evaluate", "multi_gpu_train")
CHECKS = ("_recipes_", "_first_", "_files_", "_unread_", "_per_axis_", "_allowed_", "_free_")
SHIPPED = ("data_source", "weights", "eval_metrics", "test_results", "inference_cost")
"""Keys of metadata.json that `tools.ship` writes into it, so that they stay as they are."""
NOT_TRAINED = ("recipes/phantom",)
"""Recipes of inference, which has no ``recipes``: the names of a training's overlays, which its weights record."""
WIDTH = 120


def merged(base: dict[str, Any], own: dict[str, Any]) -> dict[str, Any]:
    """Return a config with a second one merged into it."""
    config = {key: None for key in own if key not in base and "#" not in key and key[0] != "+"} | base
    parser = ConfigParser(config)
    for key, value in own.items():
        if key.lstrip("+").split("#")[0] in config:
            merge_kv(parser, key, value)
        else:
            config[key] = value
    return config


def configs(bundle: Path) -> Iterator[tuple[Path, str]]:
    """Yield the path and the text of each config of a bundle that is made."""

    def section(*names: str) -> dict[str, Any]:
        base, own = bundle.parent / "base" / f"{'/'.join(names)}.json", load(bundle / "paper.json")
        for name in names:
            own = own.get(name, {})
        return merged(load(base) if base.is_file() else {}, own)

    load = ConfigParser.load_config_file
    paper = load(bundle / "paper.json")
    stage = {"pretrainer": section("pretrainer")} if "pretrainer" in paper else {}
    made = {"train": section("settings") | stage | section("train")} | {name: section(name) for name in FILES}
    made["evaluate"] = merged(section("inference"), made["evaluate"])
    made |= {f"recipes/{name}": section("recipes", name) for name in paper["recipes"]}
    full_size = paper["full_size"].keys() - {"all"}
    made |= {f"recipes/{name}": merged(section("full_size", "all"), section("full_size", name)) for name in full_size}
    path = bundle / "configs" / "metadata.json"
    shipped = {key: value for key, value in load(path).items() if key in SHIPPED} if path.is_file() else {}
    yield path, text(section("metadata") | {"version": __version__} | shipped) + "\n"
    note = {"_made_by_": f"make configs, from bundles/base and bundles/{bundle.name}/paper.json: change these instead"}
    for name, config in made.items():
        top = {key: config[key] for key in ("_desc_", "imports") if key in config}
        if name.startswith("recipes/") and name not in NOT_TRAINED:
            top["+_recipes_"] = [f"{Path(name).name}.json"]
            if own := [key for key in config if key not in made["train"] and is_setting(key, config[key])]:
                top["+_unread_"] = own
        last = {key: config.pop(key) for key in CHECKS if key in config}
        yield bundle / "configs" / f"{name}.json", text(note | top | config | last) + "\n"
    yield bundle / "configs" / "logging.conf", (bundle.parent / "base" / "logging.conf").read_text()
    yield bundle / "LICENSE", (bundle.parents[1] / "LICENSE").read_text()


def readme() -> str:
    """Return the repository's README with a row for each bundle in its table of methods."""
    rows = ["| bundle | paper | idea |", "|---|---|---|"]
    for paper in sorted(BUNDLES.glob("*/paper.json")):
        said = json.loads(paper.read_text())["readme"]
        rows.append(
            f"| [{paper.parent.name}](bundles/{paper.parent.name}/docs/README.md) | {said['paper']} | {said['idea']} |"
        )
    return re.sub(rf"{re.escape(rows[0])}\n(\|.*\n)+", lambda _: "\n".join([*rows, ""]), README.read_text("utf-8"))


def is_setting(key: str, value: Any) -> bool:
    """Return whether a key of an overlay has a plain value: what reads it may be replaced by a later overlay."""
    return key[0] not in "_+" and "#" not in key and not isinstance(value, dict)


def text(value: Any, indent: str = "", before: int = 0) -> str:
    """Return JSON with one line for what fits into it after an indent and ``before`` characters, but for the whole."""
    line = json.dumps(value, ensure_ascii=False)
    if not value or not isinstance(value, dict | list) or (indent and len(indent) + before + len(line) < WIDTH):
        return line
    parts = [(f"{json.dumps(key)}: ", part) for key, part in value.items()] if isinstance(value, dict) else None
    inner = indent + "    "
    lines = [inner + key + text(part, inner, len(key)) for key, part in parts or [("", part) for part in value]]
    return "\n".join([line[0], ",\n".join(lines), indent + line[-1]])


if __name__ == "__main__":
    for paper in BUNDLES.glob("*/paper.json"):
        for path, content in configs(paper.parent):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
    README.write_text(readme(), "utf-8")
