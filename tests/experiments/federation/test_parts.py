"""Which parts of a network belong to a modality: those whose weights a subject with only this modality trains."""

import pytest
import torch

from common.networks import BACKBONES, M3AE, build_network
from mmb.experiments.federation.parts import modality_modules

NAMES = ("t1", "t1c", "t2", "flair")
SIZES = {"width": 4, "embed_dim": 16, "mlp_dim": 16, "heads": 2}
NETWORKS = [(name, SIZES | {"crop": (32, 32)}) for name in BACKBONES]
NETWORKS += [("RFNet", {"width": 4, "crop": (16, 16), "feature_encoder": "separate"})]
NETWORKS += [("MAG-MS", {"width": 8, "crop": (32, 32), "hidden": 16, "mlp_dim": 16, "heads": 2})]


@pytest.mark.parametrize(("name", "sizes"), NETWORKS)
def test_a_subject_trains_the_parts_of_its_modalities_alone(name, sizes):
    torch.manual_seed(0)
    network = build_network(name, 4, 4, **sizes).train()
    parts = modality_modules(network, NAMES)
    assert tuple(parts) == NAMES
    image = torch.full((2, 4, *sizes["crop"]), float("nan"))
    image[:, 2] = torch.rand(2, *sizes["crop"])
    output = network(image)
    tensors = [output.fused.logits, output.separate] if name in BACKBONES else [output.logits]
    sum(tensor.square().sum() for tensor in tensors).backward()
    of = {
        key: [m for m, names in parts.items() for part in names if f"{key}.".startswith(f"{part}.")]
        for key in network.state_dict()
    }
    assert all(len(found) < 2 for found in of.values())
    trained = {key for key, value in network.named_parameters() if value.grad is not None and value.grad.any()}
    assert {modality for key in trained for modality in of[key]} == {"t2"}
    assert [key for key in trained if not of[key]]  # the decoder
    assert all(any(f"{key}.".startswith(f"{part}.") for key in trained) for part in parts["t2"])


def test_a_network_that_fuses_its_input_has_none():
    assert modality_modules(M3AE(4, 3, 8, (8, 8, 8)), ("t1", "t2")) == {"t1": [], "t2": []}
