"""The parts of mmFormer; test_fusion_networks.py tests the whole network."""

import pytest
import torch
from networks.golden_fusion import authors_state

from common.networks import MMFormer
from common.networks.published.fusion_keys import import_fusion


def small(**kwargs):
    return MMFormer(**{"width": 4, "crop": (32, 32, 32), "embed_dim": 32, "mlp_dim": 64, "heads": 4, **kwargs})


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_mmformer_parts_have_as_many_parameters_as_published():
    with torch.device("meta"):
        network = MMFormer()
    assert {count(encoder) for encoder in network.encoders} == {1_473_216}
    assert {count(transformer) for transformer in [*network.intra, network.inter]} == {5_250_048}
    assert {count(embedding) for embedding in network.embeddings} == {66_048}
    assert {position.numel() for position in network.positions} == {64_000}
    assert count(network.projection) == 1_049_088
    assert count(network.separate) == 593_356
    decoder = [network.entries, network.refinements, network.levels, network.deep_heads, network.head]
    assert sum(map(count, decoder)) == 1_293_444


def test_mmformer_import_refuses_another_crop():
    theirs = authors_state("mmformer", small())
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
