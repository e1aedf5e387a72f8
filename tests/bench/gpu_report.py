"""Measure the trainings of the papers on a GPU: ``python tests/bench/gpu_report.py OUT`` (``make gpu-report``).

The five bundles, and GSS on two more backbones, train for a few steps at the papers' sizes, on phantoms, in float32,
TF32 and bfloat16. Then each segments one case with all subsets of its modalities, and its logits of one window are
compared with those of the CPU. Last, a small training is interrupted and resumed. The tables are in OUT/gpu_report.md,
which is rewritten after each row.

``--small`` takes the sizes of a dry run and leaves out times and memory. It shows that everything works, on any device.
"""

import copy
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fire
import torch
from ignite.engine import Events
from monai.bundle import ConfigParser

from common.cohorts import get_cohort
from common.engines.efficiency import peak_memory_mb, reset_peak_memory, synchronise
from common.evaluation.report.tables import Table, framed
from common.io.checkpoints import read_checkpoint, write_checkpoint
from mmb.experiments.dry_run import made_small, on_phantoms
from mmb.experiments.training import Entry

TRAININGS = (
    Entry("M3AE", "m3ae", ("recipes/brats2018.json",)),
    Entry("MAG-MS", "mag_ms", ("recipes/msd_task01.json",)),
    Entry("MedMAP on mmFormer", "medmap", ("recipes/brats2020.json",)),
    Entry("PASSION on mmFormer", "passion", ("recipes/brats2020.json",)),
    Entry("GSS on RFNet", "gss", ("recipes/brats2020.json",), {"backbone": "RFNet"}),
    Entry("GSS on mmFormer", "gss", ("recipes/brats2020.json",), {"backbone": "mmFormer"}),
    Entry("GSS on M2FTrans", "gss", ("recipes/brats2020.json",), {"backbone": "M2FTrans"}),
)
PRECISIONS = {
    "float32": {"precision": "float32", "matmul_precision": "highest"},
    "TF32": {"precision": "float32", "matmul_precision": "high"},
    "bfloat16": {"precision": "bfloat16", "matmul_precision": "high"},
}
WARM_UP, STEPS = 3, 10
COSTS = ("seconds per step", "seconds", "peak GB")
"""Columns that mean nothing at the sizes of a dry run."""


@dataclass
class Report:
    """Tables that are written to a page after each row."""

    page: Path
    small: bool
    facts: str
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)

    def add(self, title: str, row: dict[str, Any]) -> None:
        if self.small:
            row = {key: value for key, value in row.items() if key not in COSTS}
        self.tables.setdefault(title, []).append(row)
        print(f"{title}: {row}", flush=True)
        tables = [_table(title, rows).to_markdown() for title, rows in self.tables.items()]
        self.page.write_text("\n\n".join(["# Trainings on a GPU", self.facts, *tables]))


def _table(title: str, rows: list[dict[str, Any]]) -> Table:
    names = list(dict.fromkeys(name for row in rows for name in row))
    return Table(title, framed([(name, [str(row.get(name, "")) for row in rows]) for name in names]))


def main(output_dir: str, device: str = "cuda", small: bool = False, only: str = "") -> None:
    """Measure, and write ``gpu_report.md``.

    Args:
        output_dir: folder for the page, the phantoms and their caches.
        device: a device of PyTorch's.
        small: whether sizes are those of a dry run.
        only: part of the names of the trainings to measure.
    """
    if device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("gpu-report: PyTorch finds no GPU here. Without one, try it with --device cpu --small.")
    folder = Path(output_dir).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    where = torch.cuda.get_device_name(device) if device.startswith("cuda") else "CPU"
    sizes = "sizes of a dry run" if small else f"{STEPS} steps after {WARM_UP} to warm up"
    facts = f"{where}, PyTorch {torch.__version__}, {time.strftime('%d %B %Y')}; {sizes}, on phantoms."
    precisions = list(PRECISIONS) if device.startswith("cuda") else ["float32"]
    report = Report(folder / "gpu_report.md", small, facts)
    for entry in (entry for entry in TRAININGS if only in entry.name):
        cohort = get_cohort(entry.config()["cohort"])
        (entry,) = (made_small if small else on_phantoms)([entry], cohort, folder / "data")
        for name in precisions:
            costs = train(entry, PRECISIONS[name], device, folder)
            report.add("Training", {"training": entry.name, "precision": name, **costs})
        report.add("All subsets of one case", {"training": entry.name, **sweep(entry, device, folder)})
    (entry,) = made_small([TRAININGS[0]], get_cohort("brats2018"), folder / "data")
    report.add("Interrupted and resumed", {"training": f"{entry.name}, small", **resume(entry, device, folder)})
    print(report.page.read_text())


