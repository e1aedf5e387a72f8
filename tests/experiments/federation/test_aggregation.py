"""The server's aggregation of the sites' answers, compared with numbers worked out by hand."""

import re

import numpy as np
import pytest
from nvflare.apis.fl_context import FLContext
from nvflare.app_common.abstract.fl_model import FLModel, ParamsType
from nvflare.app_common.abstract.model import make_model_learnable
from nvflare.app_common.app_constant import AppConstants

from mmb.experiments.federation.aggregation import REFUSED, REPORT, SiteAverage, Update, aggregate, mean_metrics

PARTS = {"t1": ["encoders.1"], "flair": ["encoders.10"]}
SAME = {"bundle": "passion", "version of the bundle": "0.1.0", "cohort": "phantom"}


def change(t1, flair, decoder):
    values = {"encoders.1.weight": t1, "encoders.10.weight": flair, "head": decoder}
    return {name: np.array([value, 0], np.float32) for name, value in values.items()}


def update(values, cases, t1, flair, **metrics):
    return Update(change(*values), cases, {"t1": t1, "flair": flair}, metrics)


def test_an_encoder_is_averaged_over_the_sites_that_have_its_sequence_and_the_rest_over_all():
    updates = [update((1, 10, 100), 6, t1=6, flair=2), update((4, 99, 400), 3, t1=3, flair=0)]
    found = aggregate(updates, PARTS)
    # t1: (6 * 1 + 3 * 4) / 9; flair: the first site's alone; decoder: (6 * 100 + 3 * 400) / 9
    assert {name: value.tolist() for name, value in found.items()} == {
        "encoders.1.weight": [2, 0],
        "encoders.10.weight": [10, 0],
        "head": [200, 0],
    }
    assert all(value.dtype == np.float32 for value in found.values())
    # without parts all is averaged by cases
    assert {name: value[0] for name, value in aggregate(updates, {}).items()} == {
        "encoders.1.weight": 2,
        "encoders.10.weight": pytest.approx(39.67, abs=0.01),
        "head": 200,
    }


def test_an_encoder_that_no_site_trains_stays_as_it_is():
    updates = [update((1, 0, 100), 1, t1=1, flair=0), update((3, 0, 300), 1, t1=1, flair=0)]
    assert aggregate(updates, PARTS).keys() == {"encoders.1.weight", "head"}


def test_what_a_site_keeps_back_is_averaged_over_the_others():
    updates = [update((1, 10, 100), 6, t1=6, flair=6), update((4, 40, 400), 3, t1=3, flair=3)]
    kept_back = updates[0]._replace(change={name: updates[0].change[name] for name in ("encoders.1.weight",)})
    found = aggregate([kept_back, updates[1]], PARTS)
    assert {name: value[0] for name, value in found.items()} == {
        "encoders.1.weight": 2,
        "encoders.10.weight": 40,
        "head": 400,
    }


def test_a_metric_is_that_of_the_sites_that_have_it():
    updates = [update((0, 0, 0), 6, 6, 6, dice=0.5), update((0, 0, 0), 2, 2, 2, dice=0.9), update((0, 0, 0), 1, 1, 1)]
    assert mean_metrics(updates) == {"dice": pytest.approx((6 * 0.5 + 2 * 0.9) / 8)}
    assert mean_metrics(updates[2:]) == {}


@pytest.fixture
def server():
    average = SiteAverage(SAME, PARTS, ["north", "south"])
    average.fl_ctx = FLContext()
    weights = make_model_learnable(change(0, 0, 0), {})
    average.fl_ctx.set_prop(AppConstants.GLOBAL_MODEL, weights, private=True, sticky=True)
    average.reset_stats()
    return average


def answer(site, values=(1, 1, 1), cases=2, **report):
    counts = {"cases": cases, "cases_with": {"t1": cases, "flair": cases}}
    meta = {"client_name": site, REPORT: {"identity": SAME, **counts, **report}}
    return FLModel(ParamsType.DIFF, change(*values), current_round=3, meta=meta)


def test_the_result_is_the_same_in_whatever_order_sites_answer(server):
    answers = [answer("a", (0.1, 0.7, 1e8), 1), answer("b", (0.3, 0.1, -1e8), 3), answer("c", (0.7, 0.3, 1), 5)]
    found = []
    for order in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        server.reset_stats()
        for number in order:
            server.accept_model(answers[number])
        found.append(server.aggregate_model().params)
    for other in found[1:]:
        assert all(np.array_equal(found[0][name], other[name]) for name in other)


OTHER_SHAPE = answer("b")
OTHER_SHAPE.params["head"] = np.zeros((3, 1), np.float32)
UNKNOWN = answer("b")
UNKNOWN.params["neck"] = np.zeros(2, np.float32)
REASONS = {
    "version": (
        answer("b", identity=SAME | {"version of the bundle": "0.2.0"}),
        "version of the bundle: 0.2.0; this fed",
    ),
    "shape": (OTHER_SHAPE, r"head has the shape \(3, 1\), expected \(2,\)"),
    "unknown": (UNKNOWN, r"neck has the shape \(2,\), expected nothing"),
    "not finite": (answer("b", (1, float("nan"), 1)), "no longer finite, e.g. encoders.10.weight"),
    "own words": (
        FLModel(
            ParamsType.DIFF, {REFUSED: np.zeros(1)}, current_round=3, meta={"client_name": "b", REFUSED: "a reason"}
        ),
        "a reason",
    ),
}


@pytest.mark.parametrize(("refused", "reason"), REASONS.values(), ids=REASONS)
def test_a_site_that_does_not_fit_is_named_and_the_round_goes_on(server, caplog, refused, reason):
    server.accept_model(refused)
    server.accept_model(answer("a", (1, 2, 3)))
    assert re.match(f"b does not take part in round 3: .*{reason}", caplog.messages[0])
    assert {value[0] for value in server.aggregate_model().params.values()} == {1, 2, 3}


def test_a_round_without_any_site_fails(server):
    with pytest.raises(RuntimeError, match="No site took part"):
        server.aggregate_model()


def test_a_site_that_has_not_answered_is_named(server, caplog):
    server.accept_model(answer("north"))
    server.aggregate_model()
    assert "south has not answered and is left out of this round" in caplog.text
    assert "north has not" not in caplog.text
