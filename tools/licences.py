"""The licences of what each extra of the project installs, from the metadata of installed packages."""

import re
from collections import defaultdict
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = "missing-modality-bundles"
EXTRAS = {
    "": "Without an extra", "clinic": "clinic", "nnunet": "nnunet", "federated": "federated", "export": "export"
}  # fmt: skip
COPYLEFT = re.compile(r"\bA?GPL|(?<!Lesser )General Public License", re.IGNORECASE)
"""Licences under which a program that imports the package would have to be published; LGPL is none of them."""
PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
HEAD = """# Licences

This project is under Apache-2.0. `python -m tools licences` writes this page: the licence of every package that `pip`
installs with it, as the package states it. None is under the GPL. Under the LGPL or the MPL are those listed so; both
allow to use and to pass them on unchanged. PyTorch with CUDA brings NVIDIA's packages, under NVIDIA's own licences.

**Data and weights that come with the project**: the weights were trained on BraTS-Africa and UPENN-GBM (CC BY 4.0) as
[the cards](bundles.md) say, and are under Apache-2.0. The extra `clinic` brings deepbet's weights for skull stripping
(MIT, like deepbet).

12-bit JPEG (DICOM's JPEG Extended), which scanners rarely write, is decoded by no package here with a permissive
licence; `pip install pylibjpeg-libjpeg`, which is under the GPL-3.0, adds it.
"""


def licences(output: str = str(PAGE)) -> None:
    """Write the page of licences: what each extra adds, by licence.

    Args:
        output: the file to write.
    """
    known: set[str] = set()
    parts = [HEAD]
    for extra, title in EXTRAS.items():
        added = {name: one for name, one in packages(extra).items() if name not in known}
        known |= {*added}
        by_licence = defaultdict(list)
        for name, one in added.items():
            by_licence[one].append(name)
        rows = [f"| {one} | {', '.join(names)} |" for one, names in sorted(by_licence.items())]
        parts.append("\n".join([f"\n## {title}\n\n| licence | packages |\n|---|---|", *rows, ""]))
    Path(output).write_text("".join(parts), encoding="utf-8")
    print(output)


def packages(extra: str) -> dict[str, str]:
    """Return package -> licence of all that the project installs with an extra, or without one.

    Raises PackageNotFoundError if the extra is not installed here.
    """
    return {name: _licence(found) for name, found in sorted(_required(PROJECT, (extra,), set()))}


def _licence(found: Distribution) -> str:
    """Return what a package states: an SPDX expression, else its classifiers, else the first line of its text."""
    stated = found.metadata
    classifiers = [text.rpartition(" :: ")[2] for text in stated.get_all("Classifier", []) if "License ::" in text]
    text = stated.get("License-Expression") or ", ".join(classifiers) or stated.get("License", "")
    return text.strip().partition("\n")[0][:80].replace("|", "/") or "not stated"


def _required(name: str, extras: tuple[str, ...], seen: set) -> Iterator[tuple[str, Distribution]]:
    """Yield a package's requirements and theirs, each once."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        marker = requirement.marker
        if marker and not any(marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            continue
        key = re.sub(r"[-_.]+", "-", requirement.name).lower(), tuple(sorted(requirement.extras))
        if key in seen:
            continue
        seen.add(key)
        if not any(key[0] == other for other, extras_of in seen - {key}):
            yield key[0], distribution(requirement.name)
        yield from _required(requirement.name, key[1], seen)
