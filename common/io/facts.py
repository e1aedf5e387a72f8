"""The record of the training in a weights file: cohort, modalities, windows, voxel size, recipe.

These facts are JSON inside the file, where TorchScript keeps extra files, so that they cannot be lost, or be those of
other weights. ``torch.load`` ignores them, and the file stays a plain state dict. They are data: texts that a config
would evaluate are refused, and code that they name is not imported.
"""

import hashlib
import json
import os
import zipfile
from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field

from common import __version__
from common.io.documents import Document, parse_json

PLACE = "archive/extra/training.json"
"""Name of the facts in a weights file, which is a zip file."""
TRUSTED = ("monai.networks.nets.", "common.networks.")
"""Beginning of the dotted names of networks that facts may name; other code has to be named by the user."""


def _plain(value: Any) -> Any:
    """Refuse what is no text, number or list of these, and text that a config would evaluate."""
    if isinstance(value, str) and (not value.isprintable() or value[:1] in ("$", "@", "%")):
        raise ValueError(f"{value[:100]!r}; expected a text on one line that does not begin with $, @ or %")
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if not isinstance(value, str | float | int | None):
        raise ValueError(f"{str(value)[:100]}; expected a text, a number, or a list of these")
    return value


Text = Annotated[str, AfterValidator(_plain)]
Setting = Annotated[Any, AfterValidator(_plain)]


class TrainingFacts(Document):
    """The record of the training in a weights file.

    Attributes:
        method: name of the method, for reports.
        bundle: name of the bundle.
        version: version of the bundle.
        cases: number of training cases; 0 if unknown.
        modalities: modalities that at least one training case had; empty if unknown.
        recipe: names of the config files over ``train.json``.
        before: what the weights were before this training; empty if it began at random.
        patients: `patient_digest` of all patients whose images the weights have seen, sorted; empty if unknown.
        preprocessing: names of the steps that the images went through; empty if unknown.
        settings: those that inference needs, by its keys; of several networks also ``ensemble`` and ``mirror_axes``.
    """

    model_config = ConfigDict(extra="ignore")
    method: Text
    bundle: Text
    version: Text = __version__
    cases: int = Field(default=0, ge=0)
    modalities: list[Text] = Field(default=[])
    recipe: list[Text] = Field(default=[])
    before: Text = ""
    patients: list[Text] = Field(default=[])
    preprocessing: list[Text] = Field(default=[])
    settings: dict[Text, Setting] = Field(default={})

    @property
    def trained_on(self) -> str:
        """Description of the training data, for ``The weights were trained on ...``."""
        if not self.cases:
            return self.before
        cohort, recipe = self.settings.get("cohort", "an unknown cohort"), " and ".join(self.recipe)
        if cohort.startswith("{"):  # the text of the file that describes the data set
            cohort = json.loads(cohort)["name"]
        seen = f" with images of {_listed(self.modalities)}" if self.modalities else ""
        by = f", by {recipe}" if recipe else ""
        return f"{self.cases} cases of {cohort}{seen}{by}" + (f"; before that on {self.before}" if self.before else "")


def patient_digest(cohort: str, patient: str) -> str:
    """Return the SHA-256 of a cohort and a patient, since a name in a file that is shared may tell who it is."""
    return hashlib.sha256(f"{cohort}/{patient}".encode()).hexdigest()


def write_facts(facts: TrainingFacts, path: str | os.PathLike) -> None:
    """Add facts to a weights file that `torch.save` has just written; the same facts give the same bytes."""
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(zipfile.ZipInfo(PLACE), facts.model_dump_json())


def read_facts(path: str | os.PathLike) -> TrainingFacts | None:
    """Return the facts in a weights file; None if it has none, or is not a weights file.

    Raises:
        ValueError: if the facts are not of this form.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            text = archive.read(PLACE)
    except (OSError, KeyError, zipfile.BadZipFile):
        return None
    return parse_json(text, TrainingFacts, f"{path}, {PLACE}", "The file was changed; use another checkpoint.")


def setting_of_weights(path: str | os.PathLike, key: str, default: Any) -> Any:
    """Return a setting that weights were trained with (``settings``, ``method`` or ``modalities``), else the default.

    Raises:
        ValueError: if it has another type than the default, or is a network's class that is neither ours nor MONAI's.
    """
    facts = read_facts(path)
    value = None if facts is None else facts.settings.get(key, getattr(facts, key, None))
    if facts is None or (key not in facts.settings and not value):
        return default
    kinds = {float if isinstance(each, int) else type(each) for each in (value, default) if each is not None}
    if len(kinds) > 1:
        raise ValueError(f"{path}: its network was trained with {key} {value!r}; expected a value such as {default!r}.")
    if key == "backbone" and value and "." in value and not value.startswith(TRUSTED):
        raise ValueError(
            f"{path}: its network was trained with the network {value}. A weights file must not choose which code is "
            f"imported: if you trust this network, give --backbone {value}."
        )
    return value


def unseen(used: Sequence[str], seen: Sequence[str] | None) -> str | None:
    """Return a warning of modalities that are used but were in no training case; None if there are none."""
    new = [name for name in used if name not in (seen or used)]
    if not new or not seen:
        return None
    verdict = "do not trust the result." if new == list(used) else "the result may be better without."
    return f"The network never saw {_listed(new)} in training, only {_listed(seen)}: {verdict}"


def _listed(modalities: Sequence[str]) -> str:
    from common.modalities import display_subset  # imports PyTorch

    return display_subset("+".join(modalities))
