"""What a training consists of, and the check of its settings."""

import difflib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from monai.bundle import ConfigParser

from common.io.bundle import bundle_root
from common.io.settings import optional
from common.text import shortened


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


def check_settings(
    files: Sequence[str], settings: Mapping[str, Any], bundle_root: str | os.PathLike | None = None
) -> None:
    """Refuse settings that config files cannot be given, before anything runs.

    A key has to be in the merged files, except that an object accepts any argument of its class, and
    ``evaluation#overrides`` any key of the evaluation's own configs. A number cannot become a text, unless that is null
    or an expression (``$...``, ``@...``, ``%...``). Raises ValueError if a file is not JSON, a key is unknown (the
    message suggests the nearest known one), or a text is given for a number.

    Args:
        files: config files; later ones override earlier ones.
        settings: key -> value. A nested key has all keys above it, e.g. ``train#optimizer#lr``.
        bundle_root: folder of the bundle; by default that of the first file.
    """
    for file in files:
        try:
            ConfigParser.load_config_file(file)
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{file}: not a JSON config ({error}).") from error
    config = ConfigParser(ConfigParser.load_config_files(list(files)))
    folder = Path(bundle_root, "configs") if bundle_root else Path(files[0]).parent
    for key, value in settings.items():
        _require_key(key, config, files, folder)
        number = config.get(key)
        text = isinstance(value, str) and value[:1] not in ("$", "@", "%") and optional(value) is not None
        if text and isinstance(number, int | float) and not isinstance(number, bool):
            raise ValueError(f"{key} {value!r}: expected a number, such as {number}.")


def _require_key(key: str, config: ConfigParser, files: Sequence[str], folder: Path) -> None:
    """Refuse a key that config files do not have and may not be given; ``folder`` has the evaluation's configs."""
    outer, _, inner = key.rpartition("#")
    if outer == "evaluation#overrides":
        above = ConfigParser.load_config_files([str(folder / name) for name in config["evaluation_configs"]])
        known = inner in above
    else:
        if outer:
            _require_key(outer, config, files, folder)
        above = config.get(outer)
        known = isinstance(above, dict | list) and ("_target_" in above or key in config)
    if not known:
        names = list(above) if isinstance(above, dict) else []
        near = difflib.get_close_matches(inner, names, n=1)
        hint = f"did you mean {key.removesuffix(inner)}{near[0]}?" if near else f"expected one of {shortened(names)}."
        raise ValueError(f"{key!r} is not a key of {', '.join(map(str, files))}; {hint}")
