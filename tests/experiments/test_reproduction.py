"""A row of a paper's table from imported weights, dry-run with random ones, and checked as it is sent."""

from pathlib import Path

import pytest
import torch
from bundles.running import Bundle
from run_tools import run

from common.evaluation.metrics.results import read_evaluation
from common.networks import RFNet
from mmb.authors.fusion_keys import export_fusion
from mmb.experiments.dry_run import SPACING
from mmb.experiments.paper_tables.published import published

LISTS = Path(__file__).parents[2] / "bundles"
TABLE = LISTS / "tables/gss_table7.json"


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    torch.save({"state_dict": export_fusion(RFNet(width=4))}, tmp_path / "theirs.pth")
    assert run("import_weights", tmp_path / "theirs.pth", tmp_path / "model.pt", "--crop", "[32,32,32]") is None
    return tmp_path / "model.pt"


@pytest.mark.slow  # three evaluations
def test_the_published_row_beside_the_measured_one(weights, tmp_path, capsys, undrawn):
    out, source = tmp_path / "out", ("GSS", "7", "BraTS2018")
    assert run("reproduce", TABLE, weights, out, "--dry_run") is None
    table = capsys.readouterr().out
    evaluation = read_evaluation(out / "evaluation", "RFNet")
    ours = 100 * evaluation.values("dice").groupby("modalities").mean()
    theirs = published(*source).query("method == 'RFNet' and region == 'WT'").set_index("modalities")["value"]
    rows = {}
    for line in table.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in ("●", "○"):
            rows["+".join(m for m, mark in zip(evaluation.modalities, cells, strict=False) if mark == "●")] = cells[4:6]
    assert len(rows) == 15
    for subset, cells in rows.items():
        assert [float(cell) for cell in cells] == pytest.approx(
            [ours.loc[subset, "WT"], 100 * theirs[subset]], abs=0.051
        )
    for words in ("Dry run", "SHA-256", "fewer than 500 voxels", "docs/README.md"):
        assert words in table
    assert "mmFormer+GSS" not in table
    data, conventions = out / "dry_run" / "brats2018", {"empty": "brats", "hd95": "pooled", "et_min_voxels": 500}
    configs = ["inference.json", "evaluate.json"]
    files = {"ckpt_path": weights, "dataset_dir": data, "datalist": data / "0.json", "output_dir": tmp_path / "again"}
    settings = {"spacing": [SPACING] * 3, "overlap": 0.25, "blend": "constant", "precision": "float32"}
    settings |= {"calibrate_on": None, "mlflow": "none"}
    settings |= {f"conventions#{key}": value for key, value in conventions.items()}
    Bundle("gss").run_here(configs, **files, **settings, cohort="brats2018")
    again = read_evaluation(tmp_path / "again", "RFNet").values("dice")
    assert again.equals(evaluation.values("dice"))
    sent = ("compare", tmp_path / "check", f"RFNet={out / 'evaluation'}", "--published", "/".join(source))
    assert run(*sent) is None
    assert "RFNet" in (tmp_path / "check" / "report.md").read_text()


def test_weights_of_no_row_are_refused(weights, tmp_path):
    for words, fact in [
        ((LISTS / "tables/m3ae_table3.json", weights), "weights of RFNet, authors' weights; "),
        ((LISTS / "leaderboard.json", weights), "expected the list of a paper's table"),
        ((tmp_path / "none.json", weights), "none.json: no such file."),
        ((TABLE, tmp_path / "theirs.pth"), "convert the authors' file by import_weights"),
        ((TABLE, weights, "--method", "ShaSpec"), "has the rows"),
        ((TABLE, weights), "--dataset_dir: missing; expected the folder of cohort brats2018"),
    ]:
        assert fact in run("reproduce", *words[:2], tmp_path / "out", *words[2:])
