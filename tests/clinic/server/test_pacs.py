"""The script of docs/pacs.md, with a PACS: studies come, are segmented, and their results go back."""

import subprocess
from dataclasses import replace
from pathlib import Path

from dicom_studies import STUDY, write_study
from orthanc import needs_orthanc, orthanc, series, upload
from phantom_case import HEAD, weights_of_patients, write_case
from test_commands import FILE, ROOT, run_with

pytestmark = needs_orthanc


def test_studies_come_and_results_go_back(tmp_path):
    """Those of weights for phantoms, which are not to be used, do not."""
    ((_, script),) = FILE.findall(Path(ROOT, "docs/pacs.md").read_text())
    write_case(tmp_path / "subject", "case", box=HEAD)
    for study, numbers in {"four": (1, 2, 3, 4, 6), "two": (3, 4)}.items():
        scans = [replace(scan, moved=None) for scan in STUDY if scan.number in numbers]
        patient = {"PatientName": f"Secret^{study}", "PatientID": f"SECRET-{study}", "PatientBirthDate": "19700101"}
        write_study(tmp_path / study, tmp_path / "subject", scans, patient, seed=study)
    weights = f"--ckpt_path {weights_of_patients(tmp_path)}"
    with orthanc(tmp_path) as archive:

        def collect(out: str, options: str) -> str:
            words = f'set -- {archive} \'{{"PatientName": "*Secret*"}}\' {tmp_path}/in {tmp_path}/{out}\n'
            run = words + script.replace("--each", f"--recipe phantom {options} --each")
            done = subprocess.run(run_with(run), capture_output=True, text=True, cwd=ROOT, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
            return done.stdout

        upload(archive, tmp_path / "four")
        assert "not stored, see summary.html: " in collect("phantoms", "")
        assert not series(archive, "SEG")
        assert "not stored" not in collect("out", weights)
        (seg,), (report,) = series(archive, "SEG"), series(archive, "SR")
        upload(archive, tmp_path / "two")
        collect("out", weights)
        assert len(list((tmp_path / "in").iterdir())) == 2
        assert seg in series(archive, "SEG")
        assert report in series(archive, "SR")
        assert len(series(archive, "SR")) == 2
