"""Packaged bundles are downloaded and work on their own, in fresh processes that cannot import the repository."""

import http.server
import json
import os
import shutil
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import nibabel as nib
import pytest
from processes import answering, python
from run_tools import run_script

import common
from tools.package import make_package

BUNDLES = sorted(path.parents[1] for path in Path(common.__file__).parents[1].glob("bundles/*/configs/metadata.json"))
NAMES = [path.name for path in BUNDLES]


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """A folder that contains nothing but the unpacked bundles."""
    zips, folder = tmp_path_factory.mktemp("zips"), tmp_path_factory.mktemp("alone")
    for bundle in BUNDLES:
        zipfile.ZipFile(make_package(bundle, zips)).extractall(folder)
    return folder


def test_the_repository_is_out_of_reach(alone):
    done = python("-c", "import common", cwd=alone)
    assert "No module named 'common'" in done.stderr


@pytest.fixture(scope="module")
def case(phantom_dir) -> Path:
    return sorted(path for path in phantom_dir.iterdir() if path.is_dir())[-1]


@pytest.mark.slow  # fresh processes that import everything
@pytest.mark.parametrize(("tool", "below"), [("monai", ""), ("curl", "gss")], ids=["from-its-parent", "from-inside"])
def test_from_the_package_to_a_segmentation(tmp_path, capsys, case, tool, below):
    """A bundle is packaged, served, downloaded by a command that `package` prints, and segments a case."""
    assert run_script("package", BUNDLES[NAMES.index("gss")], tmp_path / "dist") is None
    (command,) = [line for line in capsys.readouterr().out.splitlines() if tool in line and "URL/" in line]
    (tmp_path / "placed").mkdir()
    with answering(partial(http.server.SimpleHTTPRequestHandler, directory=tmp_path / "dist")) as url:
        command = command.replace("URL", url).replace("DIR", "placed")
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        subprocess.run(["bash", "-euc", command], cwd=tmp_path, env=os.environ | {"PATH": path}, check=True)
    placed, cwd = tmp_path / "placed" / "gss", tmp_path / "placed" / below
    words = ["--config_file", os.path.relpath(placed / "configs/inference.json", cwd), "--dataset_dir", str(case)]
    words += ["--output_dir", str(tmp_path / "out"), "--modalities", "['t1c','flair']"]
    done = python("-m", "monai.bundle", "run", *words, cwd=cwd)
    assert done.returncode == 0, done.stderr[-3000:]
    label = nib.load(tmp_path / "out" / case.name / f"{case.name}_seg.nii.gz")
    assert label.shape == nib.load(case / f"{case.name}_flair.nii.gz").shape
    assert set(label.get_fdata().ravel()) <= {0, 1, 2, 3}
    assert str(placed) in done.stderr + done.stdout  # the messages on shipped weights contain their path


@pytest.mark.slow  # a fresh process that imports everything
def test_predict_takes_the_folder_of_a_package(alone, case, tmp_path):
    words = [sys.executable, "-m", "mmb", "predict", str(case), str(tmp_path), str(alone / "m3ae")]
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
