"""A second training in an output folder that is in use is refused, whichever bundle it belongs to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles.running import Bundle
from bundles.test_same_configs import NAMES
from processes import start

from common.engines import lock_output
from common.io import lock_folder, unlock_folder


def train_for_ever(folder: str) -> None:
    lock_output(folder)
    Path(folder, "begun").touch()
    time.sleep(600)


@contextmanager
def trained_in(folder: Path) -> Iterator[int]:
    """Let a training run in a folder; yield its process's number."""
    process = start(train_for_ever, str(folder), log=folder / "log")
    while not (folder / "begun").exists():
        assert process.is_alive(), (folder / "log").read_text()
        time.sleep(0.01)
    yield process.pid
    process.kill()
    process.join()


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A folder in which a training is running, and the number of its process."""
    folder = tmp_path_factory.mktemp("out")
    with trained_in(folder) as pid:
        yield folder, pid


@pytest.mark.parametrize("name", NAMES)
def test_a_second_training_is_refused(training, coarse_dir, name):
    folder, pid = training
    before = sorted(folder.rglob("*"))
    said = Bundle(name).complaint(["train.json"], dataset_dir=coarse_dir, output_dir=folder)
    assert f"BlockingIOError: {folder}: in use by a training, process {pid} on " in said
    assert sorted(folder.rglob("*")) == before


def test_a_finished_training_lets_others_in(coarse_dir, tmp_path):
    Bundle("gss").run_here(["train.json"], dataset_dir=coarse_dir, output_dir=tmp_path, run=[])
    with trained_in(tmp_path), pytest.raises(BlockingIOError):
        lock_folder(tmp_path, "another")
    lock_folder(tmp_path, "another")
    unlock_folder(tmp_path)
