"""A small network with an encoder for each modality, for tests of the evaluation of all subsets."""

import torch
from torch import nn

from common.modalities import presence


class TwoStage(nn.Module):
    """A network with an encoder for each modality and a mean fusion, which counts the windows that it encodes."""

    def __init__(self, modalities: int = 3, out_channels: int = 2, dims: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        conv, norm = (nn.Conv2d, nn.InstanceNorm2d) if dims == 2 else (nn.Conv3d, nn.InstanceNorm3d)
        self.encoders = nn.ModuleList([conv(1, 4, 3, padding=1) for _ in range(modalities)])
        self.norm, self.head = norm(4), conv(4, out_channels, 3, padding=1)
        self.encoded = 0

    def encode(self, image, present):
        present = present & presence(image)
        self.encoded += int(present.sum())
        levels = []
        for m, encoder in enumerate(self.encoders):
            one = image[:, m : m + 1] if present[:, m].all() else torch.zeros_like(image[:, :1])
            levels.append(torch.relu(self.norm(encoder(one))))
        return [torch.stack(levels, dim=1)]

    def decode(self, features, present):
        weight = present.float().reshape(*present.shape, *([1] * (features[0].ndim - 2)))
        return self.head((features[0] * weight).sum(1) / weight.sum(1))

    def forward(self, image, present=None):
        present = presence(image) if present is None else present & presence(image)
        return self.decode(self.encode(image, present), present)
