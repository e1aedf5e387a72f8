"""Networks for one subset each, combined into one network."""

import pytest
import torch
from torch import nn

from common.modalities import drop
from common.networks.dedicated import Dedicated, FullAndMissing, channel_subsets
from common.networks.feature_encoder import FeatureEncoder


class Sum(nn.Module):
    """Returns as logits the sum and the number of the channels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, x):
        assert x.shape[1] == self.channels
        return torch.stack([x.sum(dim=1), torch.full_like(x[:, 0], self.channels)], dim=1)


def test_all_subsets():
    assert channel_subsets(2) == [(0,), (1,), (0, 1)]
    assert len(channel_subsets(4)) == 15
    assert len(channel_subsets(4, complete=False)) == 14


def test_each_sample_goes_to_the_network_for_what_it_has():
    image = torch.randn(3, 4, 2, 2, 2)
    present = torch.tensor([[True, False, True, False], [True, True, True, True], [False, False, False, True]])
    network = FullAndMissing(4, Sum(4), Sum, FeatureEncoder(4, 3, None)).eval()
    logits = network(drop(image, present))
    assert torch.allclose(logits[:, 0], (image * present[:, :, None, None, None]).sum(dim=1))
    assert logits[:, 1].amax(dim=(1, 2, 3)).tolist() == [2, 4, 1]
    for row in range(3):
        assert torch.equal(network(image[row : row + 1], present[row : row + 1]), logits[row : row + 1])


def test_encoded_features_of_a_modality_stay_together():
    encoder = FeatureEncoder(4, 3, "shared")
    network = FullAndMissing(4, Sum(16), Sum, encoder).eval()
    image, present = torch.randn(1, 4, 4, 4, 4), torch.tensor([[False, True, False, True]])
    expected = encoder(image, present)[:, [1, 3]].sum(dim=(1, 2))
    assert torch.allclose(network(image, present)[:, 0], expected, atol=1e-5)


def test_a_subset_without_a_network_is_refused():
    network = FullAndMissing(4, Sum(4), Sum, FeatureEncoder(4, 3, None), subsets=[(1,), (1, 3)]).eval()
    image, there = torch.randn(1, 4, 2, 2, 2), torch.tensor([[True, False, False, False]])
    with pytest.raises(ValueError, match=r"No network was trained for the modalities at channels \[0\]"):
        network(image, there)


def test_subsets_are_drawn_from_what_all_samples_have():
    dedicated = Dedicated(channel_subsets(3), Sum)
    present = torch.tensor([[True, True, True], [True, False, True]])
    drawn = {dedicated.draw_subset(present) for _ in range(100)}
    assert drawn == {(0,), (2,), (0, 2)}
    with pytest.raises(ValueError, match="none can be trained"):
        dedicated.draw_subset(torch.tensor([[True, False, False], [False, True, False]]))
