"""Packages are the same every time, and placed whole and unchanged or not at all."""

import copy
import hashlib
import json
import os
import stat
import tomllib
import zipfile
from pathlib import Path

import pytest
from small_bundle import write_bundle

import common
from tools.packages.package import make_package, place_package, read_manifest

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
    before = os.umask(0o077)
    try:
        made = make_package(again, tmp_path / "dist")
    finally:
        os.umask(before)
    assert made.name == package.name == "tiny_v0.1.0.zip"
    assert made.read_bytes() == package.read_bytes()
    assert os.listdir(tmp_path / "dist") == [made.name]


def test_what_is_in_it(package, contents):
    assert [name for name in contents if not name.startswith("common/")] == sorted([*NAMES, "manifest.json"])
    modules = {
        f"common/{path.relative_to(REPOSITORY / 'common')}" for path in Path(common.__file__).parent.rglob("*.py")
    }
    assert modules <= set(contents)
    assert "common/cohorts/data/brats_splits.csv" in contents
    assert not any("__pycache__" in name or "/." in name for name in contents)
    needed = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
    assert contents["requirements.txt"].decode().splitlines() == needed
    for config in ("configs/inference.json", "configs/recipes/one.json"):
        assert json.loads(contents[config])["imports"] == ["$import tiny", "$import common.io as io"]


def test_manifest(package, contents):
    manifest = read_manifest(package)
    assert (manifest.bundle, manifest.version, manifest.common) == ("tiny", "0.1.0", common.__version__)
    assert manifest.model_dump() == json.loads(contents["manifest.json"])
    assert manifest.model_dump()["files"] == {
        name: {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        for name, content in contents.items()
        if name != "manifest.json"
    }


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
        (lambda folder: write_bundle(folder, version="1"), "version '1'"),
        (lambda folder: write_bundle(folder, name="../tiny"), "bundle '../tiny'"),
        (lambda folder: (folder / "docs" / "link").symlink_to("/etc/passwd"), "docs/link is a link"),
    ],
    ids=["licence", "weights", "version", "name", "link"],
)
def test_no_package_of_a_bundle_that_is_not_right(damage, complaint, tmp_path):
    damage(write_bundle(tmp_path / "tiny"))
    with pytest.raises((FileNotFoundError, ValueError), match=complaint):
        make_package(tmp_path / "tiny", tmp_path / "dist")
    assert not list(tmp_path.glob("dist/*"))


def test_placed_as_packaged(package, contents, tmp_path):
    placed = place_package(package, tmp_path)
    assert placed == tmp_path / "tiny"
    files = {path.relative_to(placed).as_posix(): path for path in placed.rglob("*") if path.is_file()}
    assert {name: path.read_bytes() for name, path in files.items()} == contents
    assert not any(path.stat().st_mode & 0o111 for path in files.values())
    assert os.listdir(tmp_path) == ["tiny"]


def test_placing_where_it_is_already(package, tmp_path):
    placed = place_package(package, tmp_path)
    (placed / "eval").mkdir()
    assert place_package(package, tmp_path) == placed
    assert (placed / "eval").is_dir()
    (placed / "models" / "model.pt").write_bytes(b"my own")
    with pytest.raises(FileExistsError, match=r"tiny already exists with other content \(models/model.pt\)"):
        place_package(package, tmp_path)
    assert (placed / "models" / "model.pt").read_bytes() == b"my own"
    assert os.listdir(tmp_path) == ["tiny"]


@pytest.mark.parametrize("there", ["folder", "file", "link"])
def test_something_else_of_its_name_stays(package, there, tmp_path):
    target = tmp_path / "out" / "tiny"
    target.parent.mkdir()
    {"folder": target.mkdir, "file": target.touch, "link": lambda: target.symlink_to(tmp_path / "nowhere")}[there]()
    with pytest.raises(FileExistsError, match="other content"):
        place_package(package, target.parent)
    assert os.listdir(target.parent) == ["tiny"]
    assert not target.is_dir() or not os.listdir(target)
    assert not (tmp_path / "nowhere").exists()


Members = list[tuple[zipfile.ZipInfo, bytes]]


def member(name: str, mode: int = stat.S_IFREG | 0o644, compression: int = zipfile.ZIP_STORED) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name)
    info.create_system, info.external_attr, info.compress_type = 3, mode << 16, compression
    return info


def added(name: str, content: bytes = b"evil", listed: bool = True, **how: int):
    """Return a change that adds a member to the package and, if listed, to its manifest."""

    def change(members: Members) -> Members:
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
        if listed:
            members = manifested(lambda manifest: manifest["files"].update({name.removeprefix("tiny/"): entry}))(
                members
            )
        return [*members, (member(name, **how), content)]

    return change


def manifested(edit):
    """Return a change to the manifest."""

    def change(members: Members) -> Members:
        (content,) = (content for info, content in members if info.filename == "tiny/manifest.json")
        edit(manifest := json.loads(content))
        return replaced("tiny/manifest.json", json.dumps(manifest).encode())(members)

    return change


def without(name: str):
    return lambda members: [(info, content) for info, content in members if info.filename != name]


def replaced(name: str, content: bytes):
    return lambda members: [(info, content if info.filename == name else old) for info, old in members]


def changed_package(package: Path, folder: Path, change) -> Path:
    """Return a changed copy of a package."""
    with zipfile.ZipFile(package) as archive:
        members = [(copy.copy(info), archive.read(info)) for info in archive.infolist()]
    changed = folder / "tiny_v0.1.0.zip"
    with zipfile.ZipFile(changed, "w") as archive:
        for info, content in change(members):
            archive.writestr(info, content)
    return changed


