"""The script of docs/pacs.md, with a PACS: studies come, are segmented, and their results go back."""

import subprocess
from pathlib import Path

from archive_stack import write_studies
from orthanc import needs_orthanc, orthanc, series, upload
from test_commands import FILE, ROOT, run_with

pytestmark = needs_orthanc


def test_studies_come_and_results_go_back(tmp_path):
    ((_, script),) = FILE.findall(Path(ROOT, "docs/pacs.md").read_text())
    script = script.replace("--each", "--recipe phantom --each")
    write_studies(tmp_path)
    with orthanc(tmp_path) as archive:

        def collect() -> None:
            words = f'set -- {archive} \'{{"PatientName": "*Secret*"}}\' {tmp_path}/in {tmp_path}/out\n'
            done = subprocess.run(run_with(words + script), capture_output=True, text=True, cwd=ROOT, check=False)
            assert done.returncode == 0, done.stdout + done.stderr

        upload(archive, tmp_path / "four")
        collect()
        (seg,), (report,) = series(archive, "SEG"), series(archive, "SR")
        upload(archive, tmp_path / "two")
        collect()
        assert len(list((tmp_path / "in").iterdir())) == 2
        assert seg in series(archive, "SEG")
        assert report in series(archive, "SR")
        assert len(series(archive, "SR")) == 2
