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

Whatever does not fit raises a ValueError of one line with the file, the key, the value found and what was expected,
such as ``plan.json: sites.a.dataset_dir is 3; expected a valid string.``: text that is not JSON, a key that occurs
twice, is unknown or is missing, and values of other types, which are never converted (``"3"`` is not 3). An entry of a
list is named by its position and its first text: ``training[0] (case 'x').image is 3``.
"""

import difflib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError, model_validator

from common.text import shortened

T = TypeVar("T")


class Document(BaseModel):
    """A JSON object with known keys; others are refused, except that keys that begin with ``_`` are comments."""

    model_config = ConfigDict(extra="allow", frozen=True)

    @model_validator(mode="after")
    def _refuse_unknown_keys(self) -> Any:
        known = [*type(self).model_fields]
        for key in self.model_extra or {}:
            if not key.startswith("_"):
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"expected some of {', '.join(known)}"
                raise ValueError(f"unknown key {key!r}; {hint}")
        return self


def read_json(path: str | os.PathLike, model: type[T], remedy: str = "") -> T:
    """Return a JSON file's content as a model; see `parse_json`."""
    return parse_json(Path(path).read_bytes(), model, path, remedy)


def parse_json(text: str | bytes, model: type[T], source: str | os.PathLike, remedy: str = "") -> T:
    """Return a JSON text as a model.

    Raises ValueError if the text does not fit the model.

    Args:
        text: the text, in UTF-8 if it is bytes.
        model: a `Document`, or any other type that pydantic validates, e.g. ``dict[str, int]``.
        source: name of the file, for messages.
        remedy: sentence that is added to messages, e.g. how to make such a file.
    """
    try:
        content = json.loads(text, object_pairs_hook=_once)
        return TypeAdapter(model).validate_json(text, strict=True)
    except ValidationError as error:
        reason = _reason(error.errors(include_url=False)[0], content)
    except RecursionError:
        reason = "not JSON of this kind: too many levels"
    except json.JSONDecodeError as error:
        reason = f"not JSON ({error})"
    except ValueError as error:
        reason = str(error)
    raise ValueError(f"{source}: {reason.rstrip('.')}. {remedy}".rstrip())


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object; the JSON reader alone would silently keep the last of equal keys."""
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key!r} occurs twice; expected each key once")
        found[key] = value
    return found


def _reason(error: Any, content: Any) -> str:
    """Return an error of pydantic about a file's content in words."""
    place, found, said = _place(error["loc"], content), error["input"], error["msg"]
    if error["type"] == "value_error":
        return f"{place}: {error['ctx']['error']}".removeprefix(": ")
    if error["type"] == "missing":
        return f"no key {place!r}; found {shortened(found) or 'none'}"
    if error["type"] == "json_invalid":
        return f"not JSON ({said})"
    value = repr(found) if len(repr(found)) <= 100 else f"{repr(found)[:100]}..."
    return f"{place or 'the content'} is {value}; {said.replace('Input should be', 'expected', 1)}"


def _place(location: Sequence[str | int], content: Any) -> str:
    """Return where in a file's content a location is."""
    place = ""
    for part in location:
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
        try:
            content = content[part]
        except (LookupError, TypeError):  # a key that is missing, or a part that pydantic adds to name a type
            content = None
        if isinstance(part, int) and isinstance(content, dict):
            place += next((f" ({key} {value!r})" for key, value in content.items() if isinstance(value, str)), "")
    return place.removeprefix(".")
