"""Packages: a bundle with the code that it needs, in one zip file that is reproducible byte for byte.

The zip file contains one folder, the bundle's, with the bundle's own files, ``common``, ``requirements.txt``, and
``manifest.json`` with size and SHA-256 of every other file. Nothing is compressed, since compressors differ between
systems, and weights hardly shrink.
"""

import json
import os
import re
import shutil
import stat
import struct
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field

from common import __version__
from common.io.bundle import COMMON, MANIFEST
from common.io.disk import full_disk
from common.io.documents import Document, parse_json
from common.io.files import file_digest
from common.io.weights import metadata_of, shipped_weights
from tools.packages.limits import DEPTH, LISTING_SIZE, MEMBERS, PACKAGE_SIZE

PARTS = ("LICENSE", "configs", "docs", "models")
"""Files and folders of a bundle that go into its package; output that was written there (eval/) does not."""
REQUIRED_FILES = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "models/model.pt")
"""Files that every package must have."""
VERSION = r"^[0-9]{1,9}(\.[0-9]{1,9}){2}$"
PACKAGE_INIT = '''"""Makes the `common` in this folder importable from its parent; the configs import this first."""

import sys

sys.path.insert(0, __path__[0])
'''
"""``__init__.py`` of the bundle's folder. Within that folder ``common`` can be imported anyway."""


def _identifier(name: str) -> str:
    if not name.isidentifier():
        raise ValueError(f"{name!r}; expected a name such as m3ae")
    return name


Name = Annotated[str, AfterValidator(_identifier)]
Version = Annotated[str, Field(pattern=VERSION)]


class PackagedFile(Document):
    """Size in bytes and SHA-256 of a file, in a manifest."""

    model_config = ConfigDict(extra="ignore")
    sha256: str
    size: int


class Manifest(Document):
    """A package's ``manifest.json``: the bundle's name and version, the version of `common`, and all other files."""

    model_config = ConfigDict(extra="ignore")
    bundle: Name
    version: Version
    common: str
    files: dict[str, PackagedFile]


def make_package(bundle: str | os.PathLike, output_dir: str | os.PathLike) -> Path:
    """Write ``<bundle>_v<version>.zip``, the package of a bundle, completely or not at all; return its path.

    Raises FileNotFoundError if the bundle lacks a required file, or `common` is not that of a clone; FileExistsError if
    this version was packaged before, with other content.
    """
    name, version = require_complete(bundle)
    target = Path(output_dir, f"{name}_v{version}.zip")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=target.parent) as temporary:
        folder, written = Path(temporary, name), Path(temporary, target.name)
        assemble(bundle, folder)
        _make_importable(folder)
        files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
        entries = {
            path: {"sha256": file_digest(files[path]), "size": files[path].stat().st_size} for path in sorted(files)
        }
        manifest = {"bundle": name, "version": version, "common": __version__, "files": entries}
        Path(folder, MANIFEST).write_text(json.dumps(manifest, indent=1))
        _write_zip(folder, written)
        if target.exists() and file_digest(target) != file_digest(written):
            raise FileExistsError(
                f"{target} exists with other content, and a published version must not change. Raise `version` in "
                f"{bundle}/configs/metadata.json, or delete the file if it was not published."
            )
        os.replace(written, target)
    return target


def require_complete(bundle: str | os.PathLike) -> tuple[str, str]:
    """Return a bundle's name and version.

    Raises FileNotFoundError if a required file is missing; ValueError if weights are not those of the metadata, or name
    or version are not valid.
    """
    bundle = Path(bundle)
    absent = [bundle / path for path in REQUIRED_FILES if not Path(bundle, path).is_file()]
    if absent:
        raise FileNotFoundError(f"{absent[0]}: no such file; every bundle must have it.")
    for path in sorted(Path(bundle, "models").glob("*.pt")):
        shipped_weights(path, bundle)
    metadata = metadata_of(bundle)
    name, version = str(metadata.get("bundle")), str(metadata.get("version"))
    if not name.isidentifier() or not re.fullmatch(VERSION, version):
        raise ValueError(
            f"{bundle}: bundle {name!r}, version {version!r} in configs/metadata.json; expected a name such as m3ae "
            "and a version such as 0.1.0."
        )
    return name, version


def assemble(bundle: str | os.PathLike, folder: Path) -> None:
    """Copy a bundle into a new folder, together with `common` and the list of its requirements."""
    project = COMMON.parent / "pyproject.toml"
    if not project.is_file():
        raise FileNotFoundError(f"{project}: no such file; packages are made in a clone of the repository.")
    folder.mkdir()
    for source in [*(Path(bundle, part) for part in PARTS), COMMON]:
        if source.is_dir():
            ignore = shutil.ignore_patterns("__pycache__", ".*")
            shutil.copytree(source, folder / source.name, symlinks=True, ignore=ignore)
        else:
            shutil.copy(source, folder, follow_symlinks=False)
    links = [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink()]
    if links:
        raise ValueError(f"{bundle}: {links[0]} is a link; expected the file itself.")
    requirements = tomllib.loads(project.read_text())["project"]["dependencies"]
    Path(folder, "requirements.txt").write_text("".join(f"{requirement}\n" for requirement in requirements))


