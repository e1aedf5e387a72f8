"""Sending of results to a DICOMweb archive."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client import DICOMwebClient
from requests.adapters import HTTPAdapter

TIMEOUT = (10, 120)  # timeouts in seconds for connecting to an archive, and for its next bytes


def is_url(location: str) -> bool:
    """Return whether a location is the URL of an archive."""
    return location.startswith(("http://", "https://"))


def store(url: str, files: Sequence[Path]) -> str | None:
    """Send DICOM files to an archive, with the user and password from the environment, if set.

    Returns the SeriesInstanceUID of the first, or None if there is none. Raises ValueError if the archive does not
    accept all of them; requests.TooManyRedirects if it leads elsewhere: results are sent nowhere else.
    """
    if not files:
        return None
    datasets = [pydicom.dcmread(file) for file in files]
    with requests.Session() as session:
        user, password = (os.environ.get(f"MONAI_LABEL_DICOMWEB_{name}", "") for name in ("USERNAME", "PASSWORD"))
        session.auth, session.max_redirects = (user, password) if user else None, 0
        for scheme in ("http://", "https://"):
            session.mount(scheme, _Timed())
        answer = DICOMwebClient(url, session=session).store_instances(datasets)
    if answer.get("FailedSOPSequence") or not answer.get("ReferencedSOPSequence"):
        raise ValueError("The archive did not accept the segmentation; see its own log.")
    return str(datasets[0].SeriesInstanceUID)


class _Timed(HTTPAdapter):
    def send(self, request: requests.PreparedRequest, *args: Any, **options: Any) -> requests.Response:
        return super().send(request, *args, **{**options, "timeout": TIMEOUT})
