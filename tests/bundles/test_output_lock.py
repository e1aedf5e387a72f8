"""A second training in an output folder that is in use is refused, whichever bundle it belongs to."""

import time
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


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A folder in which a training is running, and the process of that training."""
    folder = tmp_path_factory.mktemp("out")
    process = start(train_for_ever, str(folder), log=folder / "log")
    while not (folder / "begun").exists():
        assert process.is_alive(), (folder / "log").read_text()
        time.sleep(0.01)
    yield folder, process.pid
    process.kill()
    process.join()


@pytest.mark.parametrize("name", NAMES)
def test_a_second_training_is_refused(training, coarse_dir, name):
    folder, pid = training
    before = sorted(folder.rglob("*"))
    said = Bundle(name).complaint(["train.json"], dataset_dir=coarse_dir, output_dir=folder)
    assert f"BlockingIOError: {folder}: in use by a training, process {pid} on " in said
    assert sorted(folder.rglob("*")) == before


def test_a_finished_training_lets_others_in(coarse_dir, tmp_path):
    Bundle("gss").run_here(["train.json"], dataset_dir=coarse_dir, output_dir=tmp_path, run=[])
    process = start(train_for_ever, str(tmp_path), log=tmp_path / "log")
    while not (tmp_path / "begun").exists():
        assert process.is_alive(), (tmp_path / "log").read_text()
        time.sleep(0.01)
    with pytest.raises(BlockingIOError):
        lock_folder(tmp_path, "another")
    process.kill()
    process.join()
    lock_folder(tmp_path, "another")
    unlock_folder(tmp_path)
