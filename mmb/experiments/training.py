"""What a training of a list consists of."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.io.bundle import bundle_root


@dataclass(frozen=True)
class Entry:
    """A training: a bundle with some of its configs, and settings.

    Attributes:
        name: name of the training, e.g. that of its method in tables.
        bundle: name of the bundle.
        configs: names of config files in the bundle's ``configs``, merged over its ``train.json``.
        settings: config keys to set, with their values.
    """

    name: str
    bundle: str
    configs: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)

    @property
    def files(self) -> list[str]:
        """Paths of the config files; later ones override earlier ones."""
        return [str(Path(bundle_root(self.bundle), "configs", name)) for name in ("train.json", *self.configs)]

    def config(self) -> dict[str, Any]:
        """Return the merged configs with the settings over them; references and expressions are not resolved."""
        parser = ConfigParser(ConfigParser.load_config_files(self.files))
        parser.update(dict(self.settings))
        return parser.get()
