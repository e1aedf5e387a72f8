"""ACN and SMU-Net: a full path for all modalities, and missing paths for subsets that are trained together with it.

Source: Wang et al., "ACN: Adversarial Co-training Network for Brain Tumor Segmentation with Missing Modalities", MICCAI
2021; Azad et al., "SMU-Net: Style Matching U-Net for Brain Tumor Segmentation with Missing Modalities", MIDL 2022;
details from their released code. All paths are the `ResidualUNet` of M3AE with dropout on the bottleneck. ACN's
variational auto-encoder is left out: no loss in the released code uses it.

There are four departures from the papers. They train a pair of paths for each incomplete subset; here all missing paths
share one full path (``subsets`` with one subset gives such a pair). The released heads have a sigmoid for each class
and an unsupervised one for the background; the predictions of ED, NCR and ET are written in this order where
probabilities exceed 0.5, later ones overwriting earlier ones. Here the losses use the sigmoids, too, but in evaluation
the background's logit is 0, so that the logits are those of a softmax, which equals the sigmoid where all other classes
are improbable. The heads start at the probability `PRIOR`. And, as everywhere in this package, channel 0 is the
background.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from common.networks.dedicated import FullAndMissing, Subset
from common.networks.feature_encoder import FeatureEncoder
from common.networks.residual_unet import ResidualUNet
from common.networks.subsets import available_modalities, scatter_modalities, select_rows

DROPOUT = 0.2  # dropout rate of the bottleneck's elements before decoding
PRIOR = 0.01
"""Initial probability of each class other than the background.

Both methods train with the Dice loss alone. While a class that fills less than 1 % of a crop is predicted everywhere,
as by heads that start at 0.5, the gradient of its Dice is 10 to 100 times smaller than near the optimum. The
consistency with paths that have hardly been trained outweighs it, so the class continues to be predicted everywhere.
Lin et al. ("Focal Loss for Dense Object Detection", ICCV 2017, section 4.1) start from this probability for a similar
reason.
"""

FLOOR = 1e-5  # minimum of a predicted variance


class ACNOutput(NamedTuple):
    """Output of a path of ACN in training mode.

    Attributes:
        logits: ``(B, K, X, Y, Z)`` of sigmoids; that of channel 0, the background, is not supervised.
        bottleneck: ``(B, 8 * width, X/8, Y/8, Z/8)``, before dropout.
        mean: the full path's bottleneck as predicted by a missing path, same shape; None for the full path.
        variance: variance ``(8 * width,)`` of this prediction; None for the full path.
    """

    logits: torch.Tensor
    bottleneck: torch.Tensor
    mean: torch.Tensor | None
    variance: torch.Tensor | None


class SMUNetOutput(NamedTuple):
    """Output of a path of SMU-Net in training mode.

    Attributes:
        logits: ``(B, K, X, Y, Z)`` of sigmoids; that of channel 0, the background, is not supervised.
        content: ``(B, 8 * width, X/8, Y/8, Z/8)``, the bottleneck.
        style: tensor of the same shape, computed from the two coarser levels' first features and the content.
    """

    logits: torch.Tensor
    content: torch.Tensor
    style: torch.Tensor


class Path(nn.Module):
    """A `ResidualUNet` with dropout on the bottleneck; ``channels`` is the number of its input channels."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        self.unet = ResidualUNet(channels, classes, width, deep_supervision=False)
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.constant_(self.unet.head.get_parameter("bias")[1:], math.log(PRIOR / (1 - PRIOR)))

    def decode(self, bottleneck: torch.Tensor, features: list[torch.Tensor]) -> torch.Tensor:
        """Return logits ``(B, K, X, Y, Z)`` of sigmoids in training, of a softmax in evaluation.

        The bottleneck is ``(B, 8 * width, X/8, Y/8, Z/8)``, the features those of `ResidualUNet.encode`.
        """
        logits = self.unet.head(self.unet.decode(self.dropout(bottleneck), features)[2])
        if self.training:
            return logits
        return torch.cat([torch.zeros_like(logits[:, :1]), logits[:, 1:]], dim=1)