def read_manifest(package: str | os.PathLike) -> Manifest:
    """Return a package's manifest; the package's other files are not checked."""
    with _open_zip(package) as archive:
        return _manifest(archive)


def place_package(package: str | os.PathLike, output_dir: str | os.PathLike) -> Path:
    """Check each file of a package against its manifest, and unpack it; return the bundle's folder.

    Nothing is unpacked unless all files are correct. If the folder already has the same bundle, it is left unchanged,
    including files that were added by using it. The caller has to check the SHA-256 of the zip file.
    """
    manifest = read_manifest(package)
    target = Path(output_dir, manifest.bundle)
    with TemporaryDirectory(prefix=".", dir=output_dir) as scratch, _open_zip(package) as archive:
        unpacked = Path(scratch, "unpacked")
        folder = unpacked / manifest.bundle
        _unpack(archive, unpacked)
        found = {path.relative_to(unpacked).as_posix() for path in unpacked.rglob("*") if path.is_file()}
        listed = {f"{folder.name}/{path}" for path in (*manifest.files, MANIFEST)}
        differing = min(found ^ listed, default=None) or _first_differing(folder, manifest)
        if differing:
            raise ValueError(f"{differing!r} differs from {MANIFEST}")
        if not os.path.lexists(target):
            os.rename(folder, target)
            return target
    differing = _first_differing(target, manifest)
    if differing:
        raise FileExistsError(
            f"{target} already exists with other content ({differing}); move it away, or choose another folder."
        )
    return target


def _make_importable(folder: Path) -> None:
    """Let the configs find the folder's own `common` from the folder's parent, too."""
    Path(folder, "__init__.py").write_text(PACKAGE_INIT)
    for config in Path(folder, "configs").rglob("*.json"):
        text = config.read_text()
        config.write_text(text.replace('"imports": [', f'"imports": ["$import {folder.name}",', 1))


def _write_zip(folder: Path, target: Path) -> None:
    """Zip a folder so that the result does not depend on time and system."""
    paths = {path.relative_to(folder.parent).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    with zipfile.ZipFile(target, "w") as archive:
        for name in sorted(paths):
            member = zipfile.ZipInfo(name)  # dated 1980
            member.create_system = 3  # Unix, for which the mode is defined
            member.external_attr = (stat.S_IFREG | 0o644) << 16
            archive.writestr(member, paths[name].read_bytes())


@contextmanager
def _open_zip(package: str | os.PathLike) -> Iterator[zipfile.ZipFile]:
    """Open a zip file after checking its limits; every error names the file."""
    try:
        size = Path(package).stat().st_size
        if size > PACKAGE_SIZE:
            raise ValueError(f"it has {size} bytes; expected at most {PACKAGE_SIZE}")
        with zipfile.ZipFile(package) as archive:
            _require_limits(archive.infolist(), size)
            yield archive
    except (ValueError, EOFError, NotImplementedError, RuntimeError, struct.error, zipfile.BadZipFile) as error:
        raise ValueError(f"{Path(package).name}: not a valid package of a bundle: {str(error).rstrip('.')}.") from None


def _require_limits(members: list[zipfile.ZipInfo], size: int) -> None:
    """Refuse a zip file that exceeds the limits of a package; file names are checked later."""
    if len(members) > MEMBERS:
        raise ValueError(f"it has {len(members)} files; expected at most {MEMBERS}")
    if sum(member.file_size for member in members) > size:
        raise ValueError("its files are larger than the zip file, but nothing in a package is compressed")
    for member in members:
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{member.filename[:100]!r} is compressed, but nothing in a package is")
        if member.filename.count("/") > DEPTH:
            raise ValueError(f"{member.filename[:100]!r}... is more than {DEPTH} folders deep")


def _unpack(archive: zipfile.ZipFile, folder: Path) -> None:
    """Unpack all files; zipfile keeps them inside the folder and turns links into plain files."""
    try:
        archive.extractall(folder)
    except OSError as error:
        if full_disk(error):
            raise
        raise ValueError(f"one of its file names is invalid or used twice ({error.strerror})") from error


def _manifest(archive: zipfile.ZipFile) -> Manifest:
    names = [name for name in archive.namelist() if name.split("/")[1:] == [MANIFEST]]
    if len(names) != 1 or archive.getinfo(names[0]).file_size > LISTING_SIZE:
        raise ValueError(f"it has {len(names)} {MANIFEST}; expected one, of at most {LISTING_SIZE} bytes")
    manifest = parse_json(archive.read(names[0]), Manifest, MANIFEST)
    if absent := [path for path in REQUIRED_FILES if path not in manifest.files]:
        raise ValueError(f"{MANIFEST} does not list {absent[0]}, which every bundle must have")
    return manifest


def _first_differing(folder: Path, manifest: Manifest) -> str | None:
    """Return the first file of a folder that is missing or differs from the manifest; None if none does."""
    for path, entry in manifest.files.items():
        if not Path(folder, path).is_file() or file_digest(folder / path) != entry.sha256:
            return path
    return None
