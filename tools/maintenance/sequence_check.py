"""Training of the network of `common.cohorts.sequence_check` on labelled cases, and its evaluation by cross-validation.

Images are augmented so that the network copes with other scanners: rotation, stretching, thick slices, other contrast,
bias field and noise, brain masks that are too small or contain parts of the head, brains partly outside of the field of
view, lesions replaced by the healthy side. Images that are not a sequence are computed from the cases: subtractions,
ratios, maps and noise. Some phantoms are among the training cases, so that the check can be tried without patients'
images.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from monai.data import DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.handlers import LrScheduleHandler
from monai.transforms import ResizeWithPadOrCrop
from monai.utils import set_determinism
from scipy.spatial.transform import Rotation
from torch.nn import functional as F
from tqdm import tqdm

from common.cohorts import get_cohort
from common.cohorts.phantom.simulation import SPACING, simulate
from common.cohorts.scan import Item
from common.cohorts.sequence_check import (
    CLASSES,
    ImageFeatures,
    SequenceClassifier,
    features,
    judge_together,
    on_coarse_grid,
)
from common.cohorts.splits import split_cases
from common.io import read_volume, write_checkpoint
from common.modalities import GLIOMA

SHAPE = (56, 64, 56)  # shape of the coarse grid that cases are augmented on: 168 x 192 x 168 mm
VARIANTS = 12  # number of augmented copies of each case, in addition to the original
PHANTOMS = 8
FOLDS = 5
EPOCHS = 15
BATCH = 256
LEARNING_RATE = 3e-3
WEIGHT_DECAY = 0.05
CLASS_WEIGHTS = torch.tensor([1, 1, 1, 1, 0.5])
"""Weights of `CLASSES` in the loss; images that are not a sequence are rare in practice."""
SMOOTHING = 0.02  # label smoothing, which keeps the network from becoming overconfident


def train_network(dataset_dir: str | Path, output: str | Path) -> torch.Tensor:
    """Train a network on all cases of ``open_glioma``, write its weights in float16, and cross-validate it.

    Returns for each sequence the number of images that were taken for each of `CLASSES`, ``(4, 5)``, by networks that
    were not trained on the patient.
    """
    cohort = get_cohort("open_glioma")
    folds = [split_cases(cohort, dataset_dir, f"cv{fold + 1}of{FOLDS}") for fold in range(FOLDS)]
    items = [item for part in folds[0].values() for item in part]
    set_determinism(0)
    cases = {item["case"]: _variants(_read(item)) for item in tqdm(items, desc="describe", unit="case")}
    phantoms = [_variants(_phantom(seed)) for seed in range(PHANTOMS)]
    counts = torch.zeros(len(GLIOMA), len(CLASSES), dtype=torch.long)
    for fold, parts in enumerate(folds):
        held_out = {item["case"] for item in parts["test"]}
        network = _trained([*(rows for case, rows in cases.items() if case not in held_out), *phantoms], fold)
        for case in held_out:
            logs = judge_together(network, cases[case][0, :4, :4])
            counts[range(len(GLIOMA)), logs.argmax(dim=1)] += 1
    network = _trained([*cases.values(), *phantoms], FOLDS)
    write_checkpoint({name: value.half() for name, value in network.state_dict().items()}, output)
    return counts


def _read(item: Item) -> torch.Tensor:
    """Return a case ``(6, *SHAPE)``: the four sequences, the brain mask that they share, and the lesion."""
    files = dict(zip(item["modalities"], item["image"], strict=True))
    volumes = [read_volume(files[name]) for name in GLIOMA]
    lesion = read_volume(item["label"]).as_tensor() > 0
    return _case(torch.stack([volume.as_tensor().float() for volume in volumes]), lesion, volumes[0].affine.numpy())


def _phantom(seed: int) -> torch.Tensor:
    images, label = simulate(seed)
    stack = torch.from_numpy(np.stack([images[name] for name in GLIOMA])).float()
    return _case(stack, torch.from_numpy(label) > 0, np.diag([-SPACING, -SPACING, SPACING, 1.0]))


def _case(images: torch.Tensor, lesion: torch.Tensor, affine: np.ndarray) -> torch.Tensor:
    coarse = torch.from_numpy(on_coarse_grid(torch.cat([images, lesion[None].float()]), affine))
    coarse = ResizeWithPadOrCrop(SHAPE)(coarse).as_tensor()
    brain = (coarse[:4] != 0).all(dim=0, keepdim=True).float()
    return torch.cat([coarse[:4] * brain, brain, coarse[4:]])


def _variants(case: torch.Tensor) -> np.ndarray:
    """Return `features` ``(1 + VARIANTS, 5, 5, N)`` of a case's images of `CLASSES`: original first, then augmented."""
    made = [_plain(case), *(_varied(case) for _ in range(VARIANTS))]
    return np.stack([features([ImageFeatures(image.numpy()) for image in images]) for images in made])


