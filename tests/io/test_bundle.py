"""How the folder of a bundle is found, fingerprints of recipes, and what the import of common.io loads."""

import importlib.util
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from common import __version__
from common.io import bundle as module
from common.io.bundle import bundle_root, require_same_common

REPOSITORY = Path(module.__file__).parents[2]


def make(folder: Path, name: str) -> Path:
    (folder / "configs").mkdir(parents=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps({"bundle": name}))
    return folder


@pytest.mark.parametrize("name", ["m3ae", "another"])
def test_the_working_directory_goes_before_the_bundles_below_it_if_it_is_the_bundle(tmp_path, monkeypatch, name):
    outer, inner = make(tmp_path, name), make(tmp_path / "bundles" / "m3ae", "m3ae")
    monkeypatch.chdir(tmp_path)
    assert bundle_root("m3ae") == str(outer if name == "m3ae" else inner)


def copied(folder: Path):
    """Return the module as if it lay in the `common` of a download."""
    (folder / "common" / "io").mkdir(parents=True)
    copy = shutil.copy(module.__file__, folder / "common" / "io")
    spec = importlib.util.spec_from_file_location("copy_of_bundle", copy)
    made = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(made)
    return made


@pytest.mark.parametrize("own", ["m3ae", "passion"])
def test_elsewhere_it_is_beside_common_or_the_download_or_beside_that(tmp_path, monkeypatch, own):
    download, other = make(tmp_path / own, own), tmp_path / "m3ae"
    if own != "m3ae":
        make(other, "m3ae")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert bundle_root("m3ae") == str(REPOSITORY / "bundles" / "m3ae")
    assert copied(download).bundle_root("m3ae") == str(other)


def test_package_of_another_version_of_common(tmp_path, monkeypatch):
    bundle = make(tmp_path, "m3ae")
    monkeypatch.chdir(tmp_path)
    (bundle / "manifest.json").write_text(json.dumps({"common": __version__}))
    assert bundle_root("m3ae") == str(bundle)
    (bundle / "manifest.json").write_text(json.dumps({"common": "99.0.0"}))
    for entry in (lambda: bundle_root("m3ae"), lambda: require_same_common(str(bundle))):
        with pytest.raises(ValueError, match=rf"version 99\.0\.0 of `common`.* {__version__} .*in its own process"):
            entry()


def test_nowhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / "bundles" / "own", "own")
    (tmp_path / "bundles" / "empty").mkdir()
    with pytest.raises(
        FileNotFoundError, match=r"No bundle 'nosuch'; expected one of gss, m3ae, .*, own, pas.* Searched: "
    ) as info:
        bundle_root("nosuch")
    assert str(tmp_path / "bundles" / "nosuch") in str(info.value)
    (tmp_path / "bundles" / "own" / "configs" / "metadata.json").unlink()
    (tmp_path / "alone").mkdir()
    monkeypatch.chdir(tmp_path / "alone")
    with pytest.raises(FileNotFoundError, match="expected the folder of a bundle"):  # a download has no other
        copied(tmp_path / "download").bundle_root("nosuch")


def test_neither_pytorch_nor_monai_is_loaded_before_it_is_needed():
    light = ("bundle", "documents", "files", "lock", "settings", "weights")
    code = f"import sys; from common.io import {', '.join(light)}; assert not {{'torch', 'monai'}} & {{*sys.modules}}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
