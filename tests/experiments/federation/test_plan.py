"""The contents of a plan, what a site is told of it, and which sites may not join."""

import json

import pytest
import torch

from common import __version__
from common.networks import M3AE
from mmb.experiments.federation.identity import RefusedError, require_same, require_same_shapes
from mmb.experiments.federation.plan import Plan, PlannedNetwork, read_plan

SITES = {"a": {"dataset_dir": "/data/a"}, "b": {"dataset_dir": "/data/b", "split": "full"}}
PLAN = {"name": "two", "bundle": "m3ae", "rounds": 6, "sites": SITES, "settings": {"width": 8, "grid": [8, 8, 8]}}


def test_rounds_of_local_epochs_are_the_schedules_length(tmp_path):
    settings = Plan(**PLAN, local_epochs=2).settings_of("b", tmp_path)
    assert settings["epochs"] == 12
    assert settings["dataset_dir"] == "/data/b"
    assert settings["split"] == "full"
    assert settings["width"] == 8
    assert settings["evaluate_on"] == "$None"  # as MONAI treats null


def test_a_site_is_not_told_where_the_others_data_are():
    told = Plan(**PLAN, _desc_="of /data/a").told("b")
    assert "/data/a" not in json.dumps(told)
    assert Plan(**json.loads(json.dumps(told))).sites == {"b": SITES["b"]}


def test_the_servers_network_is_the_plans_and_the_same_each_time():
    plan = Plan(**PLAN)
    first, second = (PlannedNetwork(plan.model_dump_json(), plan.identity()).state_dict() for _ in range(2))
    assert {k: v.shape for k, v in first.items()} == {
        k: v.shape for k, v in M3AE(4, 3, 8, (8, 8, 8)).state_dict().items()
    }
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_a_server_with_another_version_is_refused():
    plan = Plan(**PLAN)
    with pytest.raises(RefusedError, match=rf"version of the bundle: {__version__}; this federation has 9.9.9"):
        PlannedNetwork(plan.model_dump_json(), plan.identity() | {"version of the bundle": "9.9.9"})


def test_a_recipe_is_the_same_everywhere():
    """Recipes are compared by content, not only by name."""
    plan = Plan(**{**PLAN, "configs": ("recipes/open_glioma.json",)})
    ours = plan.identity()
    assert ours["cohort"] == "open_glioma"
    theirs = ours | {"configs": "train.json (SHA-256 0123456789ab)"}
    with pytest.raises(
        RefusedError, match=r"configs: train.json \(SHA.*open_gl.* has train.json \(SHA-256 0123456789ab"
    ):
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
        ({"local_epochs": "2"}, "local_epochs.*valid integer"),
        ({"name": "../data"}, "name: String should match pattern"),
        ({"sites": {"a/b": {"dataset_dir": "/data"}}}, "sites.a/b.*: String should match pattern"),
        ({"sites": {}}, "sites: Dictionary should have at least 1 item"),
        ({"sites": {"a": {"dataset_dir": "data"}}}, "site a: dataset_dir 'data'; expected an absolute path"),
        ({"sites": {"a": {"dataset_dir": "/data", "splits": "full"}}}, "'splits' is not a key of .*mean split[?]"),
        ({"settings": {"epochs": 3}}, "epochs: the federation sets this key itself"),
        ({"settings": {"learning_rte": 0.1}}, "'learning_rte' is not a key of .*mean learning_rate[?]"),
        ({"settings": {"learning_rate": "high"}}, "learning_rate 'high': expected a number"),
        ({"start_round": 6}, "start_round 6: expected one of the 6 rounds"),
    ],
)
def test_what_cannot_be_is_refused_by_key(tmp_path, keys, complaint):
    path = tmp_path / "plan.json"
    path.write_text(json.dumps({**PLAN, **keys}))
    with pytest.raises(ValueError, match=f"plan.json: {complaint}"):
        read_plan(path)


def test_a_plan_with_a_comment_is_read(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps({**PLAN, "_desc_": "of two hospitals"}))
    assert read_plan(tmp_path / "plan.json").sites == SITES
