"""The parts of mmFormer; test_fusion_networks.py tests the whole network."""

import pytest
import torch
from networks.golden import fusion_state

from common.networks import MMFormer
from common.networks.published.fusion_keys import import_fusion


def small(**kwargs):
    return MMFormer(**{"width": 4, "crop": (32, 32, 32), "embed_dim": 32, "mlp_dim": 64, "heads": 4, **kwargs})


def test_mmformer_import_refuses_another_crop():
    theirs = fusion_state("mmformer", small())
    with pytest.raises(ValueError, match=r"t1_pos.*crop"):
        import_fusion(theirs, small(crop=(32, 32, 48)))


def test_mmformer_keeps_for_decoding_only_what_it_needs():
    network = small().eval()
    with torch.no_grad():
        features = network.encode(torch.randn(1, 4, 32, 32, 32))
    assert [tuple(tensor.shape[1:3]) for tensor in features] == [(4, 4), (4, 8), (4, 16), (4, 32), (4, 8)]


def test_mmformer_positions_start_at_zero_and_are_learnt():
    assert all(torch.equal(position, torch.zeros(1, 8, 32)) for position in small().positions)
    assert sum(isinstance(position, torch.nn.Parameter) for position in small().positions) == 4
