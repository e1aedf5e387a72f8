"""Digests: what must differ, and what must not."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Flipd, RandFlipd, Spacingd
from torch import nn

import common
from common.io import digest as module
from common.io.digest import UnknownError, digest, files_of
from common.io.files import file_digest
from common.networks import M3AE
from common.transforms import ResampleSpacingd, ScaleBrainIntensityd


def test_each_of_these_makes_another_digest(tmp_path):
    """Settings, order of sequences and steps, classes, sampling, arrays, tensors, networks and what they compute."""
    steps, numbers = [Flipd("image", 0), Flipd("image", 1)], np.arange(5000)
    alone = [Spacingd("image", [1, 1, 1]), Spacingd("image", [1, 1, 2]), Spacingd("label", [1, 1, 1])]
    alone += [ResampleSpacingd("image", [2.0] * 3, sampling=sampling) for sampling in ("points", "average")]
    alone += [ScaleBrainIntensityd("image", lower, 99) for lower in (1, 2)]
    alone += [Compose(steps), Compose(steps[::-1])]
    alone += [SlidingWindowInferer((8, 8, 8), overlap=overlap) for overlap in (0.25, 0.5)]
    alone += [numbers, np.where(numbers == 2500, 0, numbers)]
    alone += [torch.zeros(5000), torch.zeros(5000).index_fill(0, torch.tensor(2500), 1), torch.zeros(5000).bfloat16()]
    alone += [M3AE(width=width, grid=(8, 8, 8)) for width in (8, 16)]
    alone += [nn.Upsample(scale_factor=2, mode=mode) for mode in ("nearest", "trilinear")]
    alone += [("t1", "t2"), ("t2", "t1"), {"WT": (1, 2)}, {"WT": (2, 1)}, {1: 0}, {"1": 0}, {1, 2}, {1, 3}]
    pairs = [({"empty": "brats"}, "a"), ({"empty": "nan"}, "a"), ({"empty": "nan"}, "b")]
    described = [*((one,) for one in alone), *pairs]
    assert len({digest(*parts) for parts in described}) == len(described)


def test_the_version_counts(monkeypatch):
    before = digest("a")
    monkeypatch.setattr(module, "__version__", common.__version__ + ".1")
    assert digest("a") != before


def test_weights_random_states_and_shared_objects_do_not_count():
    assert digest(M3AE(width=8, grid=(8, 8, 8))) == digest(M3AE(width=8, grid=(8, 8, 8)))
    step = Compose([RandFlipd("image", prob=0.5)])
    before = digest(step)
    step.set_random_state(3)
    assert digest(step) == before
    name = "a name".upper()
    assert digest([name, name]) == digest([name, "A NAME"])


def test_a_file_that_a_text_names_counts(tmp_path):
    path = tmp_path / "weights.pt"
    path.write_bytes(b"abc")
    assert file_digest(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    before = digest({"ckpt_path": str(path)}), files_of({"image": str(path)})
    path.write_bytes(b"abcd")
    assert before[0] != digest({"ckpt_path": str(path)})
    assert before[1][0][:2] == (str(path), 3)
    assert files_of({"image": [str(path)]}) != before[1]


STEP = "from helper import GAIN\nclass Step:\n    def __call__(self, image):\n        return image * GAIN\n"
SHOW = "import step; from common.io.digest import digest; print(digest(step.Step(), {'t1', 't2', 'flair'}))"


def test_own_code_counts_by_the_content_of_its_files(tmp_path):
    """In a process of its own each time, with another hash seed; a file beside it counts, what it imports included."""

    def shown(seed: str) -> str:
        paths = os.pathsep.join([str(tmp_path), os.path.dirname(os.path.dirname(common.__file__))])
        done = subprocess.run(
            [sys.executable, "-c", SHOW],
            env={**os.environ, "PYTHONPATH": paths, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    (tmp_path / "step.py").write_text(STEP)
    (tmp_path / "helper.py").write_text("GAIN = 1\n")
    first = shown("1")
    assert shown("2") == first
    (tmp_path / "helper.py").write_text("GAIN = 2\n")
    assert shown("1") != first


def test_what_cannot_be_pickled_is_refused(tmp_path):
    cyclic: list = []
    cyclic.append(cyclic)
    for value in (lambda image: image, sys.stdout, cyclic):
        with pytest.raises(UnknownError, match="cannot be told"):
            digest(json.dumps("text"), value)
