"""Packages: a bundle with the code that it was made with, as one zip file that is the same byte for byte every time.

In the zip lies one folder, the bundle's: what the bundle consists of, ``common``, ``tools``, ``requirements.txt``, and
``manifest.json`` with size and SHA-256 of every other file. Nothing is compressed: compressors differ between systems,
and weights hardly shrink.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import struct
import tempfile
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from common import __version__
from common.io.bundle import COMMON, MANIFEST
from common.io.files import replacing
from common.io.fingerprint import file_digest
from common.io.weights import shipped_weights

PARTS = ("LICENSE", "configs", "docs", "models")
"""What is taken of a bundle's folder: not what its use leaves there (eval/)."""
NEEDED = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "models/model.pt")
"""Files without which there is no package."""
EXTRAS = ("dicom", "registration")
"""What `python -m tools predict` needs of the project's extras."""
VERSION = re.compile(r"\d+\.\d+\.\d+")
IMPORTED_FIRST = '''"""Makes the `common` in this folder importable from its parent; the configs import this first."""

import sys

sys.path.insert(0, __path__[0])
'''
"""``__init__.py`` of the bundle's folder. From inside that folder ``common`` is importable anyway."""


def make_package(bundle: str | os.PathLike, output_dir: str | os.PathLike) -> Path:
    """Write ``<bundle>_v<version>.zip``, the package of a bundle; return its path.

    Args:
        bundle: the bundle's folder.
        output_dir: where the zip is written, whole or not at all.

    Raises:
        FileNotFoundError: the bundle lacks a file that it must have, or `common` is not that of a clone.
        FileExistsError: this version was packaged before, with other content.
        ValueError: metadata.json has no usable name or version or does not list the weights as they are, or there is a
            link among the files.
    """
    bundle = Path(bundle)
    absent = [bundle / path for path in NEEDED if not Path(bundle, path).is_file()]
    if absent:
        raise FileNotFoundError(f"{absent[0]}: no such file; a bundle must have it.")
    for path in sorted(Path(bundle, "models").glob("*.pt")):
        shipped_weights(path, bundle)
    metadata = json.loads(Path(bundle, "configs", "metadata.json").read_text())
    name, version = str(metadata.get("bundle")), str(metadata.get("version"))
    if not name.isidentifier() or not VERSION.fullmatch(version):
        raise ValueError(
            f"{bundle}: bundle {name!r}, version {version!r} in configs/metadata.json; expected a name such as m3ae "
            "and a version such as 0.1.0."
        )
    target = Path(output_dir, f"{name}_v{version}.zip")
    with tempfile.TemporaryDirectory() as temporary, replacing(target) as written:
        folder = Path(temporary, name)
        _lay_out(bundle, folder)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        entries = {path: {"sha256": file_digest(files[path]), "size": _size(files[path])} for path in sorted(files)}
        manifest = {"bundle": name, "version": version, "common": __version__, "files": entries}
        Path(folder, MANIFEST).write_text(json.dumps(manifest, indent=1))
        _write_zip(folder, written)
        if target.exists() and file_digest(target) != file_digest(written):
            raise FileExistsError(
                f"{target} has other content, and a version that others may have must not change. Raise `version` in "
                f"{bundle}/configs/metadata.json, or delete the file if nobody has it."
            )
    return target


def read_manifest(package: str | os.PathLike) -> dict[str, Any]:
    """Return a package's manifest: ``bundle``, ``version``, ``common`` (its version) and, by path, ``files``.

    Raises:
        ValueError: the zip is damaged, or holds other files than the manifest says. What is in them is not checked.
    """
    with _opened(package) as archive:
        return _checked_manifest(archive)


def place_package(package: str | os.PathLike, output_dir: str | os.PathLike) -> Path:
    """Check each file of a package against its manifest, and place the bundle's folder; return that.

    Nothing is placed unless all is right. Where the same bundle lies already, it is left as it is, with what its use
    has added.

    Args:
        package: the zip; its own SHA-256 is for the caller to check.
        output_dir: an existing folder.

    Raises:
        ValueError: the zip is damaged, or not exactly what its manifest says.
        FileExistsError: there is something else of the bundle's name.
    """
    with _opened(package) as archive, tempfile.TemporaryDirectory(dir=output_dir, prefix=".") as temporary:
        manifest = _checked_manifest(archive)
        name, target = manifest["bundle"], Path(output_dir, manifest["bundle"])
        archive.extractall(temporary)  # names were checked to be safe
        differing = _first_differing(Path(temporary, name), manifest)
        if differing:
            raise ValueError(f"{differing!r} is not what {MANIFEST} says")
        if not os.path.lexists(target):
            os.rename(Path(temporary, name), target)
            return target
    differing = _first_differing(target, manifest)
    if differing:
        raise FileExistsError(
            f"{target} is there already, with other content ({differing}); move it away, or choose another folder."
        )
    return target


