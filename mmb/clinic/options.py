"""How studies are segmented: what the console, the server and programs may ask for."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from common.io.settings import check_choice
from common.transforms.decision import DECISIONS
from mmb.clinic.recognise.site import SiteTable

MODES = ("auto", "yes", "no")
"""Modes of skull stripping: if a head is visible, always, never."""


@dataclass(frozen=True)
class Options:
    """The options of the verb ``predict``, which `mmb.verbs.predict` describes. ValueError for an unknown choice.

    ``site`` is a table that `mmb.clinic.recognise.site.read_site` returns.
    """

    bundle: str = "m3ae"
    recipe: str | None = None
    ckpt_path: str | None = None
    device: str | None = None
    decision: str | None = None
    series: Mapping[str, Any] | None = None
    modalities: Sequence[str] | None = None
    reference: str | None = None
    skull_strip: str = MODES[0]
    label: str = ""
    keep_images: bool = False
    site: SiteTable | None = None

    def __post_init__(self) -> None:
        check_choice("--skull_strip", self.skull_strip, MODES)
        if self.decision is not None:
            check_choice("--decision", self.decision, DECISIONS)

    @property
    def network(self) -> tuple[str, str | None, str | None, str | None]:
        """The first four, which say what network segments."""
        return self.bundle, self.recipe, self.ckpt_path, self.device
