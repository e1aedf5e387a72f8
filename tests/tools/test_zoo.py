"""The folder for MONAI's model zoo holds what the zoo's checks ask for, in its format, or is not made."""

import ast
import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import black
import isort
import pytest
from run_tools import run_script
from small_bundle import write_bundle

from tools import zoo
from tools.zoo import make_zoo_folder

ROOT = Path(__file__).parents[2]
NAME = "glioma_mri_segmentation_tiny"


@pytest.mark.slow  # makes a package
def test_everything_is_in_the_folder_and_in_the_format_of_the_zoo(tmp_path):
    assert run_script("zoo", write_bundle(tmp_path / "tiny"), tmp_path / "out") is None
    folder = tmp_path / "out" / "models" / NAME
    assert os.listdir(tmp_path / "out") == ["models"]
    assert sorted(os.listdir(folder)) == ["LICENSE", "common", "configs", "docs", "models", "requirements.txt"]
    assert (folder / "models" / "model.pt").read_bytes() == b"weights"
    for path in folder.rglob("*.json"):
        assert path.read_text() == json.dumps(json.loads(path.read_text()), indent=4) + "\n"
    mode = black.Mode(line_length=120, magic_trailing_comma=False)
    for path in [folder / "common" / "modalities.py", folder / "common" / "networks" / "m3ae.py"]:
        code = path.read_text()
        black.assert_stable(code, black.format_str(code, mode=mode), mode=mode)
        assert code == black.format_str(code, mode=mode)
        assert isort.check_code(code, profile="black", line_length=120, src_paths=(tmp_path,))
        texts = [node for node in ast.parse(code).body if isinstance(getattr(node, "value", None), ast.Constant)]
        assert [node for node in texts if isinstance(node, ast.Expr)] == texts[:1]  # the module's docstring
    assert "# " in (folder / "common" / "modalities.py").read_text()


def test_large_files_are_listed(tmp_path, monkeypatch):
    monkeypatch.setattr(zoo, "_format", lambda folder: None)  # takes nearly all the time
    source = ROOT / "bundles" / "gss"
    folder = make_zoo_folder(source, tmp_path, url="https://example.org/gss/")
    weights = source / "models" / "model.pt"
    assert weights.stat().st_size > zoo.LINKED
    assert not (folder / "models" / "model.pt").exists()
    listed = (folder / "large_files.yml").read_text().splitlines()
    start = listed.index('  - path: "models/model.pt"')
    assert listed[0] == "large_files:"
    assert listed[start + 1 : start + 4] == [
        '    url: "https://example.org/gss/models/model.pt"',
        f'    hash_val: "{hashlib.sha256(weights.read_bytes()).hexdigest()}"',
        '    hash_type: "sha256"',
    ]


def test_nothing_is_replaced_or_left_half_done(tmp_path, monkeypatch):
    bundle = write_bundle(tmp_path / "tiny")
    folder = tmp_path / "out" / "models" / NAME
    folder.mkdir(parents=True)
    with pytest.raises(FileExistsError, match="exists already"):
        make_zoo_folder(bundle, tmp_path / "out")
    folder.rmdir()
    folder.parent.rmdir()
    monkeypatch.setattr(zoo, "LARGEST", 6)
    with pytest.raises(ValueError, match=r"LICENSE has 7 bytes, .* at most 6\. .* give --url"):
        make_zoo_folder(bundle, tmp_path / "out")
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.slow  # a fresh process that imports everything
def test_the_zoo_finds_network_and_weights_as_the_metadata_say(tmp_path):
    """The zoo's check puts the folder first on Python's path, works in the zoo, and exports to TorchScript."""
    folder = make_zoo_folder(ROOT / "bundles" / "m3ae", tmp_path)
    schema = shutil.copy(ROOT / "tests" / "bundles" / "meta_schema.json", tmp_path / "schema.json")
    code = f"""
import sys
sys.path.insert(0, {str(folder)!r})
from monai.bundle import ckpt_export, verify_metadata, verify_net_in_out
meta, config = {str(folder / "configs/metadata.json")!r}, {str(folder / "configs/inference.json")!r}
verify_metadata(meta_file=meta, filepath={str(schema)!r})
verify_net_in_out(net_id="network_def", meta_file=meta, config_file=config, bundle_root={str(folder)!r})
ckpt_export(net_id="network_def", filepath={str(tmp_path / "model.ts")!r}, meta_file=meta, config_file=config,
            ckpt_file={str(folder / "models/model.pt")!r}, bundle_root={str(folder)!r})
import common
assert common.__file__.startswith({str(folder)!r}), common.__file__
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert (tmp_path / "model.ts").stat().st_size > 1_000_000