def _lay_out(bundle: Path, folder: Path) -> None:
    """Put together the folder that will be zipped."""
    project = COMMON.parent / "pyproject.toml"
    if not project.is_file():
        raise FileNotFoundError(f"{project}: no such file; packages are made in a clone of the repository.")
    folder.mkdir()
    for source in [*(bundle / part for part in PARTS), COMMON, COMMON.parent / "tools"]:
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, folder / source.name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, folder, follow_symlinks=False)
    links = [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink()]
    if links:
        raise ValueError(f"{bundle}: {links[0]} is a link; expected the file itself.")
    said = tomllib.loads(project.read_text())["project"]
    requirements = sum((said["optional-dependencies"][extra] for extra in EXTRAS), said["dependencies"])
    Path(folder, "requirements.txt").write_text("".join(f"{requirement}\n" for requirement in requirements))
    Path(folder, "__init__.py").write_text(IMPORTED_FIRST)
    for config in Path(folder, "configs").rglob("*.json"):
        text = config.read_text()
        config.write_text(text.replace('"imports": [', f'"imports": ["$import {folder.name}",', 1))


def _write_zip(folder: Path, target: Path) -> None:
    """Zip a folder with nothing in it that depends on when and where."""
    paths = {path.relative_to(folder.parent).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(paths):
            info = zipfile.ZipInfo(name)  # of 1980
            info.create_system = 3  # Unix, where the mode means something
            info.external_attr = (stat.S_IFREG | 0o644) << 16
            info.file_size = _size(paths[name])
            with archive.open(info, "w") as member, paths[name].open("rb") as file:
                shutil.copyfileobj(file, member)


@contextmanager
def _opened(package: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Open a zip, and say of whatever is wrong with it which file it is and what to do."""
    try:
        with zipfile.ZipFile(package) as archive:
            yield archive
    except (ValueError, EOFError, NotImplementedError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{Path(package).name}: no whole package of a bundle: {error}.") from None


def _checked_manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the manifest, with whose names and sizes those of all members then agree, and which are safe to write."""
    members = archive.infolist()
    for info in members:
        if not stat.S_ISREG(info.external_attr >> 16) or not _is_safe(info.filename):
            raise ValueError(f"{info.filename!r} is a link or a folder, or would lie outside of the bundle's folder")
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
            raise ValueError(f"{info.filename!r} is compressed or encrypted")
    sizes = {info.filename: info.file_size for info in members}
    if len({name.casefold() for name in sizes}) < len(members) or sum(sizes.values()) > _size(Path(archive.filename)):
        raise ValueError("two members have the same name or the same data")
    name = next((path for path in sizes if path.count("/") == 1 and path.endswith(f"/{MANIFEST}")), None)
    if name is None:
        raise ValueError(f"no {MANIFEST}")
    try:
        manifest = json.loads(archive.read(name))
        folder = manifest["bundle"]
        listed = {f"{folder}/{path}": entry["size"] for path, entry in manifest["files"].items()}
        digests = [entry["sha256"] for entry in manifest["files"].values()]
        usable = folder.isidentifier() and VERSION.fullmatch(manifest["version"]) and "common" in manifest
        usable = usable and all(isinstance(digest, str) for digest in digests)
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        usable = False
    if not usable:
        raise ValueError(f"{name} cannot be read")
    differing = sizes.items() ^ {**listed, f"{folder}/{MANIFEST}": sizes[name]}.items()
    if differing:
        raise ValueError(f"{min(path for path, _ in differing)!r} is not in the zip as it is in {MANIFEST}")
    return manifest


def _first_differing(folder: Path, manifest: dict[str, Any]) -> str | None:
    """Return the first file of a folder that is not as the manifest says; None if all are."""
    for path, entry in manifest["files"].items():
        if not Path(folder, path).is_file() or file_digest(folder / path) != entry["sha256"]:
            return path
    return None


def _is_safe(name: str) -> bool:
    """Return if a member's name is a plain relative path."""
    path = PurePosixPath(name)
    plain = not path.is_absolute() and ".." not in path.parts and not set(name) & {"\\", ":"}
    return plain and path.as_posix() == name


def _size(path: Path) -> int:
    return path.stat().st_size
