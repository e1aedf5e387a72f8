"""JSON files that users write, read into models (pydantic) that say what each key holds.

A file's format is a subclass of `Document`; its fields are the keys::

    class Site(Document):
        dataset_dir: str
        split: str | None = None              # an optional key

    class Study(Document):
        name: Annotated[str, AfterValidator(check_name)]     # `check_name` raises a ValueError, or returns the name
        rounds: PositiveInt
        sites: dict[str, Site]

    study = read_json("plan.json", Study)                    # or `parse_json(text, Study, "plan.json")`

What does not fit raises a ValueError of one line with the file, the key and pydantic's words, such as ``plan.json:
sites.a.dataset_dir: Input should be a valid string.``: text that is not JSON, a key that is unknown or missing, and
values of other types, which are never converted (``"3"`` is not 3).
"""

import os
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

T = TypeVar("T")


class Document(BaseModel):
    """A JSON object with known keys; others are refused, except that keys that begin with ``_`` are comments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="after")
    def _refuse_unknown_keys(self) -> Any:
        if unknown := [key for key in self.model_extra or {} if not key.startswith("_")]:
            raise ValueError(f"unknown key {unknown[0]!r}; expected {', '.join(type(self).model_fields)}")
        return self


def read_json(path: str | os.PathLike, model: type[T], remedy: str = "", context: Any = None) -> T:
    """Return a JSON file's content as a model; see `parse_json`. Raises FileNotFoundError if it does not exist."""
    if not os.path.isfile(path):
        raise FileNotFoundError(f"{path}: no such file. {remedy}".rstrip())
    return parse_json(Path(path).read_bytes(), model, path, remedy, context)


def parse_json(
    text: str | bytes, model: type[T], source: str | os.PathLike, remedy: str = "", context: Any = None
) -> T:
    """Return a JSON text as a model; raises ValueError if it does not fit.

    Args:
        text: the text, in UTF-8 if it is bytes.
        model: a `Document`, or any other type that pydantic validates, e.g. ``dict[str, int]``.
        source: name of the file, for messages.
        remedy: sentence that is added to messages, e.g. how to make such a file.
        context: what the model's validators are told (pydantic's ``ValidationInfo.context``).
    """
    try:
        return TypeAdapter(model).validate_json(text, strict=True, context=context)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key, words = ".".join(map(str, first["loc"])), first["msg"].removeprefix("Value error, ")
    reason = f"{key}: {words}" if key else words
    raise ValueError(f"{source}: {reason.rstrip('.')}. {remedy}".rstrip())
