"""A whole federation on this machine: NVFlare's simulator with a process for each site."""

import json
import subprocess
import sys

import pytest
import torch
from hospitals import SETTINGS, site_list

from common.io import read_weights


@pytest.mark.slow  # five processes that import NVFlare, MONAI and PyTorch
def test_sites_that_lack_sequences_or_cases_train_one_network(coarse_dir, tmp_path):
    sites = {
        "two": site_list(coarse_dir, tmp_path / "two.json", slice(2)),
        "one": site_list(coarse_dir, tmp_path / "one.json", slice(2, 3), without=("t1",)),
        "none": site_list(coarse_dir, tmp_path / "none.json", slice(0)),
    }
    plan = {"name": "three", "bundle": "passion", "rounds": 1, "settings": SETTINGS, "sites": sites}
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    words = ("-m", "mmb", "federate", str(tmp_path / "plan.json"), str(tmp_path), "--simulate")
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    folder = tmp_path / "simulation" / "three"
    assert "no training cases" in (folder / "none" / "log.txt").read_text()
    ours = read_weights(folder / "server" / "simulate_job" / "app_server" / "FL_global_model.pt")
    own = {
        site: read_weights(folder / site / "simulate_job" / f"app_{site}" / "training" / "trained.pt")
        for site in ("one", "two")
    }
    for name, value in ours.items():
        shares = {"one": 1 / 3, "two": 2 / 3}  # by their cases
        expected = sum(share * own[site][name] for site, share in shares.items())
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(own["one"]["head.weight"], own["two"]["head.weight"])
