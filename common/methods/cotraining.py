"""The training step of ACN and SMU-Net: the full path and one missing path process the same subjects.

Source: Wang et al., MICCAI 2021 (ACN); Azad et al., MIDL 2022 (SMU-Net). They train a pair of paths for one subset;
here each step draws one of the subsets that have a missing path. The losses are in `common.losses.acn` and
`common.losses.smunet`, the networks in `common.networks.cotraining`.
"""

import torch

from common.losses.cotraining import CoTrainingOutput
from common.methods.step import TrainingStep
from common.networks.dedicated import FullAndMissing
from common.networks.subsets import available_modalities


class CoTraining(TrainingStep):
    """Run all modalities through the full path of an ACN or SMUNet, and a random subset through its missing path."""

    network: FullAndMissing

    def forward(self, image: torch.Tensor) -> CoTrainingOutput:
        """Return the outputs of both paths for crops ``(B, M, X, Y, Z)``; a missing modality is a ValueError."""
        present = available_modalities(image, None)
        if not bool(present.all()):
            lacking = (~present).any(dim=0).nonzero().flatten().tolist()
            raise ValueError(
                f"{int((~present).any(dim=1).sum())} of {len(present)} training samples lack a modality (channels "
                f"{lacking}), but the full path of {type(self.network).__name__} needs all. Train on complete subjects."
            )
        x, missing = self.network.features(image, present), self.network.missing
        subset = missing.draw_subset(present)
        return CoTrainingOutput(self.network.full(x), missing.network_for(subset)(missing.select_channels(x, subset)))
