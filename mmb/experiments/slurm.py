"""A leaderboard's trainings as the tasks of a Slurm job array."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from common.io.files import replacing

SCRIPT = "array.sh"


def write_array(names: Sequence[str], command: Sequence[str], output_dir: str | os.PathLike) -> Path:
    """Write a batch script with one task for each training, to be submitted with ``sbatch``; return its path.

    If a task is preempted or its node fails, Slurm queues it again, and it resumes from its latest checkpoint.
    Partition, GPUs and time limit differ between clusters and are left to the options of ``sbatch``.

    ``command`` are the words after ``mmb`` that all tasks have in common; each adds the name of its
    training as ``--only``. ``output_dir`` gets ``array.sh`` and Slurm's logs, and has to be on a file system that all
    nodes share.
    """
    folder = Path(output_dir).resolve()
    lines = [
        "#!/bin/bash",
        "#SBATCH --job-name=leaderboard",
        f"#SBATCH --array=0-{len(names) - 1}",
        "#SBATCH --requeue",
        "#SBATCH --open-mode=append",
        f'#SBATCH --output="{_pattern(folder)}/slurm_%a.txt"',
        "# Submit with what your cluster needs, e.g.: sbatch --gres=gpu:1 --cpus-per-task=8 --time=2-0 array.sh",
        "trainings=(",
        *(f"    {shlex.quote(name)}" for name in names),
        ")",
        f"cd {shlex.quote(os.getcwd())} || exit",
        f'exec {shlex.join([sys.executable, "-m", "mmb", *command])} --only "${{trainings[SLURM_ARRAY_TASK_ID]}}"',
    ]
    script = folder / SCRIPT
    with replacing(script) as temporary:
        temporary.write_text("\n".join(lines) + "\n")
    return script


def _pattern(folder: Path) -> str:
    """Return a folder as Slurm reads it between double quotes, where ``%`` begins a placeholder."""
    if wrong := [mark for mark in ('"', "\\", "\n") if mark in str(folder)]:
        raise ValueError(f"{folder}: Slurm cannot write its logs to a folder with {wrong[0]!r} in its path; rename it.")
    return str(folder).replace("%", "%%")
