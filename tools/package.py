"""Packages: a bundle with the code that it needs, in one zip file that is reproducible (but for TorchScript).

The zip file contains one folder, the bundle's, with the bundle's own files, ``common``, ``requirements.txt``,
``models/model.ts``, the default network in TorchScript, and ``manifest.json`` with the version of ``common``. Nothing
is compressed, since compressors differ between systems, and weights hardly shrink.
"""

import json
import os
import re
import shutil
import stat
import tomllib
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

from monai.bundle import ConfigParser, ckpt_export
from packaging.requirements import Requirement
from torch.jit.frontend import FrontendError

from common import __version__
from common.io.bundle import COMMON, MANIFEST
from common.io.files import file_digest, require_writable
from common.io.weights import metadata_of, shipped_weights

PARTS = ("LICENSE", "configs", "docs", "models")
"""Files and folders of a bundle that go into its package; output that was written there (eval/) does not."""
REQUIRED_FILES = ("LICENSE", "configs/metadata.json", "configs/inference.json", "docs/README.md", "models/model.pt")
"""Files that every package must have."""
OUTWARD = r"\[([^\]]+)\]\(\.\./\.\./[^)]*\)"
"""A link to a page of the repository, which a package does not have: its text stays."""
ASIDE = re.compile(rf"\s\({OUTWARD}([,;]\s{OUTWARD})*\)|(?<=[.\n]\s){OUTWARD}([,;]\s{OUTWARD})*\.")
"""Only such links, in brackets or as a sentence: they go."""
VERSION = r"[0-9]+(\.[0-9]+){2}"
PACKAGE_INIT = '''"""Makes the `common` in this folder importable from its parent; the configs import this first."""

import sys

sys.path.insert(0, __path__[0])
'''
"""``__init__.py`` of the bundle's folder. Within that folder ``common`` can be imported anyway."""


def make_package(bundle: str | os.PathLike, output_dir: str | os.PathLike) -> Path:
    """Write ``<bundle>_v<version>.zip``, the package of a bundle, completely or not at all; return its path."""
    name, version = require_complete(bundle)
    target = Path(output_dir, f"{name}_v{version}.zip")
    target.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=".", dir=target.parent) as temporary:
        folder, written = Path(temporary, name), Path(temporary, target.name)
        assemble(bundle, folder)
        _export(folder)
        _make_importable(folder)
        Path(folder, MANIFEST).write_text(json.dumps({"common": __version__}))
        _write_zip(folder, written)
        if target.exists() and _sums(target) == _sums(written):
            return target
        if target.exists():
            raise FileExistsError(
                f"{target} exists with other content, and a published version must not change. Raise `version` in "
                f"{bundle}/configs/metadata.json, or delete the file if it was not published."
            )
        os.replace(written, target)
    return target


def _sums(package: Path) -> dict[str, int]:
    """Return the checksums of a package's files, but of its TorchScript, whose bytes differ from export to export."""
    with zipfile.ZipFile(package) as archive:
        return {entry.filename: entry.CRC for entry in archive.infolist() if not entry.filename.endswith(".ts")}


def require_complete(bundle: str | os.PathLike) -> tuple[str, str]:
    """Return a bundle's name and version."""
    bundle = Path(bundle)
    absent = [bundle / path for path in REQUIRED_FILES if not Path(bundle, path).is_file()]
    if absent:
        raise FileNotFoundError(f"{absent[0]}: no such file; every bundle must have it.")
    metadata = metadata_of(bundle)
    lost = [name for name in metadata.get("weights", {}) if not Path(bundle, "models", name).is_file()]
    if lost:
        raise FileNotFoundError(f"{bundle / 'models' / lost[0]}: no such file, but configs/metadata.json lists it.")
    for path in sorted(Path(bundle, "models").glob("*.pt")):
        shipped_weights(path, bundle)
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
    for page in Path(folder, "docs").glob("*.md"):
        text = page.read_text().replace("../../../common/", "../common/").replace(f"bundles/{folder.name}/", "")
        page.write_text(re.sub(OUTWARD, r"\1", ASIDE.sub("", text)))
    links = [path.relative_to(folder) for path in folder.rglob("*") if path.is_symlink()]
    if links:
        raise ValueError(f"{bundle}: {links[0]} is a link; expected the file itself.")
    needed = {"torch", "monai", "numpy", *metadata_of(bundle)["required_packages_version"]}
    requirements = tomllib.loads(project.read_text())["project"]["dependencies"]
    lines = [f"{requirement}\n" for requirement in requirements if Requirement(requirement).name in needed]
    Path(folder, "requirements.txt").write_text("".join(lines))


def _export(folder: Path) -> None:
    """Write the network of the default weights in TorchScript: scripted, or traced if it cannot be."""
    config = ConfigParser()
    config.read_config(folder / "configs" / "inference.json")
    config["bundle_root"] = str(folder)
    files = {"filepath": "models/model.ts", "ckpt_file": "models/model.pt", "meta_file": "configs/metadata.json"}
    places = {key: str(folder / path) for key, path in files.items()}
    places |= {"config_file": str(folder / "configs/inference.json"), "bundle_root": str(folder)}
    if "network_def" in config:
        window = [1, len(config.get_parsed_content("cohort_def").modalities), *config.get_parsed_content("crop")]
        try:
            ckpt_export("network_def", **places)
        except (ValueError, RuntimeError, FrontendError):  # of TorchScript, on methods that it cannot read
            ckpt_export("network_def", **places, use_trace=True, input_shape=window)
        with zipfile.ZipFile(places["filepath"]) as made, zipfile.ZipFile(f"{places['filepath']}.draft", "w") as kept:
            for entry in made.infolist():
                if not entry.filename.endswith(".debug_pkl"):  # which name the folders of this machine
                    kept.writestr(entry, made.read(entry))
        os.replace(f"{places['filepath']}.draft", places["filepath"])


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


def package(bundle: str, output_dir: str) -> None:
    """Make a zip of a bundle that needs no other files of the repository; print its SHA-256 and how to download it.

    Args:
        bundle: the bundle's folder, e.g. bundles/m3ae.
        output_dir: the folder in which to write NAME_vVERSION.zip.
    """
    made = make_package(bundle, require_writable(output_dir))
    name, digest = made.name, file_digest(made)
    print(f"{made}: {made.stat().st_size / 1e6:.1f} MB, SHA-256 {digest}")
    print("Publish the SHA-256 elsewhere than the file. With the file at URL, users download and unpack it into DIR by")
    print(f"  curl -fO URL/{name} && echo '{digest}  {name}' | sha256sum -c && unzip {name} -d DIR")
    print("or, without that check, by")
    print(f"  python -m monai.bundle download --name {name.partition('_v')[0]} --url URL/{name} --bundle_dir DIR")
