"""What the latent probe records of networks with one encoder per modality."""

import numpy as np
import pytest
import torch

from common.engines.latents import LatentProbe
from common.networks import RFNet


@pytest.fixture
def network():
    torch.manual_seed(0)
    return RFNet(width=4).eval()


@torch.no_grad()
@pytest.mark.parametrize("modality", range(4))
def test_pattern_looks_at_the_coarsest_level_of_the_modality_that_runs(network, modality):
    image = torch.full((1, 4, 16, 16, 16), torch.nan)
    image[:, modality] = torch.randn(1, 16, 16, 16)
    probe = LatentProbe(network, "encoders.*")
    network(image)
    coarsest = network.encoders[modality](image[:, modality][:, None])[-1]
    assert np.allclose(probe.take(), coarsest[0].flatten(1).mean(dim=1).numpy(), atol=1e-6)


def test_pattern_is_of_one_depth(network):
    LatentProbe(network, "encoders.*")
    assert all(encoder._forward_hooks for encoder in network.encoders)
    assert not any(module._forward_hooks for encoder in network.encoders for module in encoder.levels.modules())


@torch.no_grad()
def test_features_of_all_modalities_side_by_side_are_refused():
    network = RFNet(width=4, feature_encoder="shared").eval()
    LatentProbe(network, "feature_encoder")
    with pytest.raises(ValueError, match=r"output shape \(1, 4, 4, 16, 16, 16\); expected \(B, C, X, Y, Z\)"):
        network(torch.randn(1, 4, 16, 16, 16))


def test_no_such_layer_names_what_there_is(network):
    with pytest.raises(ValueError, match=r"latent_layer 'encoder\.\*': .*encoders"):
        LatentProbe(network, "encoder.*")
