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
from pathlib import Path
from typing import Any

from common import __version__
from common.io.bundle import COMMON, MANIFEST
from common.io.files import DISK_FULL, replacing
from common.io.fingerprint import file_digest
from common.io.lock import scratch_folder
from common.io.weights import shipped_weights
from common.release.limits import DEPTH, LISTING_SIZE, MEMBERS, PACKAGE_SIZE

PARTS = ("LICENSE", "configs", "docs", "models")
"""What is taken of a bundle's folder: not what its use leaves there (eval/)."""
REQUIRED_FILES = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "models/model.pt")
"""Files without which there is no package, and none is placed."""
EXTRAS = ("dicom", "registration")
"""What `python -m tools predict` needs of the project's extras."""
VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){2}")
PACKAGE_INIT = '''"""Makes the `common` in this folder importable from its parent; the configs import this first."""

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
    absent = [bundle / path for path in REQUIRED_FILES if not Path(bundle, path).is_file()]
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
        _assemble(bundle, folder)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        entries = {
            path: {"sha256": file_digest(files[path]), "size": files[path].stat().st_size} for path in sorted(files)
        }
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
        ValueError: the zip is damaged, or has no such manifest. The other files are not looked at.
    """
    with _open_zip(package) as archive:
        return _manifest(archive)


def place_package(package: str | os.PathLike, output_dir: str | os.PathLike) -> Path:
    """Check each file of a package against its manifest, and place the bundle's folder; return that.

    Nothing is placed unless all is right. Where the same bundle lies already, it is left as it is, with what its use
    has added.

    Args:
        package: the zip; its own SHA-256 is for the caller to check.
        output_dir: an existing folder.

    Raises:
        ValueError: the zip is damaged, or its files are not those of its manifest.
        FileExistsError: there is something else of the bundle's name.
    """
    manifest = read_manifest(package)
    name = manifest["bundle"]
    with (
        scratch_folder(output_dir, f"{name}.unpacked", f"a download of {name}") as scratch,
        _open_zip(package) as archive,
    ):
        unpacked, target = scratch / "unpacked", Path(output_dir, name)
        folder = unpacked / name
        _unpack(archive, unpacked)
        found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
        listed = {f"{folder.name}/{path}" for path in (*manifest["files"], MANIFEST)}
        differing = min(found ^ listed, default=None) or _first_differing(folder, manifest)
        if differing:
            raise ValueError(f"{differing!r} is not what {MANIFEST} says")
        if not os.path.lexists(target):
            os.rename(folder, target)
            return target
    differing = _first_differing(target, manifest)
    if differing:
        raise FileExistsError(
            f"{target} is there already, with other content ({differing}); move it away, or choose another folder."
        )
    return target


def _assemble(bundle: Path, folder: Path) -> None:
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
    table = tomllib.loads(project.read_text())["project"]
    requirements = sum((table["optional-dependencies"][extra] for extra in EXTRAS), table["dependencies"])
    Path(folder, "requirements.txt").write_text("".join(f"{requirement}\n" for requirement in requirements))
    Path(folder, "__init__.py").write_text(PACKAGE_INIT)
    for config in Path(folder, "configs").rglob("*.json"):
        text = config.read_text()
        config.write_text(text.replace('"imports": [', f'"imports": ["$import {folder.name}",', 1))


def _write_zip(folder: Path, target: Path) -> None:
    """Zip a folder with nothing in it that depends on when and where."""
    paths = {path.relative_to(folder.parent).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(paths):
            member = zipfile.ZipInfo(name)  # of 1980
            member.create_system = 3  # Unix, where the mode means something
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, paths[name].read_bytes())


@contextmanager
def _open_zip(package: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Open a zip within the limits, and say of whatever is wrong with it which file it is."""
    try:
        size = Path(package).stat().st_size
        if size > PACKAGE_SIZE:
            raise ValueError(f"{size} bytes, and {PACKAGE_SIZE} is the most")
        with zipfile.ZipFile(package) as archive:
            _require_limits(archive.infolist(), size)
            yield archive
    except (ValueError, EOFError, NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{Path(package).name}: no whole package of a bundle: {error}.") from None


def _require_limits(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse what could cost more than a package does; of the names nothing else is asked yet."""
    if len(members) > MEMBERS:
        raise ValueError(f"{len(members)} files, and {MEMBERS} are the most")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its files are larger than itself, and nothing in a package is compressed")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename[:100]!r} is compressed, and nothing in a package is")
        if member.filename.count("/") > DEPTH:
            raise ValueError(f"{member.filename[:100]!r}... lies deeper than {DEPTH} folders")


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack all; a name never leads out of the folder, and a link becomes a plain file."""
    try:
        archive.extractall(folder)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise
        raise ValueError(f"a file in it has a name that cannot be, or that another has ({error.strerror})") from error


def _manifest(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Return the manifest, in which all is that is asked of it."""
    names = [name for name in archive.namelist() if name.split("/")[1:] == [MANIFEST]]
    try:
        (name,) = names
        if archive.getinfo(name).file_size > LISTING_SIZE:
            raise ValueError(name)
        manifest = json.loads(archive.read(name))
        digests = [entry["sha256"] for entry in manifest["files"].values()]
        usable = all(isinstance(text, str) for text in (manifest["common"], *digests))
        usable = usable and manifest["bundle"].isidentifier() and VERSION.fullmatch(manifest["version"])
        absent = [path for path in REQUIRED_FILES if path not in manifest["files"]]
    except (KeyError, TypeError, AttributeError, ValueError, RecursionError):
        usable = False
    if not usable:
        raise ValueError(f"no usable {MANIFEST} in it")
    if absent:
        raise ValueError(f"{MANIFEST} does not list {absent[0]}, which a bundle must have")
    return manifest


def _first_differing(folder: Path, manifest: dict[str, Any]) -> str | None:
    """Return the first file of a folder that is not as the manifest says; None if all are."""
    for path, entry in manifest["files"].items():
        if not Path(folder, path).is_file() or file_digest(folder / path) != entry["sha256"]:
            return path
    return None
