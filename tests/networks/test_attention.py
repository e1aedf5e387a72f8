"""Dropout of the transformers: at each of its places in training, and nowhere in evaluation."""

import pytest
import torch
from monai.networks import eval_mode
from networks.test_every_network import image, made
from torch import nn

from common.networks.attention import Attention, TransformerLayer

TOKENS = torch.randn(2, 6, 8, generator=torch.Generator().manual_seed(0))


def attended(attention: Attention) -> torch.Tensor:
    return attention.attend(*attention.split(TOKENS))


@pytest.mark.parametrize("place", ["weight_dropout", "dropout"])
def test_attention_drops_weights_and_outputs_each_by_itself(place):
    attention = Attention(8, heads=2, dropout=0.0)
    assert torch.equal(attended(attention), attended(attention))
    getattr(attention, place).p = 0.5
    assert not torch.equal(attended(attention), attended(attention))
    with eval_mode(attention):
        assert torch.equal(attended(attention), attended(attention))


def test_a_share_of_the_outputs_is_dropped_and_the_others_grow():
    attention = Attention(8, heads=2, dropout=0.25)
    attention.weight_dropout.p = 0.0
    with eval_mode(attention):
        whole = attended(attention)
    found = torch.stack([attended(attention) for _ in range(100)])
    torch.testing.assert_close(found, torch.where(found == 0, 0, whole / 0.75))
    assert (found == 0).float().mean().item() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("place", [2, 4])
def test_the_perceptron_drops_at_two_places(place):
    layer = TransformerLayer(8, heads=2, mlp_dim=16, dropout=0.0)
    assert torch.equal(layer(TOKENS), layer(TOKENS))
    layer.mlp[place].p = 0.5
    assert not torch.equal(layer(TOKENS), layer(TOKENS))
    with eval_mode(layer):
        assert torch.equal(layer(TOKENS), layer(TOKENS))


@pytest.mark.parametrize("name", ["mmFormer", "M2FTrans"])
def test_networks_give_their_dropout_to_every_place(name):
    network, x = made(name, dropout=0.5), image(name)
    assert {layer.p for layer in network.modules() if isinstance(layer, nn.Dropout)} == {0.5}
    with torch.no_grad():
        assert not torch.equal(network(x).fused.logits, network(x).fused.logits)
        with eval_mode(network):
            assert torch.equal(network(x), network(x))
