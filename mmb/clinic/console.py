"""What the verb ``predict`` prints: what was found in a study, then the result."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from common.text import printable, shortened
from mmb.clinic.batch import TABLE, segment_each
from mmb.clinic.intake.folder import Source
from mmb.clinic.options import Options
from mmb.clinic.report.formats import millilitres
from mmb.clinic.study import Prediction, predict


def segment_study(study: Source, output_dir: str, options: Options, each: bool) -> None:
    """Segment a study, and print what was used as which sequence, and the result.

    With ``each`` every subfolder is a study (`segment_each`); raises ValueError at the end if any could not be
    segmented.
    """

    def explain(name: str, lines: Sequence[str]) -> None:
        _print({f"In the study {name}".rstrip(): lines})
        print("Segmenting; without a GPU this takes up to a few minutes ...", flush=True)

    if not each or not isinstance(study, str | Path):
        _print(_sections(predict(study, output_dir, options, partial(explain, ""))))
        return
    failed = []
    for number, (outcome, made) in enumerate(segment_each(study, output_dir, options, explain), start=1):
        if outcome.failure:
            failed.append(outcome.study)
        result = f"not segmented: {outcome.failure}" if outcome.failure else "segmented" if made else "segmented before"
        _print({f"Study {number}": [f"{outcome.study}: {result}"], **(_sections(made) if made else {})})
    print(printable(f"All studies: {output_dir}/{TABLE}"), flush=True)
    if failed:
        raise ValueError(f"{len(failed)} of {number} studies were not segmented: {shortened(failed)}; see {TABLE}.")


def _sections(made: Prediction) -> dict[str, Sequence[str]]:
    """Return title -> lines; the answer comes first, as on the page, then the warnings."""
    summary, verdicts = made.summary, made.summary.verdicts
    truly = {
        region: f" (true volume probably {' to '.join(map(millilitres, ends))} ml)"
        for region, ends in summary.intervals.items()
    }
    unknown = "The file does not say what they were trained on."
    trained = f"They were trained on {summary.trained_on}." if summary.trained_on else unknown
    return {
        "Answer": [summary.answer],
        "Warnings": summary.warnings,
        "Volumes": [
            f"{row.region}: {millilitres(row.volume)} ml{truly.get(row.region, '')}; {verdicts[row.region].text}"
            for row in summary.rows()
        ],
        "Notes": summary.notes,
        "Bundle": [f"{summary.bundle} {summary.version}", f"Weights: {summary.weights}.", trained],
        "Written (research only, not for clinical use)": [f"{what}: {file}" for what, file in made.files.items()],
    }


def _print(sections: Mapping[str, Sequence[str]]) -> None:
    for title, lines in sections.items():
        if lines:
            print(printable("\n  ".join([f"{title}:", *lines])), flush=True)
