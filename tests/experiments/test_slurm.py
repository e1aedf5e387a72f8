"""A leaderboard runs as a Slurm job array, whose tasks are run here without Slurm."""

import os
import subprocess
import sys

import pytest

from experiments.slurm import write_array


def test_each_task_gets_its_name_whatever_is_in_it(tmp_path):
    names = ["plain", 'it\'s "so" $HOME', "(a) b; c"]
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/bash\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "executable", str(program))
        script = write_array(names, ["leaderboard", "a list.json", "out"], tmp_path)
    assert "#SBATCH --array=0-2\n" in script.read_text()
    for number, name in enumerate(names):
        environment = {**os.environ, "SLURM_ARRAY_TASK_ID": str(number)}
        said = subprocess.run(["bash", str(script)], env=environment, capture_output=True, text=True).stdout
        assert said.splitlines() == ["-m", "tools", "leaderboard", "a list.json", "out", "--only", name]
