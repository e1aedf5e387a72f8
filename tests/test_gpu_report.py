"""The report on a GPU, at the sizes of a dry run and on the CPU: everything but times."""

import pytest

from tests.bench import gpu_report


@pytest.mark.slow
def test_a_training_a_sweep_and_a_broken_training_are_measured(tmp_path):
    gpu_report.main(str(tmp_path), device="cpu", small=True, only="GSS on RFNet")
    tables = (tmp_path / "gpu_report.md").read_text().split("\n\n**")[1:]
    rows = [table.strip().splitlines()[-1].strip("| ").split(" | ") for table in tables]
    assert [row[0] for row in rows] == ["GSS on RFNet", "GSS on RFNet", "M3AE, small"]
    assert float(rows[0][-1]) > 0
    assert (rows[1][1], float(rows[1][2]), float(rows[2][1])) == ("15", 0, 0)
