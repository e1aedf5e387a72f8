"""Federations: a plan and what a site is told of it, the job, and a simulation on this machine."""

import json
import subprocess
import sys

import pytest
import torch

from common import __version__
from common.io.checkpoints import read_weights
from common.networks import M3AE
from mmb.experiments.federation.identity import RefusedError, require_same, require_same_shapes
from mmb.experiments.federation.job import simulate, write_job
from mmb.experiments.federation.plan import Plan, PlannedNetwork, read_plan

SITES = {"a": {"dataset_dir": "/data/a"}, "b": {"dataset_dir": "/data/b", "split": "full"}}
PLAN = {"name": "two", "bundle": "m3ae", "rounds": 6, "sites": SITES, "settings": {"width": 8, "grid": [8, 8, 8]}}


def test_rounds_of_local_epochs_are_the_schedules_length(tmp_path):
    settings = Plan(**PLAN, local_epochs=2).settings_of("b", tmp_path)
    assert (settings["epochs"], settings["dataset_dir"]) == (12, "/data/b")
    assert (settings["split"], settings["width"]) == ("full", 8)
    assert settings["evaluate_on"] == "$None"  # as MONAI treats null


def test_a_site_is_not_told_where_the_others_data_are():
    told = Plan(**PLAN, _desc_="of /data/a").told("b")
    assert "/data/a" not in json.dumps(told)
    assert Plan(**json.loads(json.dumps(told))).sites == {"b": SITES["b"]}


def test_the_servers_network_is_the_plans_and_the_same_each_time():
    plan = Plan(**PLAN)
    first, second = (PlannedNetwork(plan.model_dump_json(), plan.identity()).state_dict() for _ in range(2))
    expected = M3AE(4, 3, 8, (8, 8, 8)).state_dict()
    assert {k: v.shape for k, v in first.items()} == {k: v.shape for k, v in expected.items()}
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_server_with_another_version_is_refused():
    plan = Plan(**PLAN)
    with pytest.raises(RefusedError, match=rf"version of the bundle: {__version__}; this federation has 9.9.9"):
        PlannedNetwork(plan.model_dump_json(), plan.identity() | {"version of the bundle": "9.9.9"})


def test_a_recipe_is_the_same_everywhere():
    """Recipes are compared by content, not only by name."""
    ours = Plan(**{**PLAN, "configs": ("recipes/open_glioma.json",)}).identity()
    assert ours["cohort"] == "open_glioma"
    theirs = ours | {"configs": "train.json (SHA-256 0123456789ab)"}
    with pytest.raises(RefusedError, match=r"configs: train.json \(SHA.*open_gl.* has .* \(SHA-256 0123456789ab"):
        require_same(ours, theirs)
    with pytest.raises(RefusedError, match=rf"m3ae {__version__} has no config recipes/theirs.json"):
        Plan(**{**PLAN, "configs": ("recipes/theirs.json",)}).identity()
    with pytest.raises(RefusedError, match="the bundle theirs is not installed"):
        Plan(**{**PLAN, "bundle": "theirs"}).identity()


def test_weights_of_as_many_values_but_another_shape_are_refused():
    """MONAI's client would reshape them without a word."""
    with pytest.raises(RefusedError, match=r"head has the shape \(2, 3\), expected \(3, 2\)"):
        require_same_shapes({"head": torch.zeros(2, 3)}, {"head": torch.zeros(3, 2)})


@pytest.mark.parametrize(
    ("keys", "complaint"),
    [
        ({"rounds": 0}, "rounds.*greater than or equal to 1"),
        ({"name": "../data"}, "name: String should match pattern"),
        ({"sites": {"a/b": {"dataset_dir": "/data"}}}, "sites.a/b.*: String should match pattern"),
        ({"sites": {"a": {"dataset_dir": "data"}}}, "site a: dataset_dir 'data'; expected an absolute path"),
        ({"sites": {"a": {"dataset_dir": "/data", "splits": "full"}}}, "'splits' is not a key of .*mean split[?]"),
        ({"settings": {"epochs": 3}}, "epochs: the federation sets this key itself"),
        ({"settings": {"learning_rte": 0.1}}, "'learning_rte' is not a key of .*mean learning_rate[?]"),
        ({"settings": {"learning_rate": "high"}}, "learning_rate high: expected a number"),
        ({"start_round": 6}, "start_round 6: expected one of the 6 rounds"),
    ],
)
def test_what_cannot_be_is_refused_by_key(tmp_path, keys, complaint):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**PLAN, **keys}))
    with pytest.raises(ValueError, match=f"plan.json: {complaint}"):
        read_plan(path)


def test_a_site_gets_its_own_part_of_the_plan_a_script_and_a_time_limit(tmp_path):
    plan = Plan(**PLAN, round_hours=0.5)
    site = write_job(plan, tmp_path) / "app_b"
    assert {path.name for path in site.rglob("custom/**/*")} == {"plan.txt", "script.py"}
    told = json.loads((site / "custom" / "plan.txt").read_text())
    assert (told["plan"]["sites"], told["expected"]) == ({"b": SITES["b"]}, plan.identity())
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
    plan = Plan(**PLAN)
    first = write_job(plan, tmp_path)
    before = sorted(first.rglob("*"))
    with pytest.raises(FileExistsError, match="two: exists already"):
        write_job(plan, tmp_path)
    assert sorted(first.rglob("*")) == before
    (tmp_path / "simulation" / "two").mkdir(parents=True)
    with pytest.raises(FileExistsError, match="two: exists already"):
        simulate(plan, tmp_path)


def test_a_plan_without_a_possible_network_is_refused(tmp_path):
    plan = Plan(**PLAN | {"bundle": "passion", "settings": {"backbone": "mmFormer", "crop": [24, 24, 24]}})
    with pytest.raises(ValueError, match=r"crop \[24, 24, 24\]: expected 2 or 3 multiples of 16, 32 or more"):
        write_job(plan, tmp_path)
    assert not list(tmp_path.iterdir())


SETTINGS = {"spacing": [6, 6, 6], "crop": [16, 16, 16], "backbone": "RFNet", "missing_rates": None}
SETTINGS |= {"val_subsets": [["t1c", "t2", "flair"]]}


def site_list(coarse_dir, path, training, without=()):
    """Write a site's datalist: the first subjects of the phantom, without some sequences."""
    whole = json.loads((coarse_dir / "datalist.json").read_text())

    def less(item):
        kept = [number for number, name in enumerate(item["modalities"]) if name not in without]
        return {**item, **{key: [item[key][number] for number in kept] for key in ("image", "modalities")}}

    parts = {"training": whole["training"][training], "validation": whole["validation"], "test": []}
    path.write_text(json.dumps({**whole, **{part: [less(item) for item in items] for part, items in parts.items()}}))
    return {"dataset_dir": str(coarse_dir), "datalist": str(path)}


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
    places = {site: folder / site / "simulate_job" / f"app_{site}" / "training" for site in ("one", "two")}
    own = {site: read_weights(place / "trained.pt") for site, place in places.items()}
    for name, value in ours.items():
        shares = {"one": 1 / 3, "two": 2 / 3}  # by their cases
        expected = sum(share * own[site][name] for site, share in shares.items())
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
    assert not torch.equal(own["one"]["head.weight"], own["two"]["head.weight"])
