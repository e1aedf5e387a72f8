"""Numbers outside the range of their key are refused, wherever in a config they stand; the shipped ones are inside."""

import json
from copy import deepcopy
from pathlib import Path

import pytest
from monai.bundle import ConfigParser
from refusals import refused

from common.engines.ranges import RANGES, check_ranges
from common.io import bundle_root

NAMES = ("m3ae", "mag_ms", "medmap", "passion", "gss")


@pytest.mark.parametrize(
    ("key", "right", "wrong"),
    [
        ("flip_prob", (0, 0.5, 1), (50, -0.1, 1.1, True, "x", None, [0.5], float("nan"))),
        ("overlap", (0, 0.5, 0.99), (1.0, 1, 50, -0.25)),
        ("mask_ratio", (0, 0.875), (1, 87.5)),
        ("coverage", (0.9,), (0, 1, 90)),
        ("learning_rate", (1e-4, 1), (0, -1e-3, 2, float("inf"))),
        ("weight_decay", (0, 1e-5), (-1e-5, 2)),
        ("ema_momentum", (0.005, "null", None), (0, 1.5)),
        ("rotation", (0, 0.26), (15, -0.1)),
        ("epochs", (1, 300), (0, -1, 1.5, 1e2, True)),
        ("num_workers", (0, 4), (-1, 0.5)),
        ("heads", (1, 8), (0, 2.5)),
        ("seed", (0, 2**32 - 1), (-1, 2**32, 0.5)),
        ("crop", ([48, 48, 48], (256, 256)), (48, [48], [48, 48, 0], [48.0, 48, 48], [1] * 4)),
        ("spacing", ([1, 1, 1.5], [1, 1, -1]), (1, [1, 1], [1, 1, 0], [-2, 1, 1])),
        ("percentiles", ([1, 99],), ([1], [1, 101], [99, 1])),
        ("missing_rates", ([0.2, 0.4], "null"), ([20, 40], [0.2, 1], 0.5)),
        ("T_L", (0.65,), (65,)),
        ("tau", (8, 0.01), (0,)),
        ("kd_weight", (0, 3), (-0.3,)),
        ("alpha", (0, 2), (-1,)),
        ("gss.alpha", (0, 0.2), (1, 2)),
    ],
)
def test_a_key(key, right, wrong):
    bundle, _, name = key.rpartition(".")
    for value in right:
        check_ranges(ConfigParser({name: value}), bundle)
    for value in wrong:
        with refused(ValueError, f"{name} {value!r}: expected {RANGES[key]}."):
            check_ranges(ConfigParser({name: value}), bundle)


def test_within_objects_what_is_written_there():
    transform = {"_target_": "RandFlipd", "prob": "@flip_prob", "spatial_axis": 0, "gamma": [0.7, 1.5]}
    config = {"flip_prob": "$0.25 * 2", "random_transforms": ["@x", transform], "train": {"optimizer": {"lr": 0.1}}}
    check_ranges(ConfigParser(config), "gss")
    for key, value in (("random_transforms#1#prob", 50), ("train#optimizer#lr", -1), ("flip_prob", "$25 * 2")):
        parser = ConfigParser(deepcopy(config))
        parser[key] = value
        with refused(ValueError, f"{key} {50 if key == 'flip_prob' else value}: expected a number "):
            check_ranges(parser, "gss")


@pytest.mark.parametrize("name", NAMES)
def test_every_number_at_the_top_of_a_shipped_config_has_a_range_and_is_in_it(name):
    for path in Path(bundle_root(name), "configs").rglob("*.json"):
        config = json.loads(path.read_text())
        for key, value in config.items():
            numbers = value if isinstance(value, list) and value else [value]
            if path.name != "metadata.json" and all(type(number) in (int, float) for number in numbers):
                assert key in RANGES, path
        literal = {key: value for key, value in config.items() if not isinstance(value, str) or value[:1] not in "$@%"}
        check_ranges(ConfigParser(literal), name)
