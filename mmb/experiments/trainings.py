"""Trainings of a list, each with its evaluation in a process and a folder of its own."""

import json
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import Queue
from typing import Any

import pandas as pd
import torch
from fire.parser import DefaultParseValue
from tqdm import tqdm

from common.evaluation.report.sections import stems
from common.io.files import replacing
from mmb.experiments.folders import VARIANT, finished, note_of, prepare_training, require_own_folder
from mmb.experiments.training import Entry

logger = logging.getLogger(__name__)
TAKEN = ("report", "tables", "phantom", "dry_run")
"""Names of folders that a leaderboard has beside those of the methods."""
MINUTES = "minutes.txt"
"""File in a method's folder with the total time of all its runs, in minutes."""


def prepare_entries(entries: Sequence[Entry], folders: Mapping[str, Path], shared: Mapping[str, Any]) -> None:
    """Check each method that is not finished, up to its first training step, and write a note into its folder."""
    for entry in entries:
        folder = folders[entry.name]
        require_own_folder(folder, entry, shared)
        if finished(folder) and not (folder / VARIANT).is_file():
            raise ValueError(f"{folder}: holds a training that was not started from here; choose another output_dir.")
    new = [entry for entry in entries if not finished(folders[entry.name])]
    _require_usable(new, folders, shared)
    for entry in new:
        with replacing(folders[entry.name] / VARIANT) as temporary:
            temporary.write_text(json.dumps(note_of(entry, shared), indent=4, default=str))


def run_entries(
    entries: Sequence[Entry],
    output_dir: str | os.PathLike,
    shared: Mapping[str, Any],
    at_once: int | None = None,
    only: str | None = None,
) -> list[str]:
    """Train and evaluate each method in its own process.

    Each method has a folder in ``output_dir`` with its ``log.txt``. A finished method is skipped, an interrupted one is
    resumed. ``leaderboard.csv`` lists the total time of each (columns method, folder, minutes, state). Returns the
    names of the methods that failed; the errors are in their logs.

    Args:
        shared: config keys to set for all methods, with their values, e.g. ``cohort`` and ``dataset_dir``.
        at_once: number of parallel processes. They are distributed over the GPUs, or share the CPU's cores evenly,
            since small networks train faster side by side than one after another on all cores. None: one process per
            GPU, or one on the CPU.
        only: name of the only method to run; None for all.
    """
    environments = _environments(at_once)
    folders = folders_of(entries, output_dir)
    chosen = [entry for entry in entries if only in (None, entry.name)]
    if not chosen:
        raise ValueError(f"--only {only!r}: expected one of {', '.join(repr(entry.name) for entry in entries)}.")
    prepare_entries(chosen, folders, shared)
    free: Queue[dict[str, str]] = Queue()
    for environment in environments:
        free.put(environment)
    running: list[subprocess.Popen] = []
    failed, bar = [], tqdm(total=len(chosen), unit="method", desc="leaderboard")
    with ThreadPoolExecutor(len(environments)) as pool, bar:

        def run(entry: Entry) -> None:
            environment = free.get()
            try:
                bar.set_postfix_str(entry.name)
                if not _run(entry, folders[entry.name], shared, environment, running):
                    failed.append(entry.name)
            finally:
                free.put(environment)

        try:
            for done in as_completed([pool.submit(run, entry) for entry in chosen]):
                done.result()
                _write_times(entries, folders, output_dir)
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in running:
                process.terminate()
            raise
    return [entry.name for entry in chosen if entry.name in failed]


def folders_of(entries: Sequence[Entry], output_dir: str | os.PathLike) -> dict[str, Path]:
    """Return each method's folder, named after it; raises ValueError if two names would share one."""
    named: dict[str, str] = {}
    for entry in entries:
        place = stems([*TAKEN, entry.name])[entry.name]
        if named.setdefault(place, entry.name) != entry.name:
            raise ValueError(
                f"methods {named[place]!r} and {entry.name!r} would share the folder {place}; rename one, so that they "
                "differ in the letters a to z or digits among the first 60 characters."
            )
    return {name: Path(output_dir, place) for place, name in named.items()}


