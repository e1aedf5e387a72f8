"""What the configs of the five bundles have in common is the same in all; this file lists what differs.

A value that is changed in a single config is either a mistake or needs a new entry in the table.
"""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

BUNDLES = Path(__file__).parents[2] / "bundles"
NAMES = sorted(path.parts[-3] for path in BUNDLES.glob("*/configs/train.json"))
EACH = " ".join(NAMES)
OWN = {
    "evaluate.json": {EACH: "method", "m3ae": "latent_layer"},
    "inference.json": {
        EACH: "bundle_root",
        "m3ae mag_ms medmap": "feature_encoder",
        "m3ae mag_ms": "backbone mlp_dim embed_dim",
        "mag_ms medmap": "network_def#subsets dedicated",
        "m3ae": "network network_def inferer to_labels to_probabilities decision width crop heads grid percentiles "
        "image_transforms",
        "mag_ms": "network_def hidden fill",
    },
    "multi_gpu_train.json": {"m3ae": "pretrainer train#trainer#network#find_unused_parameters initialize"},
    "train.json": {
        EACH: "bundle_root method seed training_cases task_method task_loss",
        "m3ae mag_ms gss": "backbone",
        "m3ae mag_ms medmap": "feature_encoder",
        "m3ae mag_ms passion": "gamma",
        "m3ae mag_ms": "width fill epochs learning_rate val_interval mlp_dim embed_dim power rotation "
        "random_transforms train#optimizer#amsgrad evaluation#overrides#feature_encoder evaluation#overrides#embed_dim",
        "m3ae medmap": "train#method train#loss train#optimizer#params",
        "mag_ms medmap": "network_def#subsets dedicated evaluation#overrides#dedicated",
        "mag_ms passion": "train#optimizer#_target_ temperature",
        "medmap passion": "train#handlers#ResumableCheckpoint#objects#loss",
        "medmap gss": "alpha",
        "m3ae passion": "fit",
        "m3ae": "imports initialize pretrain finetune run pretrainer network_def lr_scheduler crop grid spacing "
        "percentiles heads masking regulariser x_sub_std mask_ratio patch_size batch_size "
        "pretrained_weights take_weights pretrain_on "
        "pretrain_epochs pretrain_batch_size learning_rate_x_sub views dice_weight ce_weight lambda_con "
        "consistency lambda_distil "
        "modality_transforms train#preprocessing#transforms "
        "random_crop select deterministic_transforms train#_desc_ train#handlers#StatsHandler#name "
        "train#handlers#ProgressBar#desc train#handlers#ResumableCheckpoint#name validate#inferer "
        "validate#postprocessing evaluation#overrides#ckpt_path evaluation#overrides#grid "
        "evaluation#overrides#percentiles evaluation#overrides#backbone evaluation#overrides#mlp_dim "
        "evaluation#overrides#heads",
        "mag_ms": "network_def hidden lambda_kl detach_teacher weight_decay accumulation_steps "
        "train#trainer#accumulation_steps evaluation#overrides#hidden evaluation#overrides#fill",
        "medmap": "anchor prior align_at latent_layer evaluation#overrides#latent_layer",
        "passion": "training perfect_data missing_rates masks mask_seed pixel proto delta beta lambda_1 lambda_2 "
        "lambda_pmr growth growth_factor beta_range train#handlers#order train#handlers#PreferenceBalancer",
        "gss": "task_weight kd_weight tau T_L T_M rho leaders votes kd kd_scale task random_mask distillation "
        "normalise rounds train#handlers#order train#handlers#Rounds train#trainer#max_epochs",
    },
    "metadata.json": {
        EACH: "bundle name description authors references changelog weights eval_metrics",
        "m3ae": "image_classes pred_classes network_data_format",
        "gss": "network_data_format#inputs#image#spatial_shape network_data_format#outputs#pred#spatial_shape",
    },
}
"""File -> bundles -> keys, including everything below them, whose values differ in these bundles from the others."""


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield ``a#b#c`` and the value for every leaf of a config; items of a list are named by their ``_target_``."""
    if isinstance(value, list) and value and all(isinstance(part, dict) and "_target_" in part for part in value):
        names = [part["_target_"] for part in value]
        yield f"{key}#order", names
        names = [f"{name.rpartition('.')[2]}{names[:i].count(name) or ''}" for i, name in enumerate(names)]
        value = dict(zip(names, value, strict=True))
    if isinstance(value, dict):
        for name, part in value.items():
            yield from leaves(part, f"{key}#{name}" if key else name)
    else:
        yield key, value


@pytest.mark.parametrize("file", OWN)
def test_configs_differ_only_in_what_is_a_bundles_own(file):
    configs = {name: dict(leaves(json.loads((BUNDLES / name / "configs" / file).read_text()))) for name in NAMES}
    rows = [(bundles, key) for bundles, keys in OWN[file].items() for key in keys.split()]

    def others(leaf: str, named: Iterable[tuple[str, str]]) -> dict[str, Any]:
        """Return the values in the bundles that are not named, or nothing if these values are equal."""
        own = {name for bundles, _ in named for name in bundles.split()}
        values = {name: config.get(leaf, "absent") for name, config in configs.items() if name not in own}
        return values if len({json.dumps(value) for value in values.values()}) > 1 else {}

    unnamed, needed = {}, set()
    for leaf in dict.fromkeys(leaf for config in configs.values() for leaf in config):
        here = [row for row in rows if f"{leaf}#".startswith(f"{row[1]}#")]
        if found := others(leaf, here):
            unnamed[leaf] = found
        needed |= {row for row in here if others(leaf, [other for other in here if other != row])}
    assert unnamed == {}
    assert set(rows) - needed == set()  # no key is listed whose values are the same


@pytest.mark.parametrize("file", ["configs/logging.conf", "LICENSE"])
def test_other_files_are_the_same(file):
    assert len({(BUNDLES / name / file).read_bytes() for name in NAMES}) == 1
