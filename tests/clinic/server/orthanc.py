"""A PACS for the tests: Debian's Orthanc with its DICOMweb plugin, on a free port, in a separate folder."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests
from processes import free_port

PROGRAM = "/usr/sbin/Orthanc"
PLUGIN = "/usr/share/orthanc/plugins/libOrthancDicomWeb.so"
needs_orthanc = pytest.mark.skipif(not Path(PLUGIN).is_file(), reason="Debian's packages orthanc and orthanc-dicomweb")


@contextmanager
def orthanc(folder: Path) -> Iterator[str]:
    """Run a server that keeps its files in a folder; yield its address, below which is ``/dicom-web``."""
    port = free_port()
    config = {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "HttpPort": port,
        "DicomServerEnabled": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "Plugins": [PLUGIN],
        "DicomWeb": {"Enable": True, "Root": "/dicom-web/"},
    }
    (folder / "orthanc.json").write_text(json.dumps(config))
    with open(folder / "orthanc.log", "wb") as log:
        process = subprocess.Popen([PROGRAM, str(folder / "orthanc.json")], stdout=log, stderr=log)
    url = f"http://127.0.0.1:{port}"
    try:
        _wait(url, process, folder / "orthanc.log")
        yield url
    finally:
        process.terminate()
        process.wait(30)


def upload(url: str, study: Path) -> None:
    """Store every DICOM file below a folder."""
    for path in sorted(study.rglob("*.dcm")):
        requests.post(f"{url}/instances", data=path.read_bytes(), timeout=30).raise_for_status()


def series(url: str, modality: str) -> list[str]:
    """Return the names that Orthanc gives to the series of a modality."""
    query = {"Level": "Series", "Query": {"Modality": modality}}
    return requests.post(f"{url}/tools/find", json=query, timeout=30).json()


def _wait(url: str, process: subprocess.Popen, log: Path) -> None:
    for _ in range(100):
        if process.poll() is not None:
            break
        try:
            requests.get(f"{url}/system", timeout=5).raise_for_status()
            return
        except requests.RequestException:
            time.sleep(0.2)
    raise RuntimeError(f"Orthanc did not start:\n{log.read_text()}")
