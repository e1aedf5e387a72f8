"""The parts of M2FTrans, worked out by hand; test_fusion_networks.py tests the whole network."""

import torch
from networks.golden import fusion_state

from common.networks import M2FTrans
from common.networks.m2ftrans import ChannelAttention, MaskedTransformer, WeightedFusion
from mmb.authors.fusion_keys import import_fusion


def small(**kwargs):
    return M2FTrans(**{"width": 4, "crop": (32, 32, 32), "mlp_dim": 64, "heads": 4, "dropout": 0.0, **kwargs})


def test_m2ftrans_positions_of_a_modality_go_with_it():
    network = small()
    theirs = fusion_state("m2ftrans", network)
    theirs["pos"] = (
        torch.arange(5.0).repeat_interleave(8)[None, :, None].expand(-1, -1, 64)
    )  # flair, t1ce, t1, t2, fusion
    state = import_fusion(theirs, network)
    assert state["transformer.positions"][:, 0, 0].tolist() == [2, 1, 3, 0, 4]


def test_m2ftrans_fusion_tokens_give_each_modality_present_its_share_of_attention():
    transformer = MaskedTransformer(modalities=3, tokens=4, dim=8, heads=2, mlp_dim=8, dropout=0.0)
    torch.nn.init.zeros_(transformer.layers[0].attention.qkv.weight)  # equal scores: attention is spread evenly
    memory = torch.zeros(2, 3, 3, 2, 2, 4, 4)
    tokens, weights = transformer.fuse(memory, torch.tensor([[True, False, True], [False, True, False]]))
    assert tokens.shape == (2, 4, 8)
    assert not weights.requires_grad
    # 2 heads and 4 fusion tokens each spread a sum of 1 over the tokens that they see, 3 * 4 or 2 * 4 of them.
    expected = torch.tensor([[8 / 12, 0, 8 / 12], [0, 1, 0]])
    assert torch.allclose(weights, expected[:, :, None].expand(-1, -1, 4))


def test_m2ftrans_voxels_are_weighted_before_they_are_fused():
    fusion = WeightedFusion(dims=2, modalities=2, width=3)
    x, weights = torch.randn(2, 2, 3, 4, 4), torch.rand(2, 2, 4, 4)
    parts = fusion.entry.parts(x.unbind(1), torch.ones(2, 2, dtype=torch.bool))
    convolved = fusion.entry.conv((x * weights[:, :, None]).flatten(1, 2))
    expected = torch.nn.functional.leaky_relu(torch.nn.functional.instance_norm(convolved), 0.2)
    assert torch.allclose(fusion(parts, weights), fusion.layers(expected), atol=1e-5)


def test_m2ftrans_channels_of_an_absent_modality_are_not_attended_to():
    attention = ChannelAttention(dims=2, modalities=2, width=4, dropout=0.0)
    query, features = torch.randn(1, 4, 3, 3), torch.randn(1, 2, 4, 3, 3)
    other = features.clone()
    other[:, 1] = 100 * torch.randn(1, 4, 3, 3)
    first, both = torch.tensor([[True, False]]), torch.tensor([[True, True]])
    assert torch.equal(attention(query, features, first), attention(query, other, first))
    assert not torch.allclose(attention(query, features, both), attention(query, other, both))
