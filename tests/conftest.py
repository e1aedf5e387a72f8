"""Small subjects on disk for the tests of several folders."""

import fcntl
import os
import resource
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from monai.data import MetaTensor

from common.cohorts import check
from common.cohorts.phantom.cohort import generate
from common.evaluation.report import sections
from common.io.images import read_volume
from common.transforms import load

MODALITIES = ("t1", "t1c", "t2", "flair")
SHAPE = (20, 18, 16)
BRAIN = (slice(4, 15), slice(5, 14), slice(3, 12))
LPS = np.array([[-1.0, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1]])
"""The affine of BraTS's images."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the file that takes longest, so that no process has to wait for it at the end."""
    items.sort(key=lambda item: item.path.name != "test_commands.py")


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory) -> Path:
    """A folder that all test processes of a session share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def phantom_dir(shared_folder) -> Path:
    """A small phantom cohort: six subjects for training, one for validation, two for test. Tests must not change it."""
    with _alone(shared_folder):
        return generate(shared_folder / "phantom", subjects=9)


@pytest.fixture(scope="session")
def coarse_dir(phantom_dir, shared_folder) -> Path:
    """The same cohort with voxels of 6 mm instead of 3, for tests that take seconds. Tests must not change it."""
    folder = shared_folder / "coarse"
    with _alone(shared_folder):
        if not folder.exists():
            draft = shutil.copytree(phantom_dir, shared_folder / "draft")
            for path in draft.rglob("*.nii.gz"):
                nib.save(nib.load(path).slicer[::2, ::2, ::2], path)
            draft.rename(folder)
    return folder


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let one process in at a time."""
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@pytest.fixture
def as_anybody(tmp_path, monkeypatch) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which permissions apply even if the tests run as root; the working directory is `tmp_path`.

    Paths in it must be relative, because the parent folders are not accessible.
    """

    @contextmanager
    def become() -> Iterator[None]:
        root = os.geteuid() == 0
        tmp_path.chmod(0o777)
        monkeypatch.chdir(tmp_path)
        if root:
            os.seteuid(65534)
        try:
            yield
        finally:
            if root:
                os.seteuid(0)

    return become


@pytest.fixture
def undrawn(monkeypatch) -> None:
    """Leave the figures of reports empty, since drawing takes most of the time of an evaluation."""
    monkeypatch.setattr(sections, "rendered", lambda _: {".png": b"", ".pdf": b""})


@pytest.fixture
def full_disk() -> Iterator[None]:
    """Let no file grow beyond 20 kB; the system then reports an error, as it does for a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def write_subject(tmp_path) -> Callable[..., dict[str, Any]]:
    """Return a function that writes a BraTS-like subject and returns its datalist item.

    The images are random in a box and 0 around it; the label holds 1, 2 and 4.
    """

    def write(case: str = "case", modalities: tuple[str, ...] = MODALITIES, seed: int = 0) -> dict[str, Any]:
        rng = np.random.default_rng(seed)
        item = {"case": case, "image": [], "modalities": list(modalities)}
        folder = tmp_path / "data" / case
        folder.mkdir(parents=True)
        for name in modalities:
            volume = np.zeros(SHAPE, np.float32)
            volume[BRAIN] = rng.uniform(1, 1000, volume[BRAIN].shape)
            item["image"].append(_save(volume, folder / f"{case}_{name}.nii.gz"))
        label = np.zeros(SHAPE, np.uint8)
        label[6:12, 7:12, 4:9], label[7:11, 8:11, 5:8], label[8:10, 9, 6] = 2, 1, 4
        return {**item, "label": _save(label, folder / f"{case}_seg.nii.gz")}

    return write


@pytest.fixture
def subject(write_subject) -> dict[str, Any]:
    """The datalist item of a subject with all four modalities."""
    return write_subject()


@pytest.fixture
def opened(monkeypatch) -> list[str]:
    """The names of the files that `LoadSubjectd` opens, in this order."""
    names = []

    def read(path: str) -> MetaTensor:
        names.append(Path(path).name)
        return read_volume(path)

    monkeypatch.setattr(check, "read_volume", read)
    monkeypatch.setattr(load, "read_volume", read)
    return names


def _save(volume: np.ndarray, path: Path) -> str:
    nib.save(nib.Nifti1Image(volume, LPS), path)
    return str(path)
