"""Storage of cases' results on disk, so that an interrupted evaluation can continue."""

import logging
import uuid
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from common.evaluation.metrics.case import CASE_COLUMNS, CaseResult
from common.evaluation.metrics.results import BIN_COLUMNS, read_rows, write_results
from common.io.digest import UnknownError, digest, files_of
from common.io.files import replacing

logger = logging.getLogger(__name__)


class CaseStore:
    """Store of cases' results, which are written as soon as they are computed.

    ``folder`` holds ``<case>-<digest>.csv`` (the rows) and ``.npz`` (the arrays). The digest is of everything
    that the result depends on: the item, its files, and ``settings``, which has to contain all the rest, as values and
    as code. So after a change of settings, code, weights or images, no file is found, and the case is evaluated again.
    """

    def __init__(self, folder: str | Path, settings: Sequence[Any], items: Sequence[Mapping[str, Any]]) -> None:
        for case, count in Counter(item["case"] for item in items).items():
            if count > 1:
                raise ValueError(
                    f"Case {case} is listed {count} times; name each case once in the datalist, and calibrate on other "
                    "cases than those evaluated (keys `part` and `calibrate_on`; null for none)."
                )
        try:
            recipe = digest(CaseStore, *settings)
        except UnknownError as error:
            recipe = uuid.uuid4().hex
            logger.warning(f"No result of an earlier evaluation is used, since {error}.")
        self.folder, self.items = Path(folder), items
        self.paths = {
            item["case"]: self.folder / f"{item['case']}-{digest(recipe, item, files_of(item))}.csv" for item in items
        }

    def pending(self) -> list[Mapping[str, Any]]:
        """Return the items that have no result yet."""
        paths = {case: (path, path.with_suffix(".npz")) for case, path in self.paths.items()}
        return [item for item in self.items if not all(path.is_file() for path in paths[item["case"]])]

    def write(self, result: CaseResult) -> None:
        """Write the result of a case."""
        path = self.paths[result.case]
        arrays: dict[str, Any] = {f"plane/{name}": plane for name, plane in result.planes.items()}
        arrays |= {f"latent/{name}": features for name, features in result.latents.items()}
        arrays |= {f"bins/{name}": np.array(result.bins[name].tolist()) for name in BIN_COLUMNS}
        with replacing(path.with_suffix(".npz")) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, seconds=result.seconds, memory_mb=result.memory_mb, **arrays)
        write_results(result.results, path)  # written last, to mark the result as complete

    def read(self, case: str, planes: bool = True) -> CaseResult:
        """Return the result of a case that has one; without ``planes`` those of all cases fit into memory."""
        path = self.paths[case]
        groups: dict[str, dict[str, np.ndarray]] = {"plane": {}, "latent": {}, "bins": {}}
        with np.load(path.with_suffix(".npz")) as arrays:
            for key in arrays.files:
                if "/" in key and (planes or not key.startswith("plane/")):
                    group, name = key.split("/", 1)
                    groups[group][name] = arrays[key]
            cost = {key: float(arrays[key]) for key in ("seconds", "memory_mb")}
        bins = pd.DataFrame(groups["bins"])
        return CaseResult(case, read_rows(path, CASE_COLUMNS), bins, groups["latent"], groups["plane"], **cost)
