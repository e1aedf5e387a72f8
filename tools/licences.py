"""The licences of what each extra of the project installs, from the metadata of installed packages."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

PROJECT = "missing-modality-bundles"
EXTRAS = ("", "clinic", "nnunet", "federated", "export")
"""The extras that users install; the empty name stands for none."""
KNOWN = {"itk": "Apache-2.0", "nvidia": "NVIDIA's own"}


def licences(extra: str) -> dict[str, str]:
    """Return package -> licence of all that the project installs with an extra, or without one.

    Raises PackageNotFoundError if the extra is not installed.
    """
    return {name: licence(found) for name, found in sorted(_installed(PROJECT, (extra,), set()))}


def licence(found: Distribution) -> str:
    """Return a package's licence: an SPDX expression if it states one, else its classifiers or its first line."""
    metadata = found.metadata
    classifiers = [text.rpartition(" :: ")[2] for text in metadata.get_all("Classifier", []) if "License ::" in text]
    stated = metadata.get("License-Expression") or ", ".join(classifiers) or metadata.get("License", "")
    return stated.strip().partition("\n")[0][:80] or "not stated"


def _installed(name: str, extras: tuple[str, ...], seen: set) -> Iterator[tuple[str, Distribution]]:
    """Yield a package's requirements and theirs, each once."""
    found = distribution(name)
    for text in found.requires or ():
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in (*extras, "")):
            continue
        key = re.sub(r"[-_.]+", "-", requirement.name).lower(), tuple(sorted(requirement.extras))
        if key not in seen:
            seen.add(key)
            yield key[0], distribution(requirement.name)
            yield from _installed(requirement.name, key[1], seen)


def write_licences(output: str = "docs/licences.md") -> None:
    """Write the page of licences, a table for each extra that lists what it adds.

    Args:
        output: the file to write.
    """
