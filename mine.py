import torch
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import nn
from torch.nn.functional import mse_loss

from common.networks.step import TrainingStep
from common.networks.subsets import available_modalities
from common.transforms import random_subsets


class Network(nn.Module):
    """A U-Net that is given zeros for what is missing."""

    def __init__(self, modalities: int, classes: int, width: int) -> None:
        super().__init__()
        self.unet = UNet(3, modalities, classes, channels=(width, 2 * width, 4 * width), strides=(2, 2))

    def forward(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        present = available_modalities(image, present).to(image.device)
        return self.unet(torch.where(present[:, :, None, None, None], image, 5))


class Method(TrainingStep):
    """A step of training forwards each case twice: with all that it has, and with a random subset of it."""

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        image = image.as_subclass(torch.Tensor)
        present = available_modalities(image, None)
        return self.network(image, present), self.network(image, random_subsets(present))


class Loss(nn.Module):
    """Dice and cross-entropy of both, and the subset's logits drawn to those of all modalities."""

    def __init__(self, weight: float) -> None:
        super().__init__()
        self.weight, self.segmentation = weight, DiceCELoss(to_onehot_y=True, softmax=True)

    def forward(self, output: tuple[torch.Tensor, torch.Tensor], label: torch.Tensor) -> torch.Tensor:
        whole, subset = output
        segmentation = self.segmentation(whole, label) + self.segmentation(subset, label)
        return segmentation + self.weight * mse_loss(subset, whole.detach())
