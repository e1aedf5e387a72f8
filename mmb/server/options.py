"""What a client may ask of a segmentation, as Pydantic models of the modalities that the server's models know."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, create_model, model_validator

from common.text import printable

Model = TypeVar("Model", bound="SegmentOptions")


def series_numbers(text: Any) -> Any:
    """Return modality -> SeriesNumber from ``t1c=7, flair=4``; None if it is empty; what is no text as it is."""
    if not isinstance(text, str):
        return text
    parts = text.split(",") if text else []
    pairs = [pair for part in parts if (pair := re.fullmatch(r"\s*(\w+)\s*=\s*([\w-]+)\s*", part))]
    if len(pairs) < len(parts):
        raise ValueError("expected modalities and SeriesNumbers, such as t1c=7, flair=4")
    given = {pair[1]: pair[2] for pair in pairs}
    if len(given) < len(pairs):
        raise ValueError("a modality is given twice; give each once")
    return given or None


class SegmentOptions(BaseModel):
    """Options of a segmentation; `options_for` adds ``use_t1`` and the like, of which False leaves a modality out."""

    model_config = ConfigDict(extra="forbid")

    series: Annotated[dict[str, str | int] | None, BeforeValidator(series_numbers)] = None
    skull_strip: Literal["auto", "yes", "no"] = "auto"
    label: Annotated[str, Field(max_length=100)] = ""
    decision: Literal["threshold", "expected_dice", "by_sequences"] | None = None

    @property
    def modalities(self) -> list[str]:
        """The modalities that may be used."""
        return [name.removeprefix("use_") for name, used in self if name.startswith("use_") and used]

    @model_validator(mode="after")
    def _uses_one(self) -> Self:
        if not self.modalities:
            raise ValueError("All modalities are left out; use at least one")
        numbers = [str(number) for number in (self.series or {}).values()]
        if twice := next((number for number in numbers if numbers.count(number) > 1 and number != "none"), None):
            raise ValueError(f"series: {printable(twice)} is given for two modalities; choose one for each")
        return self


class InferOptions(SegmentOptions):
    """Options of MONAI Label's clients, which also send some that mean nothing here, such as the result's dtype."""

    model_config = ConfigDict(extra="ignore")

    store: bool = False
    save_label: bool = False
    result_extension: Literal[".nii.gz", ".nii", ".nrrd"] = ".nii.gz"


def options_for(base: type[Model], modalities: Sequence[str]) -> type[Model]:
    """Return a model of options with a ``use_<modality>`` for each modality, True by default."""
    fields: dict[str, Any] = {f"use_{name}": (bool, True) for name in modalities}
    return create_model(base.__name__, __base__=base, **fields)


class Segment(BaseModel):
    """A segment of a client's label map, as 3D Slicer describes it; ``idx``, if any, is its position from 1 on."""

    name: str
    idx: int | None = None


class LabelParams(BaseModel):
    """What a client says of a label map: the meaning of its values 1, 2, ...; None: they are those of the labels."""

    label_info: list[Segment] | None = None
