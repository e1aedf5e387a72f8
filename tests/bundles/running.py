"""Running a bundle as its users do: in a process of its own, or faster within this one."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from monai.bundle import ConfigWorkflow

ROOT = Path(__file__).parents[2]
DEMO = ("inference.json", "recipes/phantom.json")
"""Inference with the demo weights, which the phantom's pictures are for."""
DEMO_EVALUATION = ("inference.json", "evaluate.json", "recipes/phantom.json")
TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m")


class Bundle:
    """A bundle of this repository.

    Args:
        name: of its folder.
    """

    def __init__(self, name: str) -> None:
        self.name, self.folder = name, ROOT / "bundles" / name

    def command(
        self,
        configs: Sequence[str],
        overrides: Mapping[str, Any],
        run_id: Sequence[str] = (),
        launcher: Sequence[str] = (sys.executable, "-m"),
    ) -> list[str]:
        """Return the command line that runs configs, named below ``configs/``, with keys set."""
        files = str([f"bundles/{self.name}/configs/{config}" for config in configs])
        options = [word for key, value in overrides.items() for word in (f"--{key}", str(value))]
        return [*launcher, "monai.bundle", "run", *run_id, "--config_file", files, *options]

    def run(self, configs: Sequence[str], overrides: Mapping[str, Any], **kwargs: Any) -> subprocess.CompletedProcess:
        """Run it from the repository in a process of its own."""
        return subprocess.run(self.command(configs, overrides, **kwargs), cwd=ROOT, capture_output=True, text=True)

    def succeed(
        self, configs: Sequence[str], overrides: Mapping[str, Any], **kwargs: Any
    ) -> subprocess.CompletedProcess:
        """Run it as `run` does; it has to succeed."""
        done = self.run(configs, overrides, **kwargs)
        assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
        return done

    def kill_in_epoch_two(self, configs: Sequence[str], overrides: Mapping[str, Any], stage: str) -> None:
        """Start a training and kill it -9 as soon as its progress bar shows a step of the stage's second epoch."""
        words = self.command(configs, overrides)
        process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        seen = b""
        while not re.search(rf"{stage} \[2/3\]: \[[1-9]".encode(), seen):
            piece = process.stderr.read1(4096)
            assert piece, seen[-2000:]
            seen += piece
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        process.stderr.close()

    def run_here(self, configs: Sequence[str], run_id: str = "run", **overrides: Any) -> None:
        """Run it within this process, which saves the start of another one."""
        workflow = ConfigWorkflow(
            config_file=[str(self.folder / "configs" / name) for name in configs],
            workflow_type="infer",
            logging_file=False,
            run_id=run_id,
            bundle_root=str(self.folder),
            **{key: str(value) if isinstance(value, Path) else value for key, value in overrides.items()},
        )
        workflow.initialize()
        workflow.run()
        workflow.finalize()

    def complaint(self, configs: Sequence[str], run_id: str = "run", **overrides: Any) -> str:
        """Return what a run that has to fail says, its causes included; '' if it does not fail."""
        try:
            self.run_here(configs, run_id, **overrides)
        except Exception as error:
            return "".join(traceback.format_exception(error))
        return ""


def copy_subset(case: Mapping[str, Any], subset: Sequence[str], folder: Path) -> Path:
    """Link a case's files of some modalities into a folder of their own."""
    folder.mkdir(parents=True)
    for path, name in zip(case["image"], case["modalities"], strict=True):
        if name in subset:
            os.symlink(path, folder / Path(path).name)
    return folder