class ACNPath(Path):
    """A path of ACN: 4.7 M parameters at width 16.

    With ``predicts``, as in missing paths, it also predicts the full path's bottleneck, with a variance for each
    channel (variational information distillation).
    """

    def __init__(self, channels: int, classes: int, width: int, predicts: bool = True) -> None:
        super().__init__(channels, classes, width)
        self.predicts = predicts
        if predicts:
            pointwise = [nn.Conv3d(8 * width, 8 * width, 1, bias=False) for _ in range(3)]
            self.regressor = nn.Sequential(pointwise[0], nn.ReLU(), pointwise[1], nn.ReLU(), pointwise[2])
            self.log_scale = nn.Parameter(torch.full((8 * width,), math.log(math.expm1(5 - FLOOR))))

    def forward(self, x: torch.Tensor) -> torch.Tensor | ACNOutput:
        """Map ``(B, channels, X, Y, Z)`` to logits ``(B, K, X, Y, Z)``; in training mode to an `ACNOutput`."""
        features, _ = self.unet.encode(x)
        bottleneck = features[3]
        logits = self.decode(bottleneck, features)
        if not self.training:
            return logits
        if not self.predicts:
            return ACNOutput(logits, bottleneck, None, None)
        return ACNOutput(logits, bottleneck, self.regressor(bottleneck), F.softplus(self.log_scale) + FLOOR)


class SMUNetPath(Path):
    """A path of SMU-Net, in which the bottleneck (content) is merged with a style before decoding."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__(channels, classes, width)
        self.style = nn.Conv3d((4 + 8 + 8) * width, 8 * width, 1)
        self.merge = nn.Conv3d(2 * 8 * width, 8 * width, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor | SMUNetOutput:
        """Map ``(B, channels, X, Y, Z)`` to logits ``(B, K, X, Y, Z)``; in training mode to a `SMUNetOutput`."""
        features, entries = self.unet.encode(x)
        content = features[3]
        style = self.style(torch.cat([F.max_pool3d(entries[2], 2), entries[3], content], dim=1))
        logits = self.decode(self.merge(torch.cat([style, content], dim=1)), features)
        return SMUNetOutput(logits, content, style) if self.training else logits


class ACN(FullAndMissing):
    """ACN with one full path for all missing paths; its width is a multiple of 8.

    The ``subsets``, as channels of the image, are the incomplete ones that get a missing path; None: all (14 for four
    modalities).

    Examples:
        >>> import torch
        >>> from common.networks import ACN
        >>> network = ACN(modalities=2, classes=3, width=8, subsets=[(1,)]).eval()  # a missing path for FLAIR alone
        >>> network.supported_subsets(["t1c", "flair"])
        [['flair'], ['t1c', 'flair']]
        >>> image = torch.randn(1, 2, 16, 16, 16)
        >>> image[:, 0] = torch.nan  # T1c is missing
        >>> network(image).shape
        torch.Size([1, 3, 16, 16, 16])
    """

    full: ACNPath

    def __init__(
        self,
        modalities: int = 4,
        classes: int = 4,
        width: int = 16,
        feature_encoder: str | None = None,
        subsets: Sequence[Subset] | None = None,
    ) -> None:
        encoder = FeatureEncoder(modalities, 3, feature_encoder)
        full = ACNPath(modalities * encoder.channels, classes, width, predicts=False)
        super().__init__(modalities, full, lambda channels: ACNPath(channels, classes, width), encoder, subsets)

    def bottlenecks(self, image: torch.Tensor, present: torch.Tensor | None = None) -> torch.Tensor:
        """Return the full path's bottleneck for each modality of ``(B, M, X, Y, Z)`` alone, the others being zero.

        It is ``(B, M, 8 * width, X/8, Y/8, Z/8)``, zero where a modality is absent.
        """
        present = available_modalities(image, present)
        x = self.feature_encoder(image, present)
        parts: list[torch.Tensor | None] = []
        for m, rows in enumerate(present.T):
            own = select_rows(x, rows)
            alone = torch.zeros_like(own)
            alone[:, m] = own[:, m]
            parts.append(self.full.unet.encode(alone.flatten(1, 2))[0][3] if len(alone) else None)
        return scatter_modalities(parts, present)


class SMUNet(FullAndMissing):
    """SMU-Net with one full path for all missing paths; for width and ``subsets`` see `ACN`."""

    def __init__(
        self, modalities: int = 4, classes: int = 4, width: int = 16, subsets: Sequence[Subset] | None = None
    ) -> None:
        super().__init__(
            modalities,
            SMUNetPath(modalities, classes, width),
            lambda channels: SMUNetPath(channels, classes, width),
            FeatureEncoder(modalities, 3, None),
            subsets,
        )
