"""Evaluations as they were written."""

import json
from collections.abc import Sequence
from pathlib import Path

from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.results import COLUMNS, NOTE, OPTIONAL_TABLES, Evaluation, read_rows


def require_own_output(output_dir: str, folders: Sequence[str]) -> None:
    """Refuse an output folder that is also read."""
    if Path(output_dir).resolve() in [Path(folder).resolve() for folder in folders]:
        raise ValueError(f"output_dir {output_dir}: is one of the folders to read; expected another one.")


def read_evaluation(folder: str | Path, name: str | None = None) -> Evaluation:
    """Read what `write_evaluation` wrote, with a new name of the method if one is given."""
    folder = Path(folder)
    for path in (folder / "results.csv", folder / NOTE):
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file; expected the output folder of an evaluation.")
    settings = json.loads((folder / NOTE).read_text(encoding="utf-8"))
    tables = {
        key: read_rows(folder / file, columns)
        for key, (file, columns) in OPTIONAL_TABLES.items()
        if (folder / file).is_file()
    }
    return Evaluation(
        name=name or settings["name"],
        cohort=settings["cohort"],
        modalities=tuple(settings["modalities"]),
        regions=tuple(settings["regions"]),
        conventions=Conventions(**settings["conventions"]),
        results=read_rows(folder / "results.csv", COLUMNS),
        facts=settings["facts"],
        other_cases=tuple(settings.get("other_cases", ())),
        **tables,
    )
