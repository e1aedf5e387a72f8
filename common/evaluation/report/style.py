"""The style of figures, and how they are rendered.

A figure is one (3.5 in) or two (7.2 in) journal columns wide; its text has at least 7 pt. Colours are those of Okabe
and Ito (https://jfly.uni-koeln.de/color/); methods and modalities also differ in their markers.
"""

import logging
from io import BytesIO
from typing import Any

import matplotlib
import numpy as np
from matplotlib.figure import Figure

COLUMN, PAGE = 3.5, 7.2  # widths in inches of one and two journal columns
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe-Ito with grey instead of yellow, which is hardly visible on white."""
MARKERS = "osD^vPX<"
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that figures are the same everywhere
    "font.size": 7,
    "axes.titlesize": 8,
    "axes.labelsize": 7,
    "figure.titlesize": 8,
    "legend.fontsize": 7,
    "legend.title_fontsize": 7,
    "legend.frameon": False,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "lines.linewidth": 1.2,
    "lines.markersize": 4,
    "lines.markeredgewidth": 0.5,
    "axes.linewidth": 0.6,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "axes.ymargin": 0.08,
    "grid.color": "0.9",
    "grid.linewidth": 0.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a $ in a name does not start a formula
    "pdf.fonttype": 42,  # text as text in an embedded font, which publishers ask for
}
styled = matplotlib.rc_context(STYLE)
"""Decorator for functions that draw or write a figure."""


@styled
def rendered(figure: Figure) -> dict[str, bytes]:
    """Return the content of a figure's files, by suffix: PNG (150 dpi) and PDF."""
    logging.getLogger("fontTools").setLevel(logging.WARNING)  # otherwise a line for each font that a PDF embeds
    png, pdf = BytesIO(), BytesIO()
    figure.savefig(png, dpi=150, format="png")
    figure.savefig(pdf, dpi=300, format="pdf", metadata={"CreationDate": None})
    return {".png": png.getvalue(), ".pdf": pdf.getvalue()}


def mark(i: int) -> dict[str, Any]:
    """Return the colour and marker of the i-th method or modality; further rounds of markers are hollow, then half."""
    fill = ("full", "none", "top")[i // len(MARKERS) % 3]
    return {"color": COLOURS[i % len(COLOURS)], "marker": MARKERS[i % len(MARKERS)], "fillstyle": fill}


def dodge(count: int, width: float) -> np.ndarray:
    """Return positions of ``count`` things side by side around 0, within a width."""
    return width * ((np.arange(count) + 0.5) / count - 0.5)


def number(value: float) -> str:
    """Return a number as figures print it, or ``n/a`` for NaN."""
    return "n/a" if np.isnan(value) else f"{value:.1f}"
