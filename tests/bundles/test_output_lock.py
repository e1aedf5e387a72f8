"""A second training in an output folder that is in use is refused, whichever bundle it belongs to."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from bundles.running import ROOT, Bundle
from processes import start

from common.engines import claim_output
from common.io import lock_folder, unlock_folder

NAMES = sorted(path.parent.name for path in ROOT.glob("bundles/*/paper.json"))


def train_for_ever(folder: str) -> None:
    claim_output(folder)
    Path(folder, "begun").touch()
    time.sleep(600)


@contextmanager
def trained_in(folder: Path) -> Iterator[None]:
    """Let a training run in a folder."""
    process = start(train_for_ever, str(folder), log=folder / "log")
    while not (folder / "begun").exists():
        assert process.is_alive(), (folder / "log").read_text()
        time.sleep(0.01)
    yield
    process.kill()
    process.join()


@pytest.fixture(scope="module")
def training(tmp_path_factory):
    """A folder in which a training is running."""
    folder = tmp_path_factory.mktemp("out")
    with trained_in(folder):
        yield folder


@pytest.mark.parametrize("name", NAMES)
def test_a_second_training_is_refused(training, coarse_dir, name):
    before = sorted(training.rglob("*"))
    said = Bundle(name).complaint(["train.json"], dataset_dir=coarse_dir, output_dir=training)
    assert f"error: {training}: in use by another process" in said
    assert sorted(training.rglob("*")) == before


def test_a_finished_training_lets_others_in(coarse_dir, tmp_path):
    Bundle("gss").run_here(["train.json"], dataset_dir=coarse_dir, output_dir=tmp_path, run=[])
    with trained_in(tmp_path), pytest.raises(BlockingIOError):
        lock_folder(tmp_path)
    lock_folder(tmp_path)
    unlock_folder(tmp_path)
