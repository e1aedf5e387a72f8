"""The plan of a federation, as a JSON file: a bundle, a recipe, the number of rounds, and the sites."""

import os
from collections.abc import Mapping
from typing import Annotated, Any, Self

from monai.bundle import ConfigParser
from pydantic import Field, model_validator
from torch import nn

from common.engines.handlers import seed_all
from common.io.documents import Document, read_json
from common.networks.step import TrainingStep
from common.run.keys import check_config
from mmb.experiments.federation.identity import identity, require_same
from mmb.experiments.training import Entry

OWN_SETTINGS = ("bundle_root", "epochs", "val_interval", "evaluate_on", "output_dir", "resume", "init_from")
"""Config keys that a federation sets itself; a plan must not set them."""


Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][\w-]*$")]
"""A name of a job or a site; it names a folder, too."""


class Plan(Document):
    """The plan of a federation; `read_plan` reads one from a file.

    Attributes:
        name: name of the job and its folder; like the names of sites, of letters, digits, ``_`` and ``-``.
        bundle: name of the bundle.
        rounds: number of rounds in which weights are exchanged.
        sites: name -> the site's own config keys: its ``dataset_dir``, and optionally ``datalist`` or ``split``.
        configs: names of files in the bundle's ``configs``, as overlays on ``train.json``, e.g.
            ``recipes/open_glioma.json``.
        settings: config keys for all sites.
        local_epochs: number of epochs in a round.
        round_hours: hours after which a site that has not answered is left out of the round, and its training is ended.
        init_from: file on the server with the weights that the first round starts from; None for random weights.
        start_round: number of the first round, to continue an interrupted federation.
    """

    name: Name
    bundle: str
    rounds: int = Field(ge=1)
    sites: dict[Name, dict[str, Any]] = Field(min_length=1)
    configs: tuple[str, ...] = ()
    settings: dict[str, Any] = Field(default_factory=dict)
    local_epochs: int = Field(1, ge=1)
    round_hours: float = Field(24, ge=0.01, le=8760)
    init_from: str | None = None
    start_round: int = 0

    @model_validator(mode="after")
    def _check(self) -> Self:
        """Check the folders of sites, and keys that depend on each other."""
        if not 0 <= self.start_round < self.rounds:
            raise ValueError(f"start_round {self.start_round}: expected one of the {self.rounds} rounds, from 0.")
        for site, own in self.sites.items():
            if not os.path.isabs(str(own.get("dataset_dir", ""))):
                raise ValueError(f"site {site}: dataset_dir {own.get('dataset_dir')!r}; expected an absolute path.")
        for keys in (self.settings, *self.sites.values()):
            if taken := [key for key in keys if key in OWN_SETTINGS]:
                raise ValueError(f"{taken[0]}: the federation sets this key itself; leave it out.")
        return self

    @property
    def cohort(self) -> str:
        """Name of the cohort of all sites."""
        return self.parser().get_parsed_content("cohort")

    @property
    def files(self) -> tuple[str, ...]:
        """The config files in the bundle's ``configs``; later ones override earlier ones."""
        return ("train.json", *self.configs)

    def identity(self) -> dict[str, str]:
        """Return the identity of this installation; see `mmb.experiments.federation.identity`."""
        return {**identity(self.bundle, self.files), "cohort": self.cohort}

    def network(self) -> nn.Module:
        """Return the bundle's network with the initial weights of a training with its seed."""
        parser = self.parser()
        seed_all(parser.get_parsed_content("seed"))
        return parser.get_parsed_content("network_def")

    def told(self, site: str) -> dict[str, Any]:
        """Return the plan's keys for one site, without the locations of the others' data and without comments."""
        return {key: getattr(self, key) for key in Plan.model_fields} | {"sites": {site: self.sites[site]}}

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

    def training(self, settings: Mapping[str, Any]) -> Entry:
        """Return a training with these settings, in the form of an entry in a list of methods."""
        return Entry(self.name, self.bundle, self.configs, settings)

    def parser(self, settings: Mapping[str, Any] | None = None) -> ConfigParser:
        """Return a parser of the bundle's configs with these settings (None: those for all sites), unevaluated."""
        return ConfigParser(self.training(self.settings if settings is None else settings).config())


def read_plan(path: str | os.PathLike) -> Plan:
    """Return the plan in a JSON file, with the keys of `Plan`; those that begin with ``_`` are comments.

    Raises FileNotFoundError if the file, the bundle or one of its configs does not exist. Raises ValueError, naming the
    key, if the plan is not valid or the bundle's configs have no such settings.
    """
    plan = read_json(path, Plan)
    for keys in plan.sites.values():
        training = plan.training({**plan.settings, **keys})
        try:
            check_config(training.config())
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
    return plan


class PlannedNetwork(TrainingStep):
    """The network of a plan, in the form that NVFlare's server creates: a class with plain arguments.

    The plan is JSON text, since an object would arrive changed: NVFlare takes ``a.b`` as ``b`` within ``a``. Raises
    RefusedError if this installation does not share the identity ``expected`` with the sites; see `identity`.
    """

    def __init__(self, plan: str, expected: dict[str, str]) -> None:
        here = Plan.model_validate_json(plan)
        require_same(here.identity(), expected)
        super().__init__(here.network())
