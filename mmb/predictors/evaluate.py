"""Evaluation of a predictor that is no bundle: every case with each subset of the modalities that it can segment."""

import logging
from collections.abc import Mapping
from pathlib import Path
from time import perf_counter
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import Orientationd
from nibabel.affines import voxel_sizes
from tqdm import tqdm

from common.cohorts import get_cohort, prepare, take
from common.cohorts.cohort import Cohort
from common.engines.efficiency import peak_memory_mb, reset_peak_memory
from common.engines.evaluate import Report
from common.evaluation.metrics.case import CaseMeasure, CaseResult
from common.evaluation.metrics.conventions import Conventions
from common.evaluation.metrics.store import CaseStore
from common.io.files import require_writable
from common.io.lock import lock_folder, unlock_folder
from common.modalities import subset_name
from common.text import shortened
from common.transforms.decision import DECISIONS, decide
from common.transforms.load import LoadSubjectd
from mmb.predictors.nnunet import NnUNet, NnUNets

logger = logging.getLogger(__name__)


def evaluate_predictor(
    predictor: NnUNet | NnUNets,
    output_dir: str | Path,
    cohort: str,
    dataset_dir: str | Path,
    conventions: Mapping[str, Any],
    method: str | None = None,
    split: str | None = None,
    datalist: str | None = None,
    part: str = "test",
    calibrate_on: str | None = "validation",
) -> None:
    """Measure a predictor on a part of a cohort, and write what an evaluation of a bundle writes (`Report`).

    Cases are measured as they are stored, on the grid of their files; one that was measured before with the same
    weights is not measured again. Raises ValueError if the cohort's regions are not those of the predictor, or no case
    has one of its subsets.
    """
    definition = get_cohort(cohort)
    if lacking := [name for name in definition.labels.regions if name not in predictor.cohort.labels.regions]:
        raise ValueError(f"{predictor.method}: does not segment {', '.join(lacking)}, which {cohort} has.")
    require_writable(output_dir)
    data = prepare(cohort, dataset_dir, split, datalist)
    cases, calibration = take(data, part), take(data, calibrate_on)
    if unknown := [item["case"] for item in [*cases, *calibration] if not _subsets(predictor, item)]:
        names = ", ".join(map(subset_name, predictor.subsets))
        raise ValueError(
            f"{shortened(unknown)}: with none of the subsets that {predictor.method} can segment: {names}. Leave such "
            "cases out by a datalist."
        )
    logger.warning(f"{predictor.method}: does not say which patients it was trained on; make sure these are others.")
    report = Report(
        method=method or predictor.method, cohort=cohort, conventions=conventions, decision=DECISIONS[0],
        data=data, cases=cases, calibration_cases=calibration,
        subsets=predictor.subsets, window=predictor.window, spacing=predictor.spacing,
        facts={"weights": predictor.weights_name, "part": part, "split": split}, output_dir=str(output_dir),
    )  # fmt: skip
    settings = [type(predictor), predictor.weights_name, predictor.version, dict(conventions), predictor.subsets]
    store = CaseStore(Path(output_dir, "cases"), settings, [*calibration, *cases])
    lock_folder(output_dir)
    try:
        for item in tqdm(store.pending(), desc=report.method, unit="case"):
            store.write(_measured(predictor, item, definition, report))
        report.write(store, None)
    finally:
        unlock_folder(output_dir)


def _subsets(predictor: NnUNet | NnUNets, item: Mapping[str, Any]) -> list[tuple[str, ...]]:
    """Return the subsets that a case has and the predictor knows, the largest first."""
    known = [tuple(subset) for subset in predictor.subsets if {*subset} <= {*item["modalities"]}]
    return sorted(known, key=len, reverse=True)


def _measured(predictor: NnUNet | NnUNets, item: Mapping[str, Any], cohort: Cohort, report: Report) -> CaseResult:
    loaded, labels, own = LoadSubjectd(report.cohort)(item), cohort.labels, predictor.cohort.labels
    affine = loaded["image"].affine.numpy()
    to_ras = Orientationd(["image", "label", "pred"], axcodes="RAS", labels=None, allow_missing_keys=True)
    upright: dict[Any, Any] = to_ras({key: loaded[key] for key in ("image", "label")})
    spacing = voxel_sizes(upright["label"].affine.numpy())
    arrays = upright["label"][0].numpy(), upright["image"].numpy()
    measure = CaseMeasure(item["case"], *arrays, cohort.modalities, spacing, labels, Conventions(**report.conventions))
    volumes = dict(zip(cohort.modalities, loaded["image"].numpy(), strict=True))
    order = [list(own.regions).index(name) for name in labels.regions]
    subsets, start = _subsets(predictor, item), perf_counter()
    reset_peak_memory(predictor.device)
    for subset in subsets:
        made = predictor.using(subset).run({name: nib.Nifti1Image(volumes[name], affine) for name in subset})
        label = labels.adopt(torch.from_numpy(made.label)[None], own)
        regions = torch.from_numpy(made.probabilities[order])
        decided = [decide(name, label, regions, labels, subset_name(subset)) for name in DECISIONS]
        stack = MetaTensor(torch.cat([*decided, regions]), affine=loaded["label"].affine)
        turned = to_ras({"pred": stack})["pred"].numpy()
        maps = {name: turned[n].astype(np.int16) for n, name in enumerate(DECISIONS)}
        measure.add(subset_name(subset), maps, turned[len(DECISIONS) :])
    result = measure.result({}, (perf_counter() - start) / len(subsets))
    result.memory_mb = peak_memory_mb(predictor.device)
    return result