def train(entry: Entry, settings: dict[str, Any], device: str, folder: Path) -> dict[str, Any]:
    """Return what a few steps of a training cost, and its loss."""
    parser = parsed(entry, device, folder, settings)
    parser.update(
        {
            "train#dataset#data": f"$@training_cases * {WARM_UP + STEPS}",
            "train#trainer#max_epochs": 1,
            "train#trainer#epoch_length": WARM_UP + STEPS,
        }
    )
    torch.backends.cudnn.allow_tf32 = settings["matmul_precision"] == "high"
    dataset = parser.get_parsed_content("train#dataset")
    for case in range(len(dataset) // (WARM_UP + STEPS)):
        dataset[case]  # fills the cache
    trainer, ends = parser.get_parsed_content("train#trainer"), []

    @trainer.on(Events.ITERATION_COMPLETED)
    def end(engine: Any) -> None:
        synchronise(torch.device(device))
        if engine.state.iteration == WARM_UP:
            reset_peak_memory(torch.device(device))
        ends.append(time.perf_counter())

    trainer.run()
    return {
        "seconds per step": f"{(ends[-1] - ends[WARM_UP - 1]) / STEPS:.3f}",
        "peak GB": f"{peak_memory_mb(torch.device(device)) / 1000:.1f}",
        "loss": f"{trainer.state.output['loss'].item():.3f}",
    }


def sweep(entry: Entry, device: str, folder: Path) -> dict[str, Any]:
    """Return what the segmentation of a case with all subsets costs, and how far logits are from those of the CPU.

    Weights are random: those that the training begins with.
    """
    parser = parsed(entry, device, folder, PRECISIONS["float32"])
    weights = folder / "initial.pt"
    network, facts = (parser.get_parsed_content(key) for key in ("network", "facts"))
    write_checkpoint(network.state_dict(), weights, facts)  # by which the evaluation knows how to build it
    shutil.rmtree(folder / "trained" / "evaluation", ignore_errors=True)  # a case there would not be segmented again
    overrides = {**parser.get_parsed_content("evaluation#overrides"), "ckpt_path": str(weights), "calibrate_on": None}
    root = Path(entry.files[0]).parents[1]
    files = [str(root / "configs" / name) for name in parser.get("evaluation_configs")]
    evaluation = ConfigParser(ConfigParser.load_config_files(files))
    evaluation.update({"bundle_root": str(root), **overrides, "cases": f"$({evaluation.get('cases')[1:]})[:1]"})
    torch.backends.cudnn.allow_tf32 = False
    evaluator = evaluation.get_parsed_content("evaluator")
    evaluator.run()
    result, network = evaluator.state.output, evaluation.get_parsed_content("network").eval()
    modalities = len(evaluation.get_parsed_content("cohort_def").modalities)
    image = torch.rand(1, modalities, *evaluation.get_parsed_content("crop"))
    image[:, 0] = torch.nan  # missing
    with torch.no_grad():
        logits = network(image.to(device)).cpu()
        expected = copy.deepcopy(network).cpu()(image)
    subsets = evaluation.get_parsed_content("subsets")
    return {
        "subsets": len(subsets),
        "seconds": f"{result.seconds * len(subsets):.1f}",
        "peak GB": f"{result.memory_mb / 1000:.1f}",
        "largest difference from the CPU": f"{float((logits - expected).abs().max() / expected.abs().max()):.1e}",
    }


def resume(entry: Entry, device: str, folder: Path) -> dict[str, Any]:
    """Return the largest difference between the weights of an uninterrupted training and of a resumed one."""
    for name, stopped_after, resumed in (("whole", None, False), ("parts", 2, False), ("parts", None, True)):
        settings = {"epochs": 4, "output_dir": str(folder / name), "resume": resumed, **PRECISIONS["float32"]}
        trainer = parsed(entry, device, folder, settings).get_parsed_content("train#trainer")
        if stopped_after:
            trainer.add_event_handler(Events.EPOCH_COMPLETED(once=stopped_after), trainer.terminate)
        trainer.run()
    files = (folder / name / "finetuned_last.pt" for name in ("whole", "parts"))
    whole, parts = (read_checkpoint(file)["network"] for file in files)
    largest = max(float((whole[key] - parts[key]).abs().max()) for key in whole)
    return {"largest difference of a weight": f"{largest:.1e}"}


def parsed(entry: Entry, device: str, folder: Path, settings: dict[str, Any]) -> ConfigParser:
    """Return the training's configs with the settings, of which ``initialize`` has run."""
    parser = ConfigParser(entry.config())
    own = {"output_dir": str(folder / "trained"), "cache_dir": str(folder / "cache"), "device": device, "quiet": True}
    own["validate#evaluator#val_handlers"] = []
    parser.update({"bundle_root": str(Path(entry.files[0]).parents[1]), **own, **settings})
    parser.get_parsed_content("initialize")
    return parser


if __name__ == "__main__":
    fire.Fire(main)
