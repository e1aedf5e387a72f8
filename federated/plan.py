"""The plan of a federation, as a JSON file: a bundle, a recipe, the number of rounds, and the sites."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from monai.bundle import ConfigParser
from torch import nn

from common.engines import seed_all
from common.io import check_counts
from common.io.settings import check_choice, check_number
from common.methods.step import TrainingStep
from common.networks import modality_parts
from common.release.lists import Entry
from federated.joining import identity, require_same

AGGREGATIONS = ("per_modality", "fedavg")
OWN_SETTINGS = ("bundle_root", "epochs", "val_interval", "evaluate_on", "output_dir", "resume", "init_from")
"""Config keys that a federation sets itself; a plan must not set them."""


@dataclass(frozen=True)
class Plan:
    """The plan of a federation.

    Attributes:
        name: name of the job and its folder: letters, digits, ``_`` and ``-``, as in those of the sites.
        bundle: name of the bundle.
        rounds: number of rounds in which weights are exchanged.
        sites: name -> the site's own config keys: its ``dataset_dir``, and optionally ``datalist`` or ``split``.
        configs: names of files in the bundle's ``configs``, as overlays on ``train.json``, e.g.
            ``recipes/open_glioma.json``.
        settings: config keys for all sites.
        local_epochs: number of epochs in a round.
        round_hours: hours after which a site that has not answered is left out of the round, and its training ended.
        aggregation: ``per_modality``, or ``fedavg`` for the whole network; see `federated.aggregation`.
        init_from: weights that the first round starts from, a file on the server; None starts from random weights.
        start_round: number of the first round, to continue an interrupted federation.

    Raises:
        ValueError: if the value of a key is invalid.
    """

    name: str
    bundle: str
    rounds: int
    sites: Mapping[str, Mapping[str, Any]]
    configs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    local_epochs: int = 1
    round_hours: float = 24
    aggregation: str = "per_modality"
    init_from: str | None = None
    start_round: int = 0

    def __post_init__(self) -> None:
        """Check everything that can be checked without the sites."""
        for kind, name in [("name", self.name), *(("site", site) for site in self.sites)]:
            if not re.fullmatch(r"[A-Za-z0-9][\w-]*", str(name)):
                raise ValueError(f"{kind} {name!r}: expected letters, digits, _ and -, since it names a folder.")
        check_counts(rounds=self.rounds, local_epochs=self.local_epochs)
        check_number("round_hours", self.round_hours, 0.01, 8760)
        check_choice("aggregation", self.aggregation, AGGREGATIONS)
        if not 0 <= self.start_round < self.rounds:
            raise ValueError(f"start_round {self.start_round}: expected one of the {self.rounds} rounds, from 0.")
        if not self.sites:
            raise ValueError("sites: expected at least one, with its dataset_dir.")
        for site, own in self.sites.items():
            if not os.path.isabs(own.get("dataset_dir", "")):
                raise ValueError(f"site {site}: dataset_dir {own.get('dataset_dir')!r}; expected an absolute path.")
        for keys in (self.settings, *self.sites.values()):
            if taken := [key for key in keys if key in OWN_SETTINGS]:
                raise ValueError(f"{taken[0]}: the federation sets this key itself; leave it out.")

    @property
    def cohort(self) -> str:
        """Name of the cohort of all sites."""
        return self.parser().get_parsed_content("cohort")

    @property
    def files(self) -> tuple[str, ...]:
        """The config files in the bundle's ``configs``; later ones override earlier ones."""
        return ("train.json", *self.configs)

    def identity(self) -> dict[str, str]:
        """Return the identity of this installation; see `federated.joining.identity`."""
        return {**identity(self.bundle, self.files), "cohort": self.cohort}

    def parts(self) -> dict[str, list[str]]:
        """Return sequence -> parts of the network that are averaged over the sites that have the sequence."""
        if self.aggregation == "fedavg":
            return {}
        parser = self.parser()
        modalities = parser.get_parsed_content("cohort_def").modalities
        return modality_parts(parser.get_parsed_content("network_def"), modalities)

    def network(self) -> nn.Module:
        """Return the bundle's network with the initial weights of a training with its seed."""
        parser = self.parser()
        seed_all(parser.get_parsed_content("seed"))
        return parser.get_parsed_content("network_def")

    def to_json(self) -> str:
        """Return the plan as text for `read_plan`."""
        return json.dumps(vars(self), indent=4)

    def of_site(self, site: str) -> Plan:
        """Return the plan for one site, without the locations of the others' data."""
        return replace(self, sites={site: self.sites[site]})

    def settings_of(self, site: str, output_dir: str | os.PathLike) -> dict[str, Any]:
        """Return the config keys of a site's training, in the form that MONAI takes."""
        epochs = self.rounds * self.local_epochs  # for the learning-rate schedule, which continues over the rounds
        settings = {
            **self.settings,
            **self.sites[site],
            "epochs": epochs,
            "val_interval": epochs + 1,  # no validation in training: each round's weights are validated before it
            "evaluate_on": None,
            "output_dir": str(output_dir),
            "quiet": True,
        }
        return {key: "$None" if value is None else value for key, value in settings.items()}

    def parser(self, settings: Mapping[str, Any] | None = None) -> ConfigParser:
        """Return a parser of the bundle's configs with these settings (None: those for all sites), unevaluated."""
        settings = self.settings if settings is None else settings
        return ConfigParser(Entry(self.name, self.bundle, tuple(self.configs), settings).config())


def read_plan(text: str, source: str | os.PathLike) -> Plan:
    """Return the plan in a JSON text.

    Args:
        text: an object with the attributes of `Plan`; ``_desc_`` is for readers.
        source: name of the text in messages.

    Raises:
        ValueError: if it is not a valid plan; the message names the key.
    """
    known = {each.name for each in fields(Plan)}
    try:
        keys = {key: value for key, value in json.loads(text).items() if key != "_desc_"}
        if unknown := [key for key in keys if key not in known]:
            raise ValueError(f"unknown key {unknown[0]!r}; expected some of {', '.join(sorted(known))}.")
        return Plan(**keys)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{source}: {error}") from error


class PlannedNetwork(TrainingStep):
    """The network of a plan, in the form that NVFlare's server creates: a class with plain arguments.

    Args:
        plan: the plan as JSON text, since NVFlare would interpret a dot in a key as a level.
        expected: identity that this installation must share with the sites; see `federated.joining.identity`.

    Raises:
        RefusedError: if this installation has another identity.
    """

    def __init__(self, plan: str, expected: dict[str, str]) -> None:
        super().__init__()
        here = read_plan(plan, "plan")
        require_same(here.identity(), expected)
        self.network = here.network()
