"""What has to be the same at all sites of a federation and its server: bundle, version, recipe, cohort and network."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import __version__
from common.io.bundle import bundle_root
from common.io.files import file_digest


class RefusedError(ValueError):
    """A site cannot take part. The message may reach the server, so it has no names of files, folders or cases."""


def identity(bundle: str, configs: Sequence[str]) -> dict[str, str]:
    """Return a description of bundle and training, which has to be the same for all sites and the server.

    ``configs`` are files of a training in the bundle's ``configs``, e.g. ``["train.json",
    "recipes/open_glioma.json"]``.
    """
    try:
        folder = Path(bundle_root(bundle), "configs")
    except FileNotFoundError as error:
        raise RefusedError(f"the bundle {bundle} is not installed") from error
    metadata = json.loads((folder / "metadata.json").read_text())
    if lacking := [name for name in configs if not (folder / name).is_file()]:
        raise RefusedError(f"bundle {metadata['bundle']} {metadata['version']} has no config {lacking[0]}")
    return {
        "bundle": metadata["bundle"],
        "version of the bundle": metadata["version"],
        "version of common": __version__,
        "configs": ", ".join(f"{name} (SHA-256 {file_digest(folder / name)[:12]})" for name in configs),
    }


def require_same(found: Mapping[str, str], expected: Mapping[str, str]) -> None:
    """Refuse a site whose bundle, versions, configs or cohort are not the federation's; see `identity`."""
    for name in [*expected, *found]:
        if found.get(name) != expected.get(name):
            raise RefusedError(
                f"{name}: {found.get(name, 'none')}; this federation has {expected.get(name, 'none')}. Install the "
                "same release everywhere, and give the folder of a site that has this cohort"
            )


def require_same_shapes(found: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    """Refuse weights (tensors by name) whose names or shapes are not those of the federation's network."""
    for name in [*expected, *found]:
        shapes = [tuple(state[name].shape) if name in state else "nothing" for state in (found, expected)]
        if shapes[0] != shapes[1]:
            raise RefusedError(
                f"weights of another network: {name} has the shape {shapes[0]}, expected {shapes[1]}; all sites need "
                "the same width, crop and other sizes"
            )