def _environments(at_once: int | None) -> list[dict[str, str]]:
    """Return environment variables for each parallel process: its GPU, or its number of CPU threads."""
    gpus = torch.cuda.device_count()
    at_once = max(gpus, 1) if at_once is None else at_once
    if gpus:
        visible = (os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))).split(",")
        return [{"CUDA_VISIBLE_DEVICES": visible[process % gpus]} for process in range(at_once)]
    if at_once == 1:
        return [{}]
    return [{"OMP_NUM_THREADS": str(max(1, torch.get_num_threads() // at_once))}] * at_once


def _run(
    entry: Entry,
    folder: Path,
    shared: Mapping[str, Any],
    environment: Mapping[str, str],
    running: list[subprocess.Popen],
) -> bool:
    """Run a method unless it is finished; return whether it is finished afterwards. ``running`` gets its process."""
    if finished(folder):
        logger.info(f"{entry.name}: already finished")
        return True
    settings = _settings(entry, folder, shared)
    options = [word for key, value in settings.items() for word in (f"--{key}", _as_text(value))]
    command = [sys.executable, "-m", "monai.bundle", "run", "--config_file", str(entry.files), *options]
    before, began = _minutes(folder), time.monotonic()
    with open(folder / "log.txt", "a") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, **environment})
        running.append(process)
        process.wait()
    with replacing(folder / MINUTES) as temporary:
        temporary.write_text(f"{before + (time.monotonic() - began) / 60:.2f}\n")
    if process.returncode in (-signal.SIGINT, -signal.SIGTERM):
        logger.warning(f"{entry.name}: stopped; give the same command again to continue")
    elif process.returncode:
        killed = f" (killed by signal {-process.returncode}: perhaps memory ran out)" if process.returncode < 0 else ""
        logger.error(f"{entry.name}: failed{killed}, see {folder / 'log.txt'}")
    return process.returncode == 0 and finished(folder)


def _minutes(folder: Path) -> float:
    """Return the total time of a method's runs so far, in minutes."""
    return float((folder / MINUTES).read_text()) if (folder / MINUTES).is_file() else 0.0


def _write_times(entries: Sequence[Entry], folders: Mapping[str, Path], output_dir: str | os.PathLike) -> None:
    rows = []
    for entry in entries:
        state = "finished" if finished(folders[entry.name]) else "not finished"
        rows.append((entry.name, folders[entry.name].name, round(_minutes(folders[entry.name]), 1), state))
    with replacing(Path(output_dir, "leaderboard.csv")) as temporary:
        pd.DataFrame(rows, columns=["method", "folder", "minutes", "state"]).to_csv(temporary, index=False)


def _require_usable(entries: Sequence[Entry], folders: Mapping[str, Path], shared: Mapping[str, Any]) -> None:
    """Prepare each method up to its first step, as its process will, so that errors show before any is trained."""
    wrong = []
    for entry in tqdm(entries, desc="checking", unit="method", leave=False):
        try:
            prepare_training(entry.files, _settings(entry, folders[entry.name], shared))
        except Exception as error:  # whatever a config's parts raise
            wrong.append(f"{entry.name}: {error}")
    if wrong:
        raise ValueError("no method was started, because of\n" + "\n".join(wrong))


def _settings(entry: Entry, folder: Path, shared: Mapping[str, Any]) -> dict[str, Any]:
    return {**entry.settings, **shared, "method": entry.name, "output_dir": str(folder), "resume": True}


def _as_text(value: Any) -> str:
    """Return a value as a command-line option; a text that would be parsed as another type is put in quotes."""
    if isinstance(value, str):
        return value if DefaultParseValue(value) == value else repr(value)
    return "$None" if value is None else str(value)
