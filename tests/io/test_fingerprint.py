"""Fingerprints are equal for equal recipes in any process, and differ for different recipes."""

import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer
from monai.transforms import Compose, Flipd, Spacingd
from processes import run
from torch import nn

from common.io.files import file_digest
from common.io.fingerprint import files_of, fingerprint
from common.networks import M3AE


def with_functions_inside(values):
    return [abs(value) for value in filter(lambda value: value > 1, values)]


def made_of_a_recipe():
    return fingerprint(Compose([Spacingd("image", [1, 1, 1])]), {"a": 1}, with_functions_inside)


def print_fingerprint():
    print(made_of_a_recipe())


@pytest.mark.slow  # a process of its own
def test_the_same_in_another_process():
    assert run(print_fingerprint) == (0, f"{made_of_a_recipe()}\n")


def test_every_setting_counts():
    described = [
        (Spacingd("image", [1, 1, 1]),),
        (Spacingd("image", [1, 1, 2]),),
        (Spacingd("label", [1, 1, 1]),),
        (Compose([Flipd("image", 0), Flipd("image", 1)]),),
        (Compose([Flipd("image", 1), Flipd("image", 0)]),),
        (SlidingWindowInferer((8, 8, 8), overlap=0.25),),
        (SlidingWindowInferer((8, 8, 8), overlap=0.5),),
        (np.arange(5000),),
        (np.where(np.arange(5000) == 2500, 0, np.arange(5000)),),
        (torch.zeros(5000),),
        (torch.zeros(5000).index_fill(0, torch.tensor(2500), 1),),
        (lambda x: x + 1,),
        (lambda x: x + 2,),
        (lambda x: abs(x),),
        (lambda x: len(x),),
        (lambda x: sorted(x, key=lambda y: y + 1),),
        (lambda x: sorted(x, key=lambda y: y + 2),),
        (M3AE(width=8, grid=(8, 8, 8)),),
        (M3AE(width=16, grid=(8, 8, 8)),),
        (nn.Upsample(scale_factor=2, mode="nearest"),),
        (nn.Upsample(scale_factor=2, mode="trilinear"),),
        ({"empty": "brats"}, "a"),
        ({"empty": "nan"}, "a"),
        ({"empty": "nan"}, "b"),
    ]
    assert len({fingerprint(*parts) for parts in described}) == len(described)
    assert fingerprint(M3AE(width=8, grid=(8, 8, 8))) == fingerprint(M3AE(width=8, grid=(8, 8, 8)))  # but not weights


def test_files(tmp_path):
    image, label = tmp_path / "a.nii", tmp_path / "b.nii"
    image.write_bytes(b"abc")
    assert [entry[:2] for entry in files_of({"image": [str(image)], "label": str(label)})] == [(str(image), 3)]
    before = files_of({"image": str(image)})
    image.write_bytes(b"abcd")
    assert files_of({"image": str(image)}) != before
    assert file_digest(image) == "88d4266fd4e6338d13b845fcf289579d209c897823b9217da3e161936f031589"
