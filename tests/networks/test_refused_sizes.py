"""What networks refuse when they are made or get a window: the size is named with what was expected."""

import pytest
import torch
from refusals import refused

from common.networks import M2FTrans, MMFormer, ResidualUNet, RFNet
from common.networks.cotraining import ACN, SMUNet
from common.networks.gated import GatedNetwork
from common.networks.hved import UHVED, UHeMIS
from common.networks.mag_ms import MAGMS
from common.networks.unetr import DedicatedUNETR, FilledUNETR

TOKENS = {"width": 4, "mlp_dim": 16, "heads": 2}
WINDOW, UNETR = (32, 32, 32), {**TOKENS, "hidden": 16, "crop": (32, 32, 32)}
MULTIPLES = {RFNet: "8, 16", MMFormer: "16, 32", M2FTrans: "16, 32", MAGMS: "16", FilledUNETR: "16"}
MULTIPLES |= {DedicatedUNETR: "16"}


def sized(network, **changes):
    """Return a small network that is told its crop."""
    sizes = {RFNet: {"width": 4, "crop": WINDOW}, MMFormer: {**TOKENS, "crop": WINDOW, "embed_dim": 16}}
    sizes[M2FTrans] = {**TOKENS, "crop": WINDOW}
    return network(**{**sizes.get(network, UNETR), **changes})


@pytest.mark.parametrize(
    ("make", "facts"),
    [
        *((lambda net=net: net(width=12), ["width 12: expected a multiple of 8"]) for net in (ACN, SMUNet)),
        (lambda: ResidualUNet(4, 3, width=12), ["width 12: expected a multiple of 8"]),
        (lambda: RFNet(width=6), ["width 6", "multiple of 4"]),
        *((lambda net=net: net(width=5), ["width 5: expected an even number"]) for net in (UHVED, UHeMIS)),
        *(
            (lambda net=net, crop=crop: sized(net, crop=crop), [f"crop {list(crop)}", f"2 or 3 multiples of {number}"])
            for net, number in MULTIPLES.items()
            for crop in ((36, 32, 32), (8, 32, 32), (32,), (32, 32, 32, 32))
        ),
        *((lambda net=net: sized(net, heads=3), ["3 heads", "divisor"]) for net in MULTIPLES if net is not RFNet),
        (lambda: sized(FilledUNETR, fill="median"), ["fill 'median': expected one of 'zero', 'mean'"]),
    ],
)
def test_sizes_of_a_network(make, facts):
    with refused(ValueError, *facts):
        make()


@pytest.mark.parametrize(
    ("network", "window", "facts"),
    [
        (ResidualUNet(4, 3, width=8), (16, 16, 20), ["expected multiples of 8"]),
        *((net(width=8, subsets=[(0,)]), (20, 20, 20), ["expected multiples of 8"]) for net in (ACN, SMUNet)),
        *(
            (net(width=2), window, [f"crop {list(window)}", "2 or 3 multiples of 8, 16 or more", "(key `crop`)"])
            for net in (GatedNetwork, UHVED, UHeMIS)
            for window in ((20, 16, 16), (8, 16, 16))
        ),
        (sized(RFNet), (36, 16, 16), ["[36, 16, 16]", "RFNet", "multiples of 8"]),
        *(
            (sized(net), (32, 32, 48), ["A window of [32, 32, 48] voxels, but", "built for [32, 32, 32]", "key `crop`"])
            for net in (MMFormer, M2FTrans, MAGMS, FilledUNETR, DedicatedUNETR)
        ),
    ],
)
def test_windows(network, window, facts):
    with refused(ValueError, *facts), torch.no_grad():
        network(torch.zeros(1, 4, *window))
