"""An archive with studies and a server that uses it, for the tests that need both."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel as nib
from dicom_studies import STUDY, Scan, edit_series, write_study
from orthanc import orthanc, upload
from phantom_case import HEAD, weights_of_patients, write_case
from pydicom.uid import JPEG2000Lossless, generate_uid
from running import server

PATIENTS = {
    "four": {"PatientName": "Secret^Phantom", "PatientID": "SECRET-0815", "PatientBirthDate": "19700101"},
    "two": {"PatientName": "Other^Secret", "PatientID": "SECRET-4711", "PatientBirthDate": "19800102"},
    "one": {"PatientName": "Third^Secret", "PatientID": "SECRET-0042", "PatientBirthDate": "19900103"},
}
SERIES = {"four": (1, 2, 3, 4, 6), "two": (3, 4), "one": (4,)}
"""Of `dicom_studies.STUDY`, by SeriesNumber: 1 localizer, 2 T1, 3 T2 (axial, slices in reverse), 4 FLAIR, 6 T1c."""
SECRETS = re.compile(r"secret|1970|1980|1990|\d+\.\d+\.\d+\.\d+\.\d+", re.IGNORECASE)
"""What must not appear in a log: patients' data and UIDs."""


@dataclass(frozen=True)
class Stack:
    """The running archive and server.

    Attributes:
        archive: address of Orthanc.
        url: address of the server.
        folder: has ``server.log``, ``tmp`` and, by name, the studies as they were uploaded.
        label: the tumours, in the patient.
    """

    archive: str
    url: str
    folder: Path
    label: nib.Nifti1Image

    def log(self) -> str:
        """Return what the server has logged, without addresses."""
        text = (self.folder / "server.log").read_text()
        return text.replace(f"{self.archive}/dicom-web", "").replace(self.url, "")


def uid(study: str, number: int | None = None) -> str:
    """Return the StudyInstanceUID of a study, or the SeriesInstanceUID of one of its series."""
    return generate_uid(entropy_srcs=[study] if number is None else [study, str(number)])


@contextmanager
def running(folder: Path) -> Iterator[Stack]:
    """Run Orthanc with the studies, and a server for it with m3ae."""
    label = write_studies(folder)
    with orthanc(folder) as archive:
        for study in SERIES:
            upload(archive, folder / study)
        options = {"models": "m3ae", "m3ae.ckpt_path": str(weights_of_patients(folder))}
        with server(folder, f"{archive}/dicom-web", **options) as url:
            yield Stack(archive, url, folder, label)


def write_studies(folder: Path) -> nib.Nifti1Image:
    """Write each study into a folder of its name, FLAIR in JPEG 2000; return the tumours, which all of them have."""
    label = write_case(folder / "subject", "case", box=HEAD)
    for study, numbers in SERIES.items():
        write_study(folder / study, folder / "subject", _scans(numbers), PATIENTS[study], seed=study)
        edit_series(folder / study, 4, lambda image: image.compress(JPEG2000Lossless, generate_instance_uid=False))
    return label


def _scans(numbers: tuple[int, ...]) -> list[Scan]:
    return [replace(scan, moved=None) for scan in STUDY if scan.number in numbers]  # registration has tests elsewhere
