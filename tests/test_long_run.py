"""The cases that docs/open_glioma/long_run/pasted.py makes of others, on phantoms."""

import json
import sys

import numpy as np
import pytest

from common.cohorts import prepare
from common.io.images import read_volume

sys.path.insert(0, "docs/open_glioma/long_run")


@pytest.mark.slow  # planes of symmetry are fitted
def test_brains_without_a_tumour_and_with_that_of_another(phantom_dir, tmp_path):
    from pasted import Brain, write_pasted

    items = prepare("phantom", str(phantom_dir), None, None, 0)["training"][:4]
    made = json.loads(write_pasted(items, str(tmp_path), each=1).read_text())["training"]
    named = {item["case"]: item for item in made}
    healthy = {name: item for name, item in named.items() if name.startswith("healthy_")}
    pasted = {name: item for name, item in named.items() if "_in_" in name}
    assert healthy
    assert pasted
    assert sum(item["weight"] for item in made) == pytest.approx(1)
    assert sum(item["weight"] for item in healthy.values()) == pytest.approx(0.04)

    def voxels(item, what="label") -> np.ndarray:
        path = item[what] if what == "label" else item["image"][item["modalities"].index(what)]
        return read_volume(tmp_path / path).numpy()

    assert not any(voxels(item).any() for item in healthy.values())
    for name, item in pasted.items():
        donor, host = name.split("_in_")
        label, flair = voxels(item), voxels(item, "flair")
        tumour = Brain.read(named[donor]).label > 0
        assert 0.95 * tumour.sum() < (label > 0).sum() <= tumour.sum()
        empty = voxels(healthy[f"healthy_{host}"], "flair")
        assert np.abs(flair - empty)[label > 0].mean() > 10 * np.abs(flair - empty)[label == 0].mean()
