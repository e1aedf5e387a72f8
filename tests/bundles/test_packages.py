"""Packaged bundles work on their own, in an empty folder and fresh processes that cannot import the repository."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nibabel as nib
import pytest

import common
from tools.packages.package import make_package, place_package

BUNDLES = sorted(path.parents[1] for path in Path(common.__file__).parents[1].glob("bundles/*/configs/metadata.json"))
NAMES = [path.name for path in BUNDLES]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A folder that contains nothing but the unpacked bundles."""
    zips, folder = tmp_path_factory.mktemp("zips"), tmp_path_factory.mktemp("alone")
    for bundle in BUNDLES:
        place_package(make_package(bundle, zips), folder)
    return folder


def python(*words: str, cwd: Path) -> subprocess.CompletedProcess:
    """Run Python without `site`, which would add, for example, an editable installation of the repository."""
    paths = dict.fromkeys(sysconfig.get_path(key) for key in ("purelib", "platlib"))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    return subprocess.run([sys.executable, "-S", *words], cwd=cwd, env=environment, capture_output=True, text=True)


def test_the_repository_is_out_of_reach(alone):
    done = python("-c", "import common", cwd=alone)
    assert "No module named 'common'" in done.stderr


@pytest.mark.parametrize(("name", "below"), [("m3ae", "."), ("gss", "gss")], ids=["from-its-parent", "from-inside"])
@pytest.mark.slow  # a fresh process that imports everything
def test_inference(alone, phantom_dir, name, below, tmp_path):
    case = sorted(path for path in phantom_dir.iterdir() if path.is_dir())[-1]
    config = os.path.relpath(alone / name / "configs" / "inference.json", alone / below)
    words = ["-m", "monai.bundle", "run", "--config_file", config, "--dataset_dir", str(case)]
    done = python(*words, "--output_dir", str(tmp_path), "--modalities", "['t1c','flair']", cwd=alone / below)
    assert done.returncode == 0, done.stderr[-3000:]
    label = nib.load(tmp_path / case.name / f"{case.name}_seg.nii.gz")
    assert label.shape == nib.load(case / f"{case.name}_flair.nii.gz").shape
    assert set(label.get_fdata().ravel()) <= {0, 1, 2, 3}
    assert str(alone / name) in done.stderr + done.stdout  # the messages on shipped weights contain their path


@pytest.mark.slow  # a fresh process that imports everything
def test_predict_takes_the_folder_of_a_package(alone, phantom_dir, tmp_path):
    case = sorted(path for path in phantom_dir.iterdir() if path.is_dir())[-1]
    words = [sys.executable, "-m", "tools", "predict", str(case), str(tmp_path), str(alone / "m3ae")]
    words += ["--modalities", "t2,flair", "--device", "cpu"]
    done = subprocess.run(words, cwd=Path(common.__file__).parents[1], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert nib.load(tmp_path / "label.nii.gz").shape == nib.load(case / f"{case.name}_flair.nii.gz").shape


LOAD = """
import monai.bundle
from pathlib import Path
for name in {names}:
    network = monai.bundle.load(name, bundle_dir=".", workflow_type="inference", device="cpu")
    print("loaded", name, type(network).__name__, all(bool(p.isfinite().all()) for p in network.parameters()))
import common
print("common of", Path(common.__file__).parent.relative_to(Path.cwd()))
"""


@pytest.mark.slow  # a fresh process that imports everything
def test_load(alone):
    done = python("-c", LOAD.format(names=NAMES), cwd=alone)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines if line.startswith("loaded") and line.endswith("True")] == NAMES
    assert f"common of {NAMES[0]}/common" in lines


@pytest.mark.slow  # a fresh process that imports everything
def test_another_version_of_common_in_one_process(alone, tmp_path):
    for name in ("m3ae", "passion"):
        shutil.copytree(alone / name, tmp_path / name)
    manifest = tmp_path / "passion" / "manifest.json"
    manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"common": "99.0.0"}))
    done = python("-c", LOAD.format(names=["m3ae", "passion"]), cwd=tmp_path)
    assert done.returncode == 1
    assert "loaded m3ae" in done.stdout
    assert "passion was made with version 99.0.0 of `common`, but this process has loaded" in done.stderr
