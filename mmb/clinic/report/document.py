"""``summary.json``: all that the page says, for programs; pictures are left out, and what may tell whose result it is.

``docs/summary.schema.json`` describes it. After a change of `StudySummary`, ``python -m mmb.clinic.report.document``
writes that file anew.
"""

import inspect
import json
import re
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from mmb.clinic.report import result
from mmb.clinic.report.result import LEFT_OUT, REFUSED, Refusal, StudySummary

FIELDS = TypeAdapter(StudySummary)
EITHER = TypeAdapter[StudySummary | Refusal](StudySummary | Refusal)
SCHEMA = Path(__file__).parents[3] / "docs" / "summary.schema.json"


def as_document(summary: StudySummary) -> dict[str, Any]:
    """Return what ``summary.json`` says."""
    return FIELDS.dump_python(summary, mode="json", exclude={*LEFT_OUT})


def write_document(summary: StudySummary | Refusal, path: Path) -> None:
    """Write a summary, or why there is none, as JSON (UTF-8); the same summary gives the same bytes."""
    path.write_bytes(EITHER.dump_json(summary, indent=1, exclude={*LEFT_OUT}) + b"\n")


def read_document(path: Path) -> StudySummary:
    """Read a summary that `write_document` wrote, without what was left out.

    Raises ValueError if the study was refused, or the file is damaged or of another version, of which fields would be
    lost.
    """
    content = json.loads(path.read_bytes())
    version = content.get("schema_version") if isinstance(content, dict) else None
    if version != StudySummary.schema_version:
        raise ValueError(f"{path}: schema_version {version}; expected {StudySummary.schema_version}. Segment it again.")
    if content.get("answer") == REFUSED:
        raise ValueError(f"{path}: the study was refused: {content['text']}")
    return FIELDS.validate_python(content)


def schema() -> dict[str, Any]:
    """Return the JSON schema of what `write_document` writes, with the texts of the classes' docstrings."""
    made = EITHER.json_schema(mode="serialization")
    for name in LEFT_OUT:
        del made["$defs"][StudySummary.__name__]["properties"][name]
    used = json.dumps(made)
    made["$defs"] = {name: part for name, part in made["$defs"].items() if f"#/$defs/{name}" in used}
    for name, part in made["$defs"].items():
        kind = getattr(result, name)
        texts = _texts(kind)
        part["description"] = (inspect.getdoc(kind) or "").partition("\n")[0]
        if "properties" not in part:  # of an enumeration
            continue
        part["required"] = [*part["properties"]]
        part["additionalProperties"] = False
        for key, field in part["properties"].items():
            field.pop("default", None)
            if key in texts:
                field["description"] = texts[key]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **made}


def _texts(kind: type) -> dict[str, str]:
    """Return the texts of a class's attributes."""
    listed = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")[2]
    texts = re.findall(r"^ {4}(\w+): (.*?)(?=\n {4}\w|\Z)", listed, re.M | re.S)
    return {name: " ".join(text.split()) for name, text in texts}


if __name__ == "__main__":
    SCHEMA.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")
