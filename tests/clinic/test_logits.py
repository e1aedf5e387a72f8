"""The network and the logits of a bundle, from Python."""

import numpy as np
import pytest
import torch

from common.cohorts.phantom.simulation import simulate
from mmb import Bundle


def test_logits_are_those_of_the_segmentation_on_the_networks_own_grid():
    images, _ = simulate(seed=1, shape=(48, 56, 40), spacing=4)
    bundle, affine = Bundle("m3ae", recipe="phantom", device="cpu"), np.diag([4.0, 4, 4, 1])
    given = {"flair": images["flair"], "t1c": images["t1c"]}
    logits = bundle.logits(given, affine)
    assert isinstance(bundle.network, torch.nn.Module)
    assert logits.shape[0] == 3  # WT, TC, ET
    assert torch.allclose(logits.pixdim, torch.full((3,), 3.0, dtype=torch.float64), atol=1e-3)  # mm
    volume = float((logits[0] > 0).sum()) * 3**3
    assert volume == pytest.approx(bundle.segment(given, affine).regions["WT"].sum() * 4**3, rel=0.05)
    with pytest.raises(ValueError, match="Unknown modality 'pd'"):
        bundle.logits({"pd": images["flair"]}, affine)
