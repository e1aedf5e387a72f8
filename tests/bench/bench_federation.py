"""Measure what a federation gains: each site alone, FedAvg, per-modality aggregation, and all data in one place.

Run: python tests/bench/bench_federation.py phantom OUT, or
     python tests/bench/bench_federation.py open_glioma OUT --dataset_dir DIR [--bundles m3ae,passion]

Every arm is a plan (docs/many_machines.md): a site alone is a federation of one site, and so are all data in one place.
So all arms start from the same weights and have the same number of epochs, the same schedule and the same seed. M3AE
starts from a pretraining at the largest site. Every arm is evaluated over all 15 subsets of the test cases, which have
all sequences; `tools compare` writes the report of each bundle to OUT/<bundle>/report, and OUT/dice.csv gets all Dice.
What is finished is not repeated.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import fire
import pandas as pd
import torch

from common.cohorts import generate_phantom, get_cohort
from common.cohorts.datalist import as_datalist, write_datalist
from common.cohorts.splits import split_cases
from common.io import read_weights
from common.methods.m3ae import load_pretrained
from experiments.federation.plan import Plan

ROOT = Path(__file__).parents[2]
LOCAL_EPOCHS = 2


@dataclass(frozen=True)
class Site:
    """The training cases of a site: the given range of those whose name starts so, without a sequence."""

    without: str
    start: str = ""
    cases: tuple[int, int | None] = (0, None)


@dataclass(frozen=True)
class Experiment:
    """Sites, the split that they are cut from, and for each bundle the number of rounds and the settings."""

    cohort: str
    split: str | None
    sites: Mapping[str, Site]
    rounds: Mapping[str, int]
    configs: tuple[str, ...]
    settings: Mapping[str, Mapping[str, Any]]


EXPERIMENTS = {
    "phantom": Experiment(
        cohort="phantom",
        split=None,
        sites={
            "largest": Site("t1", cases=(0, 10)),
            "second": Site("t1c", cases=(10, 16)),
            "third": Site("t2", cases=(16, 21)),
            "smallest": Site("flair", cases=(21, 24)),
        },
        rounds={"m3ae": 20, "passion": 20},
        configs=(),
        settings={
            "m3ae": {"spacing": [6, 6, 6], "grid": [40, 40, 26], "crop": [24, 24, 24], "width": 8},
            "passion": {"spacing": [6, 6, 6], "crop": [24, 24, 24], "backbone": "RFNet", "width": 4},
        },
    ),
    "open_glioma": Experiment(
        cohort="open_glioma",
        split="fixed50",
        sites={"africa": Site("t1c", start="BraTS-SSA"), "brats2021": Site("t2", start="BraTS2021")},
        rounds={"m3ae": 12, "passion": 20},
        configs=("recipes/open_glioma.json",),
        settings={
            "m3ae": {"spacing": [4, 4, 4], "grid": [60, 60, 39], "crop": [24, 32, 24], "width": 8},
            "passion": {
                "spacing": [4, 4, 4],
                "crop": [24, 32, 24],
                "backbone": "RFNet",
                "width": 8,
                "learning_rate": 0.004,
            },
        },
    ),
}
WEIGHTS = {"m3ae": "finetuned.pt", "passion": "trained.pt"}
"""Name of the file that a bundle's evaluation takes its weights from."""


def run(folder: Path, *words: str) -> float:
    """Run a command of this project with its output in a file of the folder; return the minutes it took."""
    folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    with open(folder / "log.txt", "a") as log:
        subprocess.run([sys.executable, "-m", *words], cwd=ROOT, stdout=log, stderr=log, check=True)
    return (time.monotonic() - start) / 60


def options(plan: Plan, settings: Mapping[str, Any]) -> list[str]:
    """Return the options of ``monai.bundle run`` for a plan's bundle with its configs and some more settings."""
    files = [str(ROOT / "bundles" / plan.bundle / "configs" / name) for name in plan.files]
    words = ["--config_file", str(files)]
    for key, value in {**plan.settings, **settings}.items():
        words += [f"--{key}", "$None" if value is None else str(value)]
    return words


def less(item: dict[str, Any], without: str) -> dict[str, Any]:
    """Return a datalist's entry without a sequence."""
    kept = [number for number, name in enumerate(item["modalities"]) if name != without]
    return {**item, **{key: [item[key][number] for number in kept] for key in ("image", "modalities")}}


