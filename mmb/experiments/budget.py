"""Equal computing time: how many steps each method of a list gets for the processor time of the first one.

Every part of a training (pretraining, each stage of its images) makes a few steps, in turns with the parts of all other
methods in one process on one thread, so that whatever else the machine does slows all of them alike.
"""

import os
import tempfile
import time
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pandas as pd
import torch
from ignite.engine import Engine
from monai.bundle import ConfigParser
from torch.utils.data import DataLoader
from tqdm import tqdm

from common.cohorts import generate_phantom
from common.io import bundle_root
from common.io.files import replacing
from common.io.settings import check_counts
from common.transforms import StagedDataset
from mmb.experiments.evaluated import Evaluated
from mmb.experiments.lists import read_list
from mmb.experiments.training import Entry

WARM_UP = 2
"""Steps of each part that are made before any is measured; the first one fills the cache."""


@dataclass
class Part:
    """A part of a training whose steps cost the same, and the seconds that each measured step took."""

    method: str
    name: str
    epochs: int
    trainer: Engine
    loader: DataLoader
    epoch: int = 0
    seconds: list[float] = field(default_factory=list)

    def step(self) -> None:
        """Load the first cases and train on them; note the processor time of both."""
        dataset = self.loader.dataset
        if isinstance(dataset, StagedDataset):
            dataset.epoch = self.epoch
        began = time.process_time()
        batch = self.loader.collate_fn([dataset[case] for case in range(self.loader.batch_size)])
        self.trainer._iteration(self.trainer, batch)
        self.seconds.append(time.process_time() - began)


def measure_budget(methods: str, output: str, dataset_dir: str | None = None, steps: int = 10) -> None:
    """Run the verb ``budget``, whose help describes what it does and the arguments."""
    check_counts(steps=steps)
    made = read_list(methods)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        data = dataset_dir or str(generate_phantom(Path(folder, "phantom")))
        shared = {"dataset_dir": str(Path(data).resolve()), "output_dir": folder, "quiet": True, "device": "cpu"}
        if made.cohort:
            shared["cohort"] = made.cohort
        trained = [entry for entry in made.entries if not isinstance(entry, Evaluated)]
        parts = [part for entry in trained for part in _parts(made.trainings_of(entry)[0], entry.name, shared)]
        for number in tqdm(range(WARM_UP + steps), desc="measuring", unit="round"):
            for part in parts:
                part.step()
                if number + 1 == WARM_UP:
                    part.seconds.clear()
    table = steps_table(parts)
    with replacing(output) as temporary:
        table.to_csv(temporary, index=False)
    print(table.to_string(index=False))


def _parts(entry: Entry, method: str, shared: dict[str, Any]) -> list[Part]:
    """Return the parts of a training, in the order in which they run."""
    parser = ConfigParser(entry.config())
    own = {"bundle_root": bundle_root(entry.bundle), "validate#evaluator#val_handlers": [], **shared}
    own["output_dir"] = os.path.join(shared["output_dir"], entry.bundle)
    parser.update({**own, "cache_dir": os.path.join(shared["output_dir"], "cache")})
    parser.parse()
    parts = []
    if "@pretrain" in parser.get("fit"):
        parser.get_parsed_content("pretrain#0")  # what fills in for missing content
        trainer = parser.get_parsed_content("pretrainer#trainer")
        parts.append(Part(method, "pretraining", parser.get("pretrain_epochs"), trainer, trainer.data_loader))
    trainer, epochs = parser.get_parsed_content("train#trainer"), parser.get("epochs")
    dataset = trainer.data_loader.dataset
    begins = [*dataset.from_epoch, epochs] if isinstance(dataset, StagedDataset) else [0, epochs]
    for number, (begin, end) in enumerate(pairwise(begins), start=1):
        name = "training" if len(begins) == 2 else f"training, stage {number}"
        parts.append(Part(method, name, end - begin, trainer, trainer.data_loader, epoch=begin))
    return parts


def steps_table(parts: list[Part]) -> pd.DataFrame:
    """Return a row for each part of each method: seconds and cases of a step, and the steps and epochs that it gets.

    The first method has the steps of its config. Every other method gets the same seconds: its earlier parts have the
    epochs of its config, and the last one the whole epochs nearest to what is left. Raises ValueError if the earlier
    parts take all of it.
    """
    methods = list(dict.fromkeys(part.method for part in parts))
    rows, budget = [], 0.0
    for method in methods:
        own, spent = [part for part in parts if part.method == method], 0.0
        for part in own:
            seconds, each = median(part.seconds), len(part.loader)
            epochs = part.epochs
            if method != methods[0] and part is own[-1]:
                epochs = round((budget - spent) / seconds / each)
                if epochs < 1:
                    raise ValueError(f"{method}: its earlier parts take {spent:.0f} s of {budget:.0f} s; shorten them.")
            spent += seconds * each * epochs
            cases = part.loader.batch_size
            rows.append((method, part.name, round(seconds, 3), cases, epochs, epochs * each, epochs * each * cases))
        budget = budget or spent
        rows = [(*row, round(100 * spent / budget)) if len(row) == 7 else row for row in rows]
    columns = ["method", "part", "seconds", "cases_of_a_step", "epochs", "steps", "cases", "percent"]
    return pd.DataFrame(rows, columns=columns)
