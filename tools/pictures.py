"""The pictures of a patient in README, gallery and model cards, from the shipped weights.

``python -m tools.pictures CASE [BUNDLE ...]`` draws those of all bundles, or of those named; CASE is the
folder of a labelled case. `one_patient.png` of a bundle shows four subsets: above what the network was given, below its
result, filled, with the outline of the reference on the same image. M3AE also has the subsets one below the other, for
phones, and `gallery.jpg` with all 15 subsets. Everything is cropped to the tumour.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from io import BytesIO
from pathlib import Path

import matplotlib
import nibabel as nib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from PIL import Image

from common.cohorts.scan import find_cases
from common.evaluation.metrics.overlap import region_masks
from common.evaluation.report.slices import OUTLINES
from common.modalities import display_name, subsets
from mmb.predictors.python import Bundle

ROOT = Path(__file__).parents[1]
FOUR = (("t1", "t1c", "t2", "flair"), ("t1c", "flair"), ("flair",), ("t1",))
TITLES = ("all four sequences", "T1c and FLAIR", "FLAIR alone", "T1 alone")
PANEL, GAP, DPI = 300, 8, 100
"""Size of a panel and of the gap beside it in pixels, and pixels per inch, in which matplotlib counts."""
MARGIN = 1.3
"""Size of what is shown as a multiple of the tumour's."""
WORDS = {"WT": "oedema", "TC": "necrotic core", "ET": "enhancing tumour"}
"""What is seen of each region where the next smaller ones are painted over it."""
OPACITY = {"WT": 0.35, "TC": 0.55, "ET": 0.65}
STYLE = {"text.color": "white", "font.family": "DejaVu Sans", "savefig.facecolor": "black", "figure.facecolor": "black"}