def digest_in_manifest(manifest):
    manifest["files"]["models/model.pt"]["sha256"] = "0" * 64


TAMPERED = {
    "changed": (replaced("tiny/models/model.pt", b"WEIGHTS"), "'models/model.pt' differs from manifest.json"),
    "other-digest": (manifested(digest_in_manifest), "'models/model.pt' differs from manifest.json"),
    "grown": (replaced("tiny/models/model.pt", b"weights, and more"), "'models/model.pt' differs from manifest.json"),
    "missing": (without("tiny/models/model.pt"), "'tiny/models/model.pt' differs from manifest.json"),
    "extra": (added("tiny/extra.py", listed=False), "'tiny/extra.py' differs from manifest.json"),
    "beside": (added("other/extra.py", listed=False), "'other/extra.py' differs from manifest.json"),
    "parent": (added("tiny/../../evil"), "differs from manifest.json"),
    "parent-first": (added("../evil", listed=False), "'evil' differs from manifest.json"),
    "absolute": (added("/tmp/evil", listed=False), "'tmp/evil' differs from manifest.json"),
    "absolute-listed": (added("tiny//tmp/evil"), "differs from manifest.json"),
    "drive": (added("C:/evil", listed=False), "differs from manifest.json"),
    "backslash": (added("tiny\\..\\evil", listed=False), "differs from manifest.json"),
    "dot": (added("tiny/./docs/README.md", listed=False), "'docs/README.md' differs from manifest.json"),
    "link": (added("tiny/link", b"/etc/passwd", listed=False, mode=stat.S_IFLNK | 0o777), "'tiny/link' differs from"),
    "twice": (added("tiny/LICENSE", b"other", listed=False), "'LICENSE' differs from manifest.json"),
    "bomb": (added("tiny/zeros", bytes(10**7), compression=zipfile.ZIP_DEFLATED), "larger than the zip file"),
    "compressed": (added("tiny/few", b"few", compression=zipfile.ZIP_DEFLATED), "'tiny/few' is compressed"),
    "deep": (added("tiny/" + 1500 * "a/" + "b", listed=False), "is more than 20 folders deep"),
    "many": (
        lambda members: members + [(member(f"tiny/{n}"), b"") for n in range(10_000)],
        "files; expected at most 10000",
    ),
    "name-too-long": (
        added("tiny/" + 300 * "a"),
        r"one of its file names is invalid or used twice \(File name too long",
    ),
    "file-and-folder": (added("tiny/LICENSE/b", listed=False), "one of its file names is invalid or used twice"),
    "no-files": (manifested(lambda manifest: manifest.update(files={})), "manifest.json does not list LICENSE"),
    "nested-manifest": (replaced("tiny/manifest.json", b"[" * 10**6), "manifest.json: not JSON"),
    "large-manifest": (replaced("tiny/manifest.json", b" " * 5_000_000), "expected one, of at most 4194304 bytes"),
    "two-manifests": (added("other/manifest.json", b"{}", listed=False), "it has 2 manifest.json; expected one"),
    "no-manifest": (without("tiny/manifest.json"), "it has 0 manifest.json; expected one"),
    "bad-manifest": (replaced("tiny/manifest.json", b"{"), "manifest.json: not JSON"),
    "manifest-of-nothing": (replaced("tiny/manifest.json", b"[]"), "manifest.json: Input should be"),
    "name": (manifested(lambda manifest: manifest.update(bundle="..")), "bundle: '..'; expected a name"),
    "version": (manifested(lambda manifest: manifest.update(version="1")), "manifest.json: version: "),
    "no-digest": (manifested(lambda m: m["files"].update(LICENSE={"size": 1})), "files.LICENSE.sha256: Field required"),
    "other-name": (manifested(lambda manifest: manifest.update(bundle="m3ae")), "differs from manifest.json"),
}


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("how", TAMPERED)
def test_tampered_packages_are_refused_and_nothing_is_placed(package, how, tmp_path):
    change, complaint = TAMPERED[how]
    tampered, out = changed_package(package, tmp_path, change), tmp_path / "a" / "b"
    out.mkdir(parents=True)
    with pytest.raises(ValueError, match=rf"^tiny_v0.1.0.zip: not a valid package of a bundle: .*{complaint}"):
        place_package(tampered, out)
    assert os.listdir(out) == []
    assert sorted(os.listdir(tmp_path)) == ["a", tampered.name]
    assert os.listdir(tmp_path / "a") == ["b"]


def test_a_link_is_placed_as_a_plain_file(package, tmp_path):
    change = added("tiny/link", b"/etc/passwd", mode=stat.S_IFLNK | 0o777)
    link = place_package(changed_package(package, tmp_path, change), tmp_path) / "link"
    assert not link.is_symlink()
    assert link.read_text() == "/etc/passwd"


def test_members_that_share_their_data_are_refused(package, tmp_path):
    """A zip bomb needs no compression if its members overlap."""
    made = make_package(write_bundle(tmp_path / "tiny", weights=bytes(10**6)), tmp_path / "dist")
    with zipfile.ZipFile(made, "a") as archive:
        whole = archive.getinfo("tiny/models/model.pt")
        for number in range(3):
            other = copy.copy(whole)
            other.filename = other.orig_filename = f"tiny/models/{number}"
            archive.filelist.append(other)
            archive.NameToInfo[other.filename] = other
        archive._didModify = True
    (tmp_path / "out").mkdir()
    with pytest.raises(ValueError, match="larger than the zip file"):
        place_package(made, tmp_path / "out")
    assert os.listdir(tmp_path / "out") == []
