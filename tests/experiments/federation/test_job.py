"""What a plan's job brings to a site."""

import json

import pytest

from mmb.experiments.federation.job import simulate, write_job
from mmb.experiments.federation.plan import Plan

SITES = {"a": {"dataset_dir": "/data/a"}, "b": {"dataset_dir": "/data/b"}}
TWO = {"name": "two", "bundle": "m3ae", "rounds": 6, "sites": SITES, "settings": {"width": 8, "grid": [8, 8, 8]}}


def test_a_site_gets_its_own_part_of_the_plan_a_script_and_a_time_limit(tmp_path):
    plan = Plan(**TWO, round_hours=0.5)
    site = write_job(plan, tmp_path) / "app_b"
    assert {path.relative_to(site / "custom").as_posix() for path in site.rglob("custom/**/*")} == {
        "plan.txt",
        "script.py",
    }
    told = json.loads((site / "custom" / "plan.txt").read_text())
    assert told["plan"]["sites"] == {"b": {"dataset_dir": "/data/b"}}
    assert told["expected"] == plan.identity()
    config = json.loads((site / "config" / "config_fed_client.json").read_text())
    assert config["max_runner_sync_timeout"] == 600
    (executor,) = config["executors"]
    arguments = executor["executor"]["args"]
    assert arguments["result_wait_timeout"] == 1800  # seconds; none would wait for ever
    assert arguments["command"][-1] == "custom/script.py"
    (rounds,) = json.loads((site.parent / "app_server" / "config" / "config_fed_server.json").read_text())["workflows"]
    assert rounds["args"]["round_seconds"] == 1860  # a site can say that its training was ended
    assert not arguments["launch_once"]  # a process that is ended is started again in the next round


def test_nothing_is_replaced(tmp_path):
    plan = Plan(**TWO)
    first = write_job(plan, tmp_path)
    before = sorted(first.rglob("*"))
    with pytest.raises(FileExistsError, match="two: exists already"):
        write_job(plan, tmp_path)
    assert sorted(first.rglob("*")) == before
    (tmp_path / "simulation" / "two").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="two: exists already"):
        simulate(plan, tmp_path)


def test_a_plan_without_a_possible_network_is_refused(tmp_path):
    plan = Plan(**TWO | {"bundle": "passion", "settings": {"backbone": "mmFormer", "crop": [24, 24, 24]}})
    with pytest.raises(ValueError, match=r"crop \[24, 24, 24\]: expected 2 or 3 multiples of 16, 32 or more"):
        write_job(plan, tmp_path)
    assert not list(tmp_path.iterdir())