@dataclass(frozen=True, eq=False)
class Patient:
    """A labelled case and a bundle that segments it; planes are axial, seen as radiologists see them."""

    folder: Path
    bundle: Bundle

    @cached_property
    def images(self) -> dict[str, np.ndarray]:
        return {name: _read(path).get_fdata(dtype=np.float32) for name, path in self.files.items()}

    @cached_property
    def files(self) -> dict[str, str]:
        (item,) = find_cases(self.folder, self.bundle.cohort)
        return dict(zip(item["modalities"], item["image"], strict=True)) | {"label": item["label"]}

    @cached_property
    def reference(self) -> np.ndarray:
        """Masks of the regions, from the largest to the smallest: bool ``(R, X, Y, Z)``."""
        return region_masks(_read(self.files["label"]).get_fdata().astype(np.int64), self.bundle.cohort.labels)

    @cached_property
    def shown(self) -> tuple[slice, slice, int]:
        """The square around the tumour, in the plane that has most of the enhancing tumour."""
        plane = int(self.reference[-1].sum(axis=(0, 1)).argmax())
        tumour = self.reference[0][..., plane]
        edges = [np.flatnonzero(tumour.any(axis=1 - axis)) for axis in (0, 1)]
        size = round(MARGIN * max(edge[-1] - edge[0] + 1 for edge in edges))
        starts = [max((edge[0] + edge[-1] - size) // 2, 0) for edge in edges]
        return *(slice(start, start + size) for start in starts), plane

    def plane(self, volume: np.ndarray) -> np.ndarray:
        """Return the plane to show as rows and columns: the patient's right on the left, front at the top."""
        return volume[self.shown].T[::-1, ::-1]

    @cache  # noqa: B019 (a few patients in a short process)
    def segment(self, subset: Sequence[str]) -> tuple[np.ndarray, list[str]]:
        """Return the masks of the regions found from a subset, and the Dice (%) of each as text."""
        turned = nib.as_closest_canonical
        result = self.bundle.segment({name: self.files[name] for name in subset})
        masks = [
            turned(nib.Nifti1Image(mask.astype(np.uint8), result.affine)).get_fdata() > 0
            for mask in result.regions.values()
        ]
        dice = [200 * (a & b).sum() / (a.sum() + b.sum()) for a, b in zip(masks, self.reference, strict=True)]
        return np.stack(masks), [f"{name} {value:.0f}" for name, value in zip(result.regions, dice, strict=True)]


def draw(patient: Patient, stacked: bool = False) -> Figure:
    """Draw four subsets beside each other, or one below the other."""
    rows, columns = (4, 2) if stacked else (2, 4)
    figure, place = _grid(columns, rows, 44, 84 if stacked else 52)
    for i, (subset, title) in enumerate(zip(FOUR, TITLES, strict=True)):
        inputs, result = (place(i, 0), place(i, 1)) if stacked else (place(0, i), place(1, i))
        _tiles(inputs, patient, subset)
        inputs.set_title(title, fontsize=15, pad=9, weight="bold")
        masks, dice = patient.segment(subset)
        _filled(result, patient, subset, masks)
        result.set_title("  ".join(dice), fontsize=15, pad=9)
    _legend(figure, patient, 2 if stacked else 4, 13)
    return figure


def draw_all(patient: Patient) -> Figure:
    """Draw the results of all subsets, after the image without a result, in four rows."""
    figure, place = _grid(4, 4, 68, 52)
    first = place(0, 0)
    _show(first, patient, "t1c")
    first.set_title("T1c, nothing drawn\n(Dice in %)", fontsize=13, pad=9)
    for i, subset in enumerate(subsets(FOUR[0]), start=1):
        frame = place(*divmod(i, 4))
        masks, dice = patient.segment(subset)
        _filled(frame, patient, subset, masks)
        frame.set_title(f"{', '.join(map(display_name, subset))}\n{'  '.join(dice)}", fontsize=13, pad=9)
    _legend(figure, patient, 4, 13)
    return figure


def _grid(columns: int, rows: int, head: int, foot: int) -> tuple[Figure, Callable[[int, int], Axes]]:
    """Return a figure with room for square panels, and a function that makes the panel of a row and column.

    Sizes are in pixels: ``head`` of the titles above each row, ``foot`` of the legend.
    """
    width, height = columns * (PANEL + GAP) + GAP, rows * (head + PANEL) + foot
    figure = Figure(figsize=(width / DPI, height / DPI), dpi=DPI)

    def place(row: int, column: int) -> Axes:
        left, top = GAP + column * (PANEL + GAP), head + row * (head + PANEL)
        axes = figure.add_axes((left / width, 1 - (top + PANEL) / height, PANEL / width, PANEL / height))
        axes.set_axis_off()
        return axes

    return figure, place


def _tiles(axes: Axes, patient: Patient, subset: Sequence[str]) -> None:
    """Draw the four sequences as tiles, with empty ones for those that are missing."""
    for i, name in enumerate(FOUR[0]):
        tile = axes.inset_axes((i % 2 * 0.505, 0.505 - i // 2 * 0.505, 0.495, 0.495))
        if name in subset:
            _show(tile, patient, name)
        tile.set(xticks=[], yticks=[], facecolor="#262626")
        tile.spines[:].set_visible(False)
        text = {"color": "white"} if name in subset else {"color": "#8a8a8a"}
        tile.set_axis_on()
        tile.text(0.04, 0.95, display_name(name), transform=tile.transAxes, va="top", fontsize=11, **text)


def _show(axes: Axes, patient: Patient, name: str) -> None:
    plane, brain = patient.plane(patient.images[name]), patient.images[name][..., patient.shown[-1]]
    low, high = np.quantile(brain[brain != brain[0, 0]], (0.01, 0.995))
    axes.imshow(plane, cmap="gray", vmin=low, vmax=high, interpolation="bicubic")


def _filled(axes: Axes, patient: Patient, subset: Sequence[str], masks: np.ndarray) -> None:
    """Fill the regions on T1c, or else the last sequence of the subset, and outline those of the reference."""
    _show(axes, patient, "t1c" if "t1c" in subset else subset[-1])
    for i, (name, colour) in enumerate(zip(patient.bundle.cohort.labels.regions, OUTLINES, strict=False)):
        mask = masks[i] & ~masks[i + 1] if i + 1 < len(masks) else masks[i]
        axes.imshow(patient.plane(mask)[..., None] * np.array(to_rgba(colour, OPACITY[name])))
    for mask, width in zip(patient.reference[[0, -1]], (2.0, 1.1), strict=True):
        plane = patient.plane(mask)
        if plane.any():
            axes.contour(plane, levels=[0.5], colors="white", linewidths=width)


def _legend(figure: Figure, patient: Patient, columns: int, size: int) -> None:
    regions = patient.bundle.cohort.labels.regions
    handles = [Patch(color=to_rgba(OUTLINES[i], 0.8), label=WORDS[name]) for i, name in enumerate(regions)]
    handles.append(Line2D([], [], color="white", linewidth=2, label="experts: whole and enhancing tumour"))
    figure.legend(handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=size)


def _read(path: str) -> nib.Nifti1Image:
    return nib.as_closest_canonical(nib.load(path))


def _write(figure: Figure, path: Path) -> None:
    """Write PNG with 256 colours, which are enough here, or JPEG."""
    content = BytesIO()
    figure.savefig(content, dpi=DPI, format="png")
    image = Image.open(content).convert("RGB")
    image.quantize(256).save(path, optimize=True) if path.suffix == ".png" else image.save(path, quality=85)
    print(path)


def main(case: str, *bundles: str) -> None:
    """Draw the pictures of a labelled case's folder, with all bundles or those named."""
    with matplotlib.rc_context(STYLE):
        for name in bundles or [path.parent.name for path in sorted(ROOT.glob("bundles/*/models"))]:
            patient, docs = Patient(Path(case), Bundle(name)), ROOT / "bundles" / name / "docs"
            _write(draw(patient), docs / "one_patient.png")
            if name == "m3ae":
                _write(draw(patient, stacked=True), docs / "one_patient_stacked.png")
                _write(draw_all(patient), ROOT / "docs/gallery.jpg")


if __name__ == "__main__":
    main(*sys.argv[1:])