def write_lists(experiment: Experiment, dataset_dir: Path, folder: Path) -> dict[str, dict[str, str]]:
    """Write a datalist for each site and one for all, ``pooled``; return the config keys of each."""
    cohort, split = get_cohort(experiment.cohort), experiment.split
    whole = as_datalist(split_cases(cohort, dataset_dir, split), cohort, dataset_dir, split, 0)
    parts = {}
    for name, site in experiment.sites.items():
        cases = [item for item in whole["training"] if item["case"].startswith(site.start)][slice(*site.cases)]
        parts[name] = [less(item, site.without) for item in cases]
    parts["pooled"] = [item for cases in parts.values() for item in cases]
    for name, training in parts.items():
        write_datalist({**whole, "training": training, "validation": []}, str(folder / f"{name}.json"))
        print(f"{name}: {len(training)} training cases", flush=True)
    return {name: {"dataset_dir": str(dataset_dir), "datalist": str(folder / f"{name}.json")} for name in parts}


def pretrained(plan: Plan, site: Mapping[str, str], folder: Path) -> str:
    """Pretrain M3AE at a site; return the file of the weights that all arms start from."""
    start = folder / "start.pt"
    if not start.exists():
        minutes = run(
            folder,
            *("monai.bundle", "run", "pretrain"),
            *options(plan, {**site, "evaluate_on": None, "output_dir": folder}),
        )
        print(f"m3ae, pretraining at the largest site: {minutes:.1f} min", flush=True)
        network = plan.network()
        load_pretrained(network, str(folder / "pretrained.pt"))
        torch.save(network.state_dict(), start)
    return str(start)


def evaluated(plan: Plan, test: Mapping[str, str], folder: Path) -> pd.DataFrame:
    """Train and evaluate an arm; return the Dice of all test cases and subsets."""
    weights = folder / "simulation" / plan.name / "server" / "simulate_job" / "app_server" / "FL_global_model.pt"
    if not weights.exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "plan.json").write_text(plan.to_json())
        minutes = run(folder, "tools", "federate", str(folder / "plan.json"), str(folder), "--simulate")
        print(f"{plan.bundle}, {folder.name}: {minutes:.1f} min", flush=True)
    results = folder / "evaluation" / "results.csv"
    if not results.exists():
        torch.save(read_weights(weights), folder / WEIGHTS[plan.bundle])
        settings = {**test, "calibrate_on": None, "output_dir": folder}
        run(folder, "monai.bundle", "run", "evaluate", *options(plan, settings))
    return pd.read_csv(results).query("metric == 'dice'").drop(columns="metric").rename(columns={"value": "dice"})


def main(experiment: str, output_dir: str, dataset_dir: str | None = None, bundles: str = "m3ae,passion") -> None:
    """Run all arms of an experiment, and compare them."""
    chosen, out = EXPERIMENTS[experiment], Path(output_dir).resolve()
    (out / "lists").mkdir(parents=True, exist_ok=True)
    data = Path(dataset_dir or generate_phantom(str(out / "phantom"))).resolve()
    lists = write_lists(chosen, data, out / "lists")
    sites = {name: lists[name] for name in chosen.sites}
    largest = next(iter(sites.values()))
    dice = []
    for bundle in bundles.split(","):
        settings = {"cohort": chosen.cohort, "ema_momentum": None, **chosen.settings[bundle]}
        if bundle == "passion":  # sequences are missing as at the sites, and nowhere else
            settings |= {"missing_rates": None, "perfect_data": False}
        plan = Plan(
            name="arm", bundle=bundle, rounds=chosen.rounds[bundle], sites=sites, configs=chosen.configs,
            settings=settings, local_epochs=LOCAL_EPOCHS, aggregation="fedavg",
        )  # fmt: skip
        if bundle == "m3ae":
            plan = plan.model_copy(update={"init_from": pretrained(plan, largest, out / bundle / "start")})
        arms = {f"{name} alone": plan.model_copy(update={"sites": {name: keys}}) for name, keys in sites.items()}
        arms["FedAvg"] = plan
        if bundle != "m3ae":  # which has no encoders of single sequences
            arms["per modality"] = plan.model_copy(update={"aggregation": "per_modality"})
        arms["pooled"] = plan.model_copy(update={"sites": {"pooled": lists["pooled"]}})
        folders = {arm: out / bundle / arm.replace(" ", "_") for arm in arms}
        for arm, planned in arms.items():
            found = evaluated(planned, lists["pooled"], folders[arm])
            dice.append(found.assign(experiment=experiment, bundle=bundle, arm=arm))
        compared = [f"{arm}={folder / 'evaluation'}" for arm, folder in folders.items()]
        run(out / bundle, "tools", "compare", str(out / bundle / "report"), *compared)
    columns = ["experiment", "bundle", "arm", "case", "modalities", "region", "dice"]
    pd.concat(dice)[columns].round(4).to_csv(out / "dice.csv", index=False)


if __name__ == "__main__":
    fire.Fire(main)
