"""A head whose lesions are placed by arithmetic in the patient's millimetres, and scanned on any grid.

Places are in mm to the patient's right or left, front and top, as NIfTI counts them (+x is to the right). What outputs
have to say follows from `LESIONS` alone: no function of the product computes it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import torch
from dicom_studies import AGENT, MPRAGE, PLANES, SPACE_FLAIR, T2_TSE, Scan, write_study
from scipy.spatial.transform import Rotation

from common.cohorts import get_cohort
from mmb.predictors.calibration import Calibration, LeftOut, RegionCalibration
from mmb.predictors.protocol import Segmentation

COHORT = get_cohort("open_glioma")
BRAIN = (66.0, 80.0, 58.0)
"""Semi-axes of the brain in mm to the right, front and top; its middle is the origin of the head."""
OFF_CENTRE = np.array([11.0, -17.0, 23.0])
"""Where that middle lies in the scanner's mm."""
SHOWN = {"flair": "WT", "t2": "TC", "t1c": "ET"}
"""Sequence -> the region that is bright in it, so that one threshold halfway finds each without a bias."""
DARK, BRIGHT = 300.0, 1500.0
HAZE = np.float32(0.001)
"""Probability outside of what is found: about a millilitre in the whole brain."""


@dataclass(frozen=True)
class Lesion:
    """Ellipsoids around one centre: region -> semi-axes in mm, from WT to ET. ``side`` is what has to be said of it."""

    centre: tuple[float, float, float]
    regions: Mapping[str, tuple[float, float, float]]
    side: str

    def holds(self, region: str, head: np.ndarray) -> np.ndarray:
        """Return which places ``(..., 3)`` of the head lie in a region."""
        axes = self.regions.get(region, (1e-9,) * 3)
        return np.linalg.norm((head - self.centre) / axes, axis=-1) < 1

    def ml(self, region: str) -> float:
        """Return the volume of a region."""
        return float(4 / 3 * np.pi * np.prod(self.regions.get(region, 0)) / 1000)


LESIONS = (
    Lesion((26, 20, 12), {"WT": (26, 24, 22), "TC": (20, 19, 18), "ET": (15, 15, 15)}, "right"),
    Lesion((-33, -26, -10), {"WT": (15, 18, 14), "TC": (12, 12, 11)}, "left"),
    Lesion((12, 50, -14), {"WT": (12, 12, 12)}, "right"),  # in a head turned to the left, on the scanner's left
)
CUT = {"WT": (13.0, 13.0, 13.0)}
"""One more, in whose centre the field of view ends: half of it is to be measured."""


