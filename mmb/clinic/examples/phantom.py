"""Synthetic DICOM studies, to try `predict` and the server for viewers on without a patient's data.

The patients are those of `common.cohorts.phantom`. Each study has the series of a tumour protocol (localizer, T1, T2,
FLAIR, T1c and a subtraction) with the headers of a scanner. Its description says that nobody was scanned.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from common.cohorts.phantom.cohort import draw
from common.cohorts.phantom.simulation import SPACING
from common.io.settings import check_counts
from mmb.clinic.disk import new_folder
from mmb.clinic.examples.writing import mr_image, write_series

MPRAGE = {
    "ScanningSequence": ["GR", "IR"], "SequenceVariant": "MP", "MRAcquisitionType": "3D",
    "RepetitionTime": 2200, "EchoTime": 2.67, "InversionTime": 900, "FlipAngle": 8,
}  # fmt: skip
TSE = {
    "ScanningSequence": "SE", "SequenceVariant": "SK", "MRAcquisitionType": "2D",
    "RepetitionTime": 5200, "EchoTime": 98, "FlipAngle": 150,
}  # fmt: skip
FLAIR = {
    "ScanningSequence": ["SE", "IR"], "SequenceVariant": "SK", "MRAcquisitionType": "3D",
    "RepetitionTime": 5000, "EchoTime": 388, "InversionTime": 1800, "FlipAngle": 120,
}  # fmt: skip
AGENT = {"ContrastBolusAgent": "Gadolinium"}
SUBTRACTED = {"ImageType": ["DERIVED", "PRIMARY", "M", "SUB"]}


class _Series(NamedTuple):
    image: str
    """Name of an image of the patient, or a difference of two."""
    description: str
    header: Mapping[str, Any]
    every: int = 1
    """Only every so many slices are there."""


SERIES = (
    _Series("t1", "localizer", MPRAGE, every=13),
    _Series("t1", "t1_mprage_tra", MPRAGE),
    _Series("t2", "t2_tse_tra", TSE),
    _Series("flair", "t2_flair_tra", FLAIR),
    _Series("t1c", "t1_mprage_tra_+C", MPRAGE | AGENT),
    _Series("t1c-t1", "t1_mprage_tra_SUB", MPRAGE | AGENT | SUBTRACTED),
)
"""The series of a study, in the order of their SeriesNumbers from 1."""


def write_studies(folder: str | Path, subjects: int = 3, seed: int = 2023) -> Path:
    """Write the studies, ``<folder>/<case>/<SeriesNumber>/<slice>.dcm``, and return the folder's absolute path.

    It appears only when it is complete. Raises ValueError for less than one subject; FileExistsError if the folder
    holds anything; OSError if it cannot be written.
    """
    check_counts(subjects=subjects)
    with new_folder(folder) as draft:
        for number in range(1, subjects + 1):
            case, images, _ = draw(number, seed)
            _write_study(draft / case, case, f"{seed} {case}", images)
    return Path(folder).expanduser().resolve()


def _write_study(folder: Path, case: str, identity: str, images: Mapping[str, np.ndarray]) -> None:
    for number, series in enumerate(SERIES, start=1):
        first, *others = (images[name].astype(np.int32) for name in series.image.split("-"))
        voxels = np.maximum(first - sum(others), 0).astype(np.uint16)[:, :, :: series.every]
        origin = 0.0, -SPACING * (voxels.shape[1] - 1), 0.0
        header = {"PatientName": case, "PatientID": case, **series.header}
        write_series(
            folder / f"{number:03d}", voxels, origin, (SPACING, SPACING, SPACING * series.every),
            partial(mr_image, identity, number, description=series.description, header=header),
        )  # fmt: skip
