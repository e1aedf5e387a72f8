"""A folder of studies: each is segmented into a folder of its own, and one table lists them all."""

import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from common.cohorts.cohort import Cohort
from common.cohorts.nnunet import described
from common.cohorts.scan import find_cases
from common.io.digest import digest
from common.io.files import replacing
from common.io.lock import lock_folder, unlock_folder
from common.modalities import resolve_subset
from common.text import printable
from mmb.clinic.disk import full_disk
from mmb.clinic.intake.folder import require_studies, study_files
from mmb.clinic.options import Options
from mmb.clinic.remark import Gravity
from mmb.clinic.report.document import read_document
from mmb.clinic.report.result import REFUSED
from mmb.clinic.study import RESULTS, Prediction, check_output, segment
from mmb.errors import StudyError
from mmb.predictors.bundle import load_predictor

logger = logging.getLogger(__name__)
RECORD, TABLE = "studies.json", "studies.csv"


@dataclass(frozen=True)
class Outcome:
    """The result of a study, by its folder's name and a digest of what it was made from, or why there is none.

    ``code`` is the kind of reason; ``label`` and ``created`` are those of its summary.
    """

    study: str
    made_from: str = ""
    failure: str | None = None
    code: str = ""
    label: str = ""
    created: str = ""


def segment_each(
    folder: str | Path,
    output_dir: str | Path,
    options: Options,
    explain: Callable[[str, list[str]], None] = lambda name, lines: None,
) -> Iterator[tuple[Outcome, Prediction | None]]:
    """Segment each subfolder of a folder as `predict` does, into a folder of the same name in ``output_dir``.

    Of a folder of nnU-Net's raw data, or its ``imagesTs``, each case is a study. A study that cannot be segmented does
    not stop the others, and loses the SEG and SR of an earlier run. ``studies.csv`` is rewritten after each study. A
    study that was segmented before from the same files, with the same weights and options, is not segmented again.
    Raises ValueError if there is no study, or images lie beside the subfolders; OSError if the disk is full.

    ``explain`` is called with a study's name and a line for everything found in it. Yields each study's outcome, with
    its prediction if that was made now.
    """
    check_output(folder, output_dir)
    out = Path(output_dir)
    lock_folder(out)
    try:
        inference = load_predictor(*options.network, options.decision)
        studies = _studies(folder, inference.cohort)
        resolve_subset(options.modalities, inference.cohort.modalities)  # refuse unknown ones
        others = replace(options, bundle="", ckpt_path=None, device=None, decision=None)  # what these are is said next
        settings = (inference.software, inference.weights_name, inference.decision, others)
        try:
            earlier = [Outcome(**entry) for entry in json.loads((out / RECORD).read_text())]
        except (OSError, ValueError, TypeError):  # there was no earlier run, or its record is damaged
            earlier = []
        here = [each for each in earlier if each.study in studies]
        outcomes = {each.study: each for each in here if each.failure or _is_whole(out / each.study)}
        for name, study in studies.items():
            made = None
            try:
                source = study if isinstance(study, Mapping) else study_files(study)
                paths = map(Path, source.values()) if isinstance(source, Mapping) else source.files
                files = [(str(path), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
                key, before = digest(files, *settings), outcomes.get(name)
                if before is None or before.made_from != key:
                    made = segment(source, out / name, inference, options, partial(explain, name))
                    outcomes[name] = Outcome(name, key, label=made.summary.label, created=made.summary.created)
            except Exception as error:
                if full_disk(error):
                    raise
                told = printable(str(error))
                if not isinstance(error, ValueError | OSError | ImportError):
                    logger.exception("an error that is not the study's")
                    told = f"{type(error).__name__}: {error}"
                outcomes[name] = Outcome(name, failure=told, code=error.code if isinstance(error, StudyError) else "")
                for what in ("DICOM SEG", "DICOM SR"):  # an earlier result is of other files, or of other weights
                    Path(out, name, RESULTS[what]).unlink(missing_ok=True)
            _write(out, [outcomes[each] for each in studies if each in outcomes])
            yield outcomes[name], made
    finally:
        unlock_folder(out)


def _is_whole(folder: Path) -> bool:
    """Return whether an earlier result is there, with a summary that this version can read."""
    try:
        read_document(folder / RESULTS["JSON"])
    except (OSError, ValueError):
        return False
    return all((folder / RESULTS[what]).is_file() for what in ("label map", "summary"))


def _studies(folder: str | Path, cohort: Cohort) -> dict[str, Path | dict[str, str]]:
    """Return name -> folder of each study, or of nnU-Net's raw data name of each case -> its image files."""
    if described(folder) is None:
        return {path.name: path for path in require_studies(folder)}
    items = find_cases(folder, cohort)
    return {item["case"]: dict(zip(item["modalities"], item["image"], strict=True)) for item in items}


def _write(out: Path, outcomes: Sequence[Outcome]) -> None:
    with replacing(out / RECORD) as path:
        path.write_text(json.dumps([asdict(outcome) for outcome in outcomes], indent=1))
    with replacing(out / TABLE) as path:
        rows = [{key: _cell(value) for key, value in _row(out, outcome).items()} for outcome in outcomes]
        pd.DataFrame(rows).to_csv(path, index=False)


def _cell(value: Any) -> Any:
    """Return a value of which no spreadsheet computes a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _row(out: Path, outcome: Outcome) -> dict[str, Any]:
    """Return the row of a study in the table: what its ``summary.json`` says, a column for each region and number."""
    answer = REFUSED if outcome.code else ""
    row: dict[str, Any] = {"study": outcome.study, "failure": outcome.failure or "", "answer": answer}
    if outcome.failure is not None:
        row |= {"remarks": outcome.code}
    else:
        summary = read_document(Path(out, outcome.study, RESULTS["JSON"]))
        row |= {"answer": summary.answer, "label": outcome.label, "created": outcome.created}
        row |= {name: getattr(summary, name) for name in ("bundle", "version", "weights")}
        row |= {"used": "+".join(used.modality for used in summary.used), "missing": "+".join(summary.missing)}
        for region, ml, interval, expected, *_ in summary.rows():
            low, high = interval or (None, None)
            row |= {f"{region}_ml": ml, f"{region}_low_ml": low, f"{region}_high_ml": high}
            row |= {f"{region}_expected_dice": expected, f"{region}_verdict": summary.verdicts[region].word}
        grave = [remark for remark in summary.remarks if remark.gravity is not Gravity.NOTE]
        row |= {"remarks": " ".join(remark.code for remark in grave), "warnings": " | ".join(summary.warnings)}
    return row
