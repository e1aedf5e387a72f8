"""Phantom subjects that several folders' tests share; tests must not change them."""

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from phantom_case import HEAD, LPS, write_case
from run_tools import be_audible

from common.cohorts.phantom.simulation import simulate
from mmb.errors import silence_libraries


@pytest.fixture(autouse=True)
def _silent() -> Iterator[None]:
    """Silence libraries, as programs do where they start."""
    silence_libraries()
    yield
    be_audible()


@pytest.fixture(scope="session")
def phantom_subject(phantom_dir) -> Path:
    """The folder of a phantom's images and label map."""
    return sorted(phantom_dir.glob("Phantom_*"))[0]


@pytest.fixture(scope="session")
def subject(tmp_path_factory) -> Path:
    """A test case of the phantom, the head alone, with its label map; its files are named after a patient."""
    folder = tmp_path_factory.mktemp("subject") / "case"
    write_case(folder, "Doe", box=HEAD)
    return folder


@pytest.fixture(scope="session")
def case(tmp_path_factory) -> Path:
    """The images of another case in their whole field of view, without a label map."""
    folder = tmp_path_factory.mktemp("data") / "case"
    write_case(folder, "case", seed=7)
    (folder / "case_seg.nii.gz").unlink()
    return folder


@pytest.fixture(scope="session")
def phantom_volumes() -> dict[str, nib.Nifti1Image]:
    """The images of another phantom by modality, float32 with BraTS's axes."""
    return {name: nib.Nifti1Image(voxels.astype(np.float32), LPS) for name, voxels in simulate(31)[0].items()}
