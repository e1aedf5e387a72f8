"""How regions and volumes are written for the reader."""

from common.evaluation.report.style import number

REGIONS = {"WT": "whole tumour", "TC": "tumour core", "ET": "enhancing tumour"}

CLASSES = {
    "NCR": "necrotic core",
    "ED": "oedema",
    "NET": "non-enhancing tumour",
    "CC": "cysts",
    "ET": "enhancing tumour",
    "RC": "resection cavity",
}


def region_phrase(region: str) -> str:
    """Return a region's name in words, e.g. ``whole tumour`` for ``WT``; unknown names stay unchanged."""
    return REGIONS.get(region, region)


def class_phrase(name: str) -> str:
    """Return a class's name in words, e.g. ``oedema`` for ``ED``; unknown names stay unchanged."""
    return CLASSES.get(name, name)


def millilitres(volume: float) -> str:
    """Return a volume in ml as text, without the unit; from 10 ml on a whole number, since no outline is more exact."""
    if 0 < volume < 0.05:
        return "< 0.1"
    return f"{volume:.0f}" if volume >= 9.95 else number(volume)


def in_percent(share: float) -> str:
    """Return a fraction as a text, e.g. ``54 %``."""
    return f"{100 * share:.0f} %"
