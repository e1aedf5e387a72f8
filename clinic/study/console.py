"""What the verb ``predict`` prints: what was found in a study, then the result."""

from collections.abc import Mapping, Sequence
from typing import Any

from clinic.study.predict import Prediction, predict
from common.text import printable


def segment_study(*options: Any, **named_options: Any) -> None:
    """Segment a study (options of `predict`), and print what was used as which sequence, and the result."""
    made = predict(*options, **named_options, explain=lambda lines: _print({"In the study": lines}))
    _print(_sections(made))


def _sections(made: Prediction) -> dict[str, Sequence[str]]:
    """Return title -> lines; the warnings come first, as on the page."""
    summary = made.summary
    unknown = "The file does not say what they were trained on."
    trained = f"They were trained on {summary.trained_on}." if summary.trained_on else unknown
    return {
        "Warnings": summary.warnings,
        "Volumes": [
            f"{region}: {volume:.1f} ml{_interval(summary.intervals.get(region))}"
            for region, volume in summary.volumes.items()
        ],
        "Geometry": summary.notes,
        "Bundle": [f"{summary.bundle} {summary.version}", f"Weights: {summary.weights}.", trained],
        "Written (research only, not for clinical use)": [f"{what}: {file}" for what, file in made.files.items()],
    }


def _print(sections: Mapping[str, Sequence[str]]) -> None:
    for title, lines in sections.items():
        if lines:
            print(printable("\n  ".join([f"{title}:", *lines])), flush=True)


def _interval(interval: tuple[float, float, float] | None) -> str:
    if interval is None:
        return ""
    low, high, coverage = interval
    return f" ({low:.1f} to {high:.1f} with {coverage:.0%})"
