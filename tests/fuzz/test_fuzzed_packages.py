"""Packages with changed bytes are refused, or placed as their manifest says and nowhere else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from fuzz.tally import attempt
from fuzz.test_fuzzed_images import flipped
from hypothesis import given
from hypothesis import strategies as st
from small_bundle import write_bundle

from common.io.files import file_digest
from tools.packages.package import make_package, place_package


@pytest.fixture(scope="module")
def package(tmp_path_factory) -> bytes:
    """A small package."""
    folder = tmp_path_factory.mktemp("package")
    return make_package(write_bundle(folder / "tiny", "tiny", "0.1.0", weights=b"w"), folder).read_bytes()


@given(
    st.lists(st.integers(0, 2**23), max_size=3),
    st.lists(st.integers(1, 8 * 3000), max_size=3),
    st.integers(0, 100),
    st.binary(max_size=9),
)
def test_packages(package, tmp_path_factory, anywhere, directory, cut, more):
    folder = tmp_path_factory.getbasetemp() / "packages"
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "out").mkdir(parents=True)
    near_the_end = [8 * len(package) - bit for bit in directory]  # where the zip's directory is
    path = folder / "tiny_v0.1.0.zip"
    path.write_bytes(flipped(package, anywhere + near_the_end)[: len(package) - cut // 20] + more * (cut < 10))

    def is_right(placed: Path) -> bool:
        manifest = json.loads((placed / "manifest.json").read_text())["files"]
        files = {p.relative_to(placed).as_posix() for p in placed.rglob("*") if p.is_file()} - {"manifest.json"}
        beside = {p.name for p in folder.iterdir()} == {"out", path.name}
        return (
            files == set(manifest)
            and beside
            and all(file_digest(placed / name) == entry["sha256"] for name, entry in manifest.items())
        )

    attempt("packages", lambda: Path(place_package(path, folder / "out")), is_right)