def _trained(given: Sequence[np.ndarray], seed: int) -> SequenceClassifier:
    """Train a network on the features that `_variants` returns for the cases."""
    set_determinism(seed)
    every = np.concatenate(given)
    classes = np.broadcast_to(np.arange(len(CLASSES))[:, None], every.shape[:3]).ravel()
    rows = every.reshape(-1, every.shape[-1])
    known = ~np.isnan(rows[:, 0])
    samples = [{"image": row, "label": label} for row, label in zip(rows[known], classes[known], strict=True)]
    loader = DataLoader(Dataset(samples), batch_size=BATCH, shuffle=True, drop_last=True)
    network = SequenceClassifier()
    network.mean.copy_(torch.from_numpy(np.nanmean(rows, axis=0)))
    network.std.copy_(torch.from_numpy(np.nanstd(rows, axis=0) + 1e-3))
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=EPOCHS * len(loader))
    SupervisedTrainer(
        device=torch.device("cpu"),
        max_epochs=EPOCHS,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=torch.nn.CrossEntropyLoss(CLASS_WEIGHTS, label_smoothing=SMOOTHING),
        train_handlers=[LrScheduleHandler(schedule, print_lr=False, epoch_level=False)],
    ).run()
    return network.eval()


def _plain(case: torch.Tensor) -> torch.Tensor:
    """Return a case's images of `CLASSES` ``(5, *SHAPE)`` without augmentation."""
    return torch.cat([case[:4], _no_sequence(case[:4], case[4])[None]]) * case[4]


def _varied(case: torch.Tensor) -> torch.Tensor:
    """Return the images ``(5, *SHAPE)`` as from another scanner and another skull stripping."""
    if _chance(0.4):  # replace the lesion by the healthy side
        case = torch.where((case[5] > 0.5) & (case[5].flip(0) <= 0.5), case.flip(1), case)
    case = _moved(case)
    mask = (case[4] > 0.5).float()
    images = case[:4] / case[4].clamp(min=0.2)
    shown = torch.stack([_scanned(image, mask) for image in (*images, _no_sequence(images, mask))])
    if _chance(0.2):  # one image is shifted by a voxel
        moved = int(_uniform(0, len(shown)))
        shown[moved] = shown[moved].roll([int(_uniform(-2, 2)) for _ in range(3)], (0, 1, 2))
    if _chance(0.25):  # the brain mask is too small
        mask = (_smoothed(mask) > 0.97).float()
    elif _chance(0.2):  # parts of the head remain
        rest = (_smoothed(mask) > 0.02) & (mask == 0) & (_field(8, 10, 8) > _uniform(0, 1))
        shown = torch.where(rest, _uniform(0, 2.2) * (1 + 0.2 * torch.randn(shown.shape)), shown)
        mask = torch.where(rest, 1.0, mask)
    if _chance(0.2):
        mask = _cut(mask)
    return shown * mask


def _moved(case: torch.Tensor) -> torch.Tensor:
    """Rotate (standard deviation 10 degrees), stretch, shift and mirror a case ``(C, *SHAPE)``."""
    turn = Rotation.from_euler("xyz", torch.randn(3).numpy() * 10, degrees=True).as_matrix()
    stretch = np.diag([_uniform(0.85, 1.2) for _ in range(3)]) * _uniform(0.9, 1.1)
    stretch[2, 2] *= -1 if _chance(0.5) else 1  # the last axis of grid_sample is the first of the image
    size = np.array(SHAPE[::-1], float)
    shift = np.array([[_uniform(-0.12, 0.12)] for _ in range(3)])
    affine = np.hstack([np.diag(1 / size) @ turn @ stretch @ np.diag(size), shift])
    grid = F.affine_grid(torch.from_numpy(affine[None]).float(), [1, 1, *SHAPE], align_corners=False)
    return F.grid_sample(case[None], grid, align_corners=False)[0]