@dataclass(frozen=True)
class Grid:
    """How the head lies and is scanned: a plane, degrees by which its axes are tilted, mm, and slices.

    Attributes:
        turned: degrees by which the head is turned to its left.
        mirrored: whether right and left of the head are exchanged.
        files: order of the axes of NIfTI files, e.g. ``LPS``; None for DICOM.
        reverse: slices are numbered against their direction.
        aside: mm by which the lesion at the edge of the field of view lies beside its middle.
        gap: mm between slices, by which they are thinner than they are apart, as the headers say.
    """

    plane: str = "axial"
    tilt: tuple[float, float, float] = (0, 0, 0)
    spacing: tuple[float, float, float] = (2, 2, 2)
    turned: float = 0
    mirrored: bool = False
    files: str | None = None
    reverse: bool = False
    aside: tuple[float, float, float] = (-12, -26, 0)
    gap: float = 0

    @property
    def axes(self) -> np.ndarray:
        """Directions of columns, rows and slices, as columns."""
        return Rotation.from_euler("xyz", self.tilt, degrees=True).as_matrix() @ PLANES[self.plane]

    @property
    def shape(self) -> np.ndarray:
        """Number of columns, rows and slices: all of the head but for its ends along the slices."""
        extent = 2 * np.linalg.norm(self.axes.T * BRAIN, axis=1) * (1.1, 1.1, 0.8)
        return np.ceil(extent / self.spacing).astype(int)

    @property
    def affine(self) -> np.ndarray:
        affine = np.eye(4)
        affine[:3, :3] = self.axes * self.spacing
        affine[:3, 3] = OFF_CENTRE - affine[:3, :3] @ ((self.shape - 1) / 2)
        return affine

    def to_scanner(self, head: Sequence[float]) -> np.ndarray:
        """Return a place of the head in the scanner's mm."""
        turn = Rotation.from_euler("z", self.turned, degrees=True).as_matrix()
        return OFF_CENTRE + turn @ (np.array(head, float) * (-1 if self.mirrored else 1, 1, 1))

    def to_head(self, scanner: np.ndarray) -> np.ndarray:
        """Return places ``(..., 3)`` of the scanner in the head's mm."""
        turn = Rotation.from_euler("z", self.turned, degrees=True).as_matrix()
        return ((scanner - OFF_CENTRE) @ turn) * (-1 if self.mirrored else 1, 1, 1)

    @property
    def cut(self) -> Lesion:
        """The lesion in whose centre the field of view ends, at the last slice's outer face."""
        end = self.axes[:, 2] * self.shape[2] * self.spacing[2] / 2
        aside = self.to_scanner(self.aside) - OFF_CENTRE
        aside -= self.axes[:, 2] * (aside @ self.axes[:, 2])
        centre = self.to_head(OFF_CENTRE + end + aside)
        return Lesion(tuple(centre), CUT, "left" if centre[0] < 0 else "right")

    @property
    def truth(self) -> list[SimpleNamespace]:
        """All lesions, the largest first: ``side``, ``ml`` of each region, and its ``centre`` in the scanner's mm."""
        found = []
        for lesion in (*LESIONS, self.cut):
            half = lesion.regions is CUT
            ml = {name: lesion.ml(name) / (2 if half else 1) for name in SHOWN.values()}
            # The half of a ball has its centre of mass at 3/8 of the radius.
            centre = self.to_scanner(lesion.centre) - (3 / 8 * CUT["WT"][0] * self.axes[:, 2] if half else 0)
            side = {"left": "right", "right": "left"}[lesion.side] if self.mirrored else lesion.side
            found.append(SimpleNamespace(side=side, ml=ml, centre=centre))
        return sorted(found, key=lambda each: -each.ml["WT"])

    def images(self) -> dict[str, np.ndarray]:
        """Return sequence -> image: voxels average what lies in them, and are 0 where their centre is not brain."""
        index = np.moveaxis(np.indices(self.shape), 0, -1)
        head = self.to_head(self.places(index))
        x, y, z = np.moveaxis(head, -1, 0)
        tissue = DARK + 100 * np.sin(x / 9) * np.sin(y / 7 + 1) * np.cos(z / 8)
        near = [np.linalg.norm(head - each.centre, axis=-1) < 30 for each in (*LESIONS, self.cut)]
        finer = np.ceil(np.array(self.spacing) / 0.7).astype(int)
        steps = [(np.array(step) + 0.5) / finer - 0.5 for step in product(*map(range, finer))]
        made = {}
        for name, region in SHOWN.items():
            image = tissue.copy()
            for lesion, around in zip((*LESIONS, self.cut), near, strict=True):
                places = [self.to_head(self.places(index[around] + step)) for step in steps]
                share = np.mean([lesion.holds(region, each) for each in places], axis=0)
                image[around] += share * (BRIGHT - image[around])
            made[name] = np.where(np.linalg.norm(head / BRAIN, axis=-1) < 1, image, 0).astype(np.float32)
        return made

    def places(self, index: np.ndarray) -> np.ndarray:
        """Return where voxels lie in the scanner's mm."""
        return index @ self.affine[:3, :3].T + self.affine[:3, 3]

    def write(self, folder: Path) -> Any:
        """Write the study as DICOM series or NIfTI files; return what `predict` takes."""
        images = self.images()
        if self.files:
            folder.mkdir()
            turn = nib.orientations.ornt_transform(
                nib.io_orientation(self.affine), nib.orientations.axcodes2ornt(self.files)
            )
            for name, voxels in images.items():
                nib.save(nib.Nifti1Image(voxels, self.affine).as_reoriented(turn), folder / f"head_{name}.nii.gz")
            return folder
        headers = {"flair": (4, SPACE_FLAIR), "t2": (3, T2_TSE), "t1c": (6, MPRAGE | AGENT)}
        stated = {"SliceThickness": self.spacing[2] - self.gap, "SpacingBetweenSlices": self.gap} if self.gap else {}
        scans = [
            Scan(number, name, f"{name}_tra", header | stated, self.plane, spacing=self.spacing, reverse=self.reverse)
            for name, (number, header) in headers.items()
        ]
        write_study(folder, lambda scan: (images[scan.image], self.affine), scans)
        return folder


HELD = LeftOut(100, 50, 20, 16, 0, 0, 0.8, 0.7, 0.7, 10, 6)
SAME = RegionCalibration((0.0, 1.0, 0.0), (0.0, 1.0, 0.0), 1.0, HELD)
KNOWN = Calibration("12ab", "threshold", 30, 0.4, (0, 3), (1, 100), dict.fromkeys(("WT", "TC", "ET"), SAME))


class ByIntensity:
    """A predictor that finds each region by its brightness alone; it never reads an affine.

    ``sure`` is the probability that it gives to what it finds; the rest of the brain gets `HAZE`.
    """

    def __init__(self, sure: Mapping[str, float] | None = None, warnings: Sequence[str] = ()) -> None:
        self.cohort, self.device, self.spacing, self.decision = COHORT, torch.device("cpu"), (1, 1, 1), "threshold"
        self.method = self.title = self.software = "by_intensity 1.0"
        self.version, self.weights_name, self.trained_on, self.seen = "1.0", "none.pt 12ab", None, None
        self.subsets, self.calibration, self.warnings = None, KNOWN, warnings
        self.sure = sure or dict.fromkeys(("WT", "TC", "ET"), 0.97)

    def using(self, modalities: Sequence[str]) -> ByIntensity:
        return self

    def decide_by(self, decision: str) -> None:
        """Nothing depends on it."""

    def run(self, images: Mapping[str, nib.Nifti1Image]) -> Segmentation:
        shape = next(iter(images.values())).shape
        masks = np.zeros((3, *shape), bool)
        for number, region in enumerate(COHORT.labels.regions):
            for name, shown in SHOWN.items():
                if shown == region and name in images:
                    masks[number] = np.asarray(images[name].dataobj) > (DARK + BRIGHT) / 2
        masks[1] |= masks[2]
        masks[0] |= masks[1]
        values = COHORT.labels.values
        label = np.select([masks[2], masks[1], masks[0]], [values["ET"], values["NCR"], values["ED"]], 0)
        sure = np.array([self.sure[name] for name in COHORT.labels.regions], np.float32)
        brain = np.any([np.asarray(image.dataobj) > 0 for image in images.values()], axis=0)
        return Segmentation(label.astype(np.uint8), masks, np.where(masks, sure[:, None, None, None], HAZE * brain))
