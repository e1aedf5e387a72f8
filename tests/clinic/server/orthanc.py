"""A PACS for the tests: Debian's Orthanc with its DICOMweb plugin, on a free port, in a separate folder."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from processes import free_port, serving

PROGRAM = "/usr/sbin/Orthanc"
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
needs_orthanc = pytest.mark.skipif(not Path(PLUGIN).is_file(), reason="Debian's packages orthanc and orthanc-dicomweb")


@contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """Run a server that keeps its files in a folder; yield its address, below which is ``/dicom-web``."""
    port = free_port()
    config = {
        "StorageDirectory": str(folder / "storage"), "IndexDirectory": str(folder / "storage"), "HttpPort": port,
        "DicomServerEnabled": False, "RemoteAccessAllowed": False, "AuthenticationEnabled": False,
        "Plugins": [PLUGIN], "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }  # fmt: skip
    (folder / "orthanc.json").write_text(json.dumps(config))
    url = f"http://127.0.0.1:{port}"
    with serving([PROGRAM, str(folder / "orthanc.json")], f"{url}/system", folder / "orthanc.log"):
        yield url


def upload(url: str, study: Path) -> None:
    """Store every DICOM file below a folder."""
    for path in sorted(study.rglob("*.dcm")):
        requests.post(f"{url}/instances", data=path.read_bytes(), timeout=30).raise_for_status()


def series(url: str, modality: str) -> list[str]:
    """Return the names that Orthanc gives to the series of a modality."""
    query = {"Level": "Series", "Query": {"Modality": modality}}
    return requests.post(f"{url}/tools/find", json=query, timeout=30).json()
