"""The licences of what each extra of the project installs, from the metadata of installed packages."""

import re
from collections import defaultdict
from importlib.metadata import Distribution, distribution
from pathlib import Path

from packaging.requirements import Requirement

PROJECT = "missing-modality-bundles"
EXTRAS = ("", "clinic", "nnunet", "export", "test")
"""Those of the project; the empty name stands for none."""
WITHOUT = "Without an extra"
COPYLEFT = re.compile(r"\bA?GPL|(?<!Lesser )General Public License", re.IGNORECASE)
"""Licences under which a program that imports the package would have to be published; LGPL is none of them."""
PAGE = Path(__file__).parents[1] / "docs" / "licences.md"
HEAD = """# Licences

This project is under Apache-2.0. `python -m tools licences` writes this page: the licence of every package that pip
installs with it, in the package's own words. None is under the GPL. A few are under the LGPL or the MPL, which allow
you to use them, and to pass them on unchanged. PyTorch with CUDA brings NVIDIA's packages, under NVIDIA's own licences.

**Weights**: those of the bundles were trained on cases of BraTS 2021 and BraTS-Africa, both CC BY 4.0; the attributions
are in `data_license.txt` beside each card. deepbet (MIT), in the extra `clinic`, brings its own weights for skull
stripping, the packages under the LGPL, and a GUI toolkit (customtkinter) that is never used here.

**Images of a patient**: `mmb example` writes one case of BraTS-Africa (TCIA, doi 10.7937/v8h6-8x67), which is part of
the package under CC BY 4.0. Its attribution is in `mmb/clinic/examples/patient_data/ATTRIBUTION.txt`, and is
written beside the images.

**Not installed**: a decoder for 12-bit JPEG (DICOM's JPEG Extended), which scanners rarely write. The only one that we
found, pylibjpeg-libjpeg, is under the GPL-3.0; `pip install pylibjpeg-libjpeg` adds it.
"""


def licences(output: str = str(PAGE)) -> None:
    """Write the page of licences: what each extra adds, by licence.

    Args:
        output: the file to write.
    """
    known: set[str] = set()
    parts = [HEAD]
    for extra in EXTRAS:
        added = {name: one for name, one in packages(extra).items() if name not in known}
        known |= {*added}
        by_licence = defaultdict(list)
        for name, one in added.items():
            by_licence[one].append(name)
        rows = [f"| {one} | {', '.join(names)} |" for one, names in sorted(by_licence.items())]
        parts.append("\n".join([f"\n## {extra or WITHOUT}\n\n| licence | packages |\n|---|---|", *rows, ""]))
    Path(output).write_text("".join(parts), encoding="utf-8")
    print(output)


def packages(extra: str) -> dict[str, str]:
    """Return package -> licence of all that the project installs with an extra, or without one.

    Raises PackageNotFoundError if the extra is not installed here.
    """
    found: dict[str, Distribution] = {}
    _collect(PROJECT, extra, found, set())
    found.pop(PROJECT, None)  # an extra may name others of the project
    return {name: _licence(one) for name, one in sorted(found.items())}


def _licence(found: Distribution) -> str:
    """Return what a package states: an SPDX expression, else its classifiers, else the first line of its text."""
    stated = found.metadata
    classifiers = [text.rpartition(" :: ")[2] for text in stated.get_all("Classifier", []) if "License ::" in text]
    text = stated.get("License-Expression") or ", ".join(classifiers) or stated.get("License", "")
    return text.strip().partition("\n")[0][:80].replace("|", "/") or "not stated"


def _collect(name: str, extra: str, found: dict[str, Distribution], seen: set[tuple[str, str]]) -> None:
    """Add what a package requires with an extra, and what that requires, to ``found``."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        found[key] = distribution(requirement.name)
        for further in {"", *requirement.extras}:
            if (key, further) not in seen:
                seen.add((key, further))
                _collect(requirement.name, further, found, seen)
