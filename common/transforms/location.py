"""Position of a crop in the grid that all subjects of a cohort share."""

import torch
from monai.data import MetaTensor


def locate(image: torch.Tensor, grid: list[int]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the positions of a batch of crops in a cohort's grid, from the affines that crops and flips update.

    The centre of the uncropped image (``original_affine`` and ``spatial_shape`` in the metadata) is aligned with the
    centre of the grid. So an image on the cohort's grid is located exactly, any other image by its centre. Returns the
    grid index of each crop's first voxel, int64 ``(B, 3)``, and along which axes the crop is flipped against the grid,
    bool ``(B, 3)``. Raises ValueError if the image's axes are not those of the grid (the image is not oriented to RAS).
    The crops are ``(B, M, X, Y, Z)`` in RAS up to flips; a plain tensor is treated as an uncropped image.
    """
    size = torch.as_tensor(image.shape[2:], dtype=torch.float64)
    middle = (torch.as_tensor(grid, dtype=torch.float64) - 1) / 2
    if not isinstance(image, MetaTensor) or "original_affine" not in image.meta:
        start = torch.floor(middle - (size - 1) / 2 + 0.5).long().expand(image.shape[0], 3)
        return start, torch.zeros_like(start, dtype=torch.bool)
    batch = image.shape[0]
    affine = torch.as_tensor(image.affine).double().cpu().reshape(-1, 4, 4).expand(batch, 4, 4)
    original = torch.as_tensor(image.meta["original_affine"]).double().cpu().reshape(-1, 4, 4)
    shape = torch.as_tensor(image.meta["spatial_shape"]).double().cpu().reshape(-1, 3)
    linear = affine[:, :3, :3]
    if not bool((linear.abs().argmax(dim=1) == torch.arange(3)).all()):
        raise ValueError("The image is not oriented to RAS; put Orientationd(axcodes='RAS') into its preprocessing.")
    centre = torch.cat([(shape - 1) / 2, torch.ones(shape.shape[0], 1, dtype=torch.float64)], dim=1)
    world = (original @ centre[..., None]).expand(batch, 4, 1)
    centre_in_crop = torch.linalg.solve(affine, world)[:, :3, 0]
    flipped = torch.diagonal(linear, dim1=1, dim2=2) < 0
    offset = middle - torch.where(flipped, -centre_in_crop, centre_in_crop)
    # Round halves up, even if the affine's arithmetic made them slightly smaller: equal for all crops of an image.
    return torch.floor(offset + 0.5 + 1e-3).long(), flipped


def crop_at(volume: torch.Tensor, size: list[int], start: list[int], flipped: list[bool]) -> torch.Tensor:
    """Return the part of a volume ``(1, M, X, Y, Z)`` that a crop covers, repeating the border beyond the grid.

    ``volume`` is an image of the whole grid, ``start`` the grid index of the crop's first voxel. Along a flipped axis
    the crop extends to lower indices.
    """
    pads: list[int] = []
    axes: list[int] = []
    for axis in range(3):
        extent = volume.shape[axis + 2]
        first = start[axis] - (size[axis] - 1) if flipped[axis] else start[axis]
        low = min(max(first, 0), extent - 1)
        high = max(min(first + size[axis], extent), low + 1)
        volume = volume.narrow(axis + 2, low, high - low)
        before = min(max(low - first, 0), size[axis] - (high - low))
        pads = [before, size[axis] - (high - low) - before] + pads  # noqa: RUF005 (TorchScript)
        if flipped[axis]:
            axes.append(axis + 2)
    if max(pads) > 0:
        volume = torch.nn.functional.pad(volume, pads, mode="replicate")
    return torch.flip(volume, axes) if len(axes) > 0 else volume
