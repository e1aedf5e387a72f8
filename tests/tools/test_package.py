"""Packages are the same every time, hold all that a bundle needs, and never change."""

import json
import os
import tomllib
import zipfile
from pathlib import Path

import pytest
from small_bundle import write_bundle

import common
from tools.package import make_package

REPOSITORY = Path(common.__file__).parents[1]
NAMES = ["LICENSE", "__init__.py", "configs/inference.json", "configs/metadata.json", "configs/recipes/one.json"]
NAMES += ["docs/README.md", "models/model.pt", "requirements.txt"]


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("package")
    return make_package(write_bundle(folder / "tiny"), folder / "dist")


@pytest.fixture(scope="module")
def contents(package) -> dict[str, bytes]:
    """The files of the package, by their path in the folder of the bundle."""
    with zipfile.ZipFile(package) as archive:
        return {name.removeprefix("tiny/"): archive.read(name) for name in archive.namelist()}


def test_packages_made_twice_are_identical(package, tmp_path):
    again = write_bundle(tmp_path / "elsewhere" / "renamed")
    for path in again.rglob("*"):
        os.utime(path, (1, 1e9))
        os.chmod(path, 0o700)
    Path(again, "docs", "__pycache__").mkdir()
    made = make_package(again, tmp_path / "dist")
    assert made.name == package.name == "tiny_v0.1.0.zip"
    assert made.read_bytes() == package.read_bytes()
    assert os.listdir(tmp_path / "dist") == [made.name]


def test_what_is_in_it(contents):
    assert [name for name in contents if not name.startswith("common/")] == sorted([*NAMES, "manifest.json"])
    modules = {
        f"common/{path.relative_to(REPOSITORY / 'common')}" for path in Path(common.__file__).parent.rglob("*.py")
    }
    assert modules <= set(contents)
    assert "common/cohorts/data/brats_splits.csv" in contents
    assert not any("__pycache__" in name or "/." in name for name in contents)
    assert json.loads(contents["manifest.json"]) == {"common": common.__version__}
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert contents["requirements.txt"].decode().splitlines() == needed
    for config in ("configs/inference.json", "configs/recipes/one.json"):
        assert json.loads(contents[config])["imports"] == ["$import tiny", "$import common.io as io"]


def test_another_content_of_the_same_version_is_refused(tmp_path):
    made = make_package(write_bundle(tmp_path / "tiny"), tmp_path / "dist")
    before = made.read_bytes()
    assert make_package(tmp_path / "tiny", tmp_path / "dist") == made
    write_bundle(tmp_path / "tiny", weights=b"others")
    with pytest.raises(FileExistsError, match=r"tiny_v0.1.0.zip exists with other content.* Raise `version`"):
        make_package(tmp_path / "tiny", tmp_path / "dist")
    assert made.read_bytes() == before
    assert os.listdir(tmp_path / "dist") == [made.name]


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda folder: (folder / "LICENSE").unlink(), "LICENSE: no such file"),
        (lambda folder: (folder / "models" / "model.pt").unlink(), "model.pt: no such file"),
        (lambda folder: (folder / "models" / "model.pt").write_bytes(b"others"), "is not the file that tiny"),
        (lambda folder: write_bundle(folder, version="1"), "version '1'"),
        (lambda folder: write_bundle(folder, name="../tiny"), "bundle '../tiny'"),
        (lambda folder: (folder / "docs" / "link").symlink_to("/etc/passwd"), "docs/link is a link"),
    ],
    ids=["licence", "no-weights", "other-weights", "version", "name", "link"],
)
def test_no_package_of_a_bundle_that_is_not_right(damage, complaint, tmp_path):
    damage(write_bundle(tmp_path / "tiny"))
    with pytest.raises((FileNotFoundError, ValueError), match=complaint):
        make_package(tmp_path / "tiny", tmp_path / "dist")
    assert not list(tmp_path.glob("dist/*"))
