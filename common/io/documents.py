"""JSON files that users write, read into models (pydantic) that say what each key holds.

A file's format is a subclass of `Document`; its fields are the keys::

    class Site(Document):
        dataset_dir: str
        split: str | None = None              # an optional key

    class Federation(Document):
        name: Annotated[str, AfterValidator(check_name)]     # `check_name` raises a ValueError, or returns the name
        rounds: PositiveInt
        sites: dict[str, Site]

    federation = read_json("plan.json", Federation)          # or `parse_json(text, Federation, "plan.json")`

What does not fit raises a ValueError of one line with the file, the key and pydantic's words, such as ``plan.json:
sites.a.dataset_dir: Input should be a valid string.``: text that is not JSON, a key that occurs twice, is unknown or is
missing, and values of other types, which are never converted (``"3"`` is not 3).
"""

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

T = TypeVar("T")


class Document(BaseModel):
    """A JSON object with known keys; others are refused, except that keys that begin with ``_`` are comments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="after")
    def _refuse_unknown_keys(self) -> Any:
        known = [*type(self).model_fields]
        for key in self.model_extra or {}:
            if not key.startswith("_"):
                near = difflib.get_close_matches(key, known, n=1) or known
                raise ValueError(f"unknown key {key!r}; expected {', '.join(near)}")
        return self


def read_json(path: str | os.PathLike, model: type[T], remedy: str = "") -> T:
    """Return a JSON file's content as a model; see `parse_json`."""
    return parse_json(Path(path).read_bytes(), model, path, remedy)


def parse_json(text: str | bytes, model: type[T], source: str | os.PathLike, remedy: str = "") -> T:
    """Return a JSON text as a model; raises ValueError if it does not fit.

    Args:
        text: the text, in UTF-8 if it is bytes.
        model: a `Document`, or any other type that pydantic validates, e.g. ``dict[str, int]``.
        source: name of the file, for messages.
        remedy: sentence that is added to messages, e.g. how to make such a file.
    """
    try:
        json.loads(text, object_pairs_hook=_once)
        return TypeAdapter(model).validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, words = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
        reason = f"{key}: {words}" if key else words
    except (ValueError, RecursionError) as error:
        reason = f"not JSON of this kind: {error}"
    raise ValueError(f"{source}: {reason.rstrip('.')}. {remedy}".rstrip())


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; the JSON reader alone would silently keep the last of equal keys."""
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key occurs twice in an object that has " + ", ".join(content))
    return content