def _no_sequence(images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Compute a subtraction, a ratio, a map or noise from the four sequences ``(4, *SHAPE)``."""
    t1, t1c, t2, flair = (_to_one(image, mask) for image in images)
    fluid = torch.sigmoid((t2 - flair - _uniform(0.2, 0.5)) * _uniform(6, 14))
    diffusion = 0.75 + _uniform(1.2, 2.5) * fluid
    made = (
        lambda: t1c * _uniform(0.9, 1.1) - t1,
        lambda: (t1c * _uniform(0.95, 1.1) - t1).clamp(min=0),
        lambda: (t1c + 0.05) / (t1 + 0.05).clamp(min=0.05),
        lambda: diffusion + 0.1 * t2,
        lambda: (t2 + 0.02) * torch.exp(-_uniform(1, 2) * diffusion),
        lambda: _smoothed((t1c - t1).abs()) + 0.2 * t2,
        lambda: t1 - t2,
        lambda: (t1 / (t2.abs() + 0.1)).clamp(max=5),
        lambda: torch.randn(SHAPE) + _uniform(-1, 1) * _smoothed(mask),
        lambda: (t1 - _smoothed(t1)).abs() + 0.02 * torch.randn(SHAPE),
    )
    return made[int(_uniform(0, len(made)))]()


def _scanned(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Vary slice thickness, sharpness, contrast, bias field and noise of an image ``SHAPE``."""
    image = _to_one(_thick(image, mask) if _chance(0.35) else image, mask)
    if _chance(0.35):
        share = _uniform(0.2, 0.9)
        image = (1 - share) * image + share * _smoothed(image * mask) / _smoothed(mask).clamp(min=0.2)
    if _chance(0.5):
        image = image * torch.exp(_uniform(0.05, 0.3) * _field(3, 3, 3))
    if _chance(0.5):
        image = image.sign() * image.abs().clamp(min=1e-4) ** np.exp(_uniform(-0.4, 0.4))
    if _chance(0.5):
        image = image + _uniform(0.01, 0.12) * torch.randn(SHAPE)
    return image.clamp(max=_uniform(1.1, 1.8)) if _chance(0.15) else image


def _thick(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Average an image over slices of 2 or 3 voxels along a random axis."""
    size = [1, 1, 1]
    size[int(_uniform(0, 3))] = 2 if _chance(0.8) else 3
    pooled = F.avg_pool3d(torch.stack([image * mask, mask])[None], size, ceil_mode=True)
    values, data = F.interpolate(pooled, size=SHAPE)[0]
    return values / data.clamp(min=0.1)


def _cut(mask: torch.Tensor) -> torch.Tensor:
    """Crop the mask by 5 to 55 % of its extent, at one end of a random axis."""
    axis, mask = int(_uniform(0, 3)), mask.clone()
    shown = mask.sum([other for other in range(3) if other != axis]).nonzero()[:, 0]
    if len(shown):
        low, high = int(shown[0]), int(shown[-1]) + 1
        lost = int((high - low) * _uniform(0.05, 0.55))
        mask.narrow(axis, low if _chance(0.5) else high - lost, lost).zero_()
    return mask


def _smoothed(volume: torch.Tensor) -> torch.Tensor:
    """Average a volume over 3 voxels along each axis, with zero padding."""
    for axis, size in enumerate(volume.shape):
        padded = F.pad(volume, [0] * 2 * (2 - axis) + [1, 1])
        volume = sum(padded.narrow(axis, start, size) for start in range(3)) / 3
    return volume


def _field(*size: int) -> torch.Tensor:
    """Return a smooth random field ``SHAPE``, interpolated from normal values on a coarse grid of the given size."""
    return F.interpolate(torch.randn(1, 1, *size), size=SHAPE, mode="trilinear", align_corners=True)[0, 0]


def _to_one(image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    brain = image[mask > 0][::3]
    return image / brain.quantile(0.9).clamp(min=1e-6) if len(brain) else image


def _uniform(low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand(()))


def _chance(probability: float) -> bool:
    return float(torch.rand(())) < probability
