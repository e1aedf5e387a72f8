"""Results of cases on disk, from which an evaluation that was cut off goes on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.evaluation.case import CaseResult
from common.evaluation.results import BIN_COLUMNS, read_results, write_results
from common.io.files import replacing
from common.io.fingerprint import files_of, fingerprint

FORMAT = 1
"""To be raised when this package comes to measure something else with the same settings."""


class CaseStore:
    """Results of cases, written as they come.

    A file's name holds a fingerprint of what the result depends on: after a change of settings, weights or images it is
    not found, and the case is evaluated anew.

    Args:
        folder: for ``<case>-<fingerprint>.csv`` (the rows) and ``.npz`` (the arrays).
        settings: what results depend on besides the items' files.
    """

    def __init__(self, folder: str | Path, settings: Sequence[Any]) -> None:
        self.folder, self.settings = Path(folder), fingerprint(FORMAT, *settings)
        self.paths: dict[str, Path] = {}

    def pending(self, items: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
        """Return the datalist items that have no result yet; from then on the store knows their cases.

        Raises:
            ValueError: two items have the same case name.
        """
        for case, count in Counter(item["case"] for item in items).items():
            if count > 1:
                raise ValueError(
                    f"Case {case} is listed {count} times; name each case once in the datalist, and calibrate on other "
                    "cases than are evaluated (keys `part` and `calibrate_on`; [] for none)."
                )
        for item in items:
            key = fingerprint(self.settings, item["modalities"], files_of(item))
            self.paths[item["case"]] = self.folder / f"{item['case']}-{key}.csv"
        return [item for item in items if not self._is_whole(item["case"])]

    def write(self, result: CaseResult) -> None:
        """Write the result of a case."""
        path = self.paths[result.case]
        arrays = {f"plane/{name}": plane for name, plane in result.planes.items()}
        arrays |= {f"latent/{name}": features for name, features in result.latents.items()}
        arrays |= {f"bins/{name}": np.array(result.bins[name].tolist()) for name in BIN_COLUMNS}
        with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, seconds=result.seconds, **arrays)
        write_results(result.results, path)  # last: then the result is whole

    def read(self, case: str) -> CaseResult:
        """Return the result of a case that has one."""
        path = self.paths[case]
        with np.load(path.with_suffix(".npz")) as arrays:
            groups: dict[str, dict[str, np.ndarray]] = {"plane": {}, "latent": {}, "bins": {}}
            for key in arrays.files:
                if "/" in key:
                    group, name = key.split("/")
                    groups[group][name] = arrays[key]
            seconds = float(arrays["seconds"])
        bins = pd.DataFrame(groups["bins"])
        return CaseResult(case, read_results(path), bins, groups["latent"], groups["plane"], seconds)

    def _is_whole(self, case: str) -> bool:
        return all(self.paths[case].with_suffix(suffix).is_file() for suffix in (".csv", ".npz"))
