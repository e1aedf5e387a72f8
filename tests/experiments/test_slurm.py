"""A leaderboard as a Slurm job array: its script. No Slurm is needed."""

import json
import os
import subprocess
import sys

import pytest
from run_tools import run

from mmb.experiments.slurm import write_array


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
        assert said.splitlines() == ["-m", "mmb", "leaderboard", "a list.json", "out", "--only", name]


def test_folders_with_spaces_and_placeholders(tmp_path):
    """Slurm reads what is quoted as one word, and %a as the number of the task."""
    folder = tmp_path / "a b %a"
    folder.mkdir()
    script = write_array(["one"], ["leaderboard", "list.json", "out"], folder).read_text()
    assert f'#SBATCH --output="{tmp_path}/a b %%a/slurm_%a.txt"\n' in script
    assert " || exit\n" in script
    (tmp_path / 'x"y').mkdir()
    with pytest.raises(ValueError, match="Slurm cannot write its logs"):
        write_array(["one"], [], tmp_path / 'x"y')


def test_a_leaderboard_becomes_a_script_and_the_command_for_its_report(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("mmb.experiments.leaderboard.prepare_entries", lambda *_: None)  # takes seconds
    methods, out = tmp_path / "list.json", tmp_path / "out"
    methods.write_text(json.dumps({"methods": {"U-Net": {"bundle": "m3ae"}}}))
    assert run("leaderboard", methods, out, "--cohort", "brats2020", "--dataset_dir", tmp_path, "--slurm") is None
    words = f"mmb leaderboard {methods} {out} --cohort=brats2020 --dataset_dir={tmp_path}"
    script = (out / "array.sh").read_text()
    assert f'{words} --only "$' in script
    assert "    U-Net\n" in script
    assert f"{words} --at_once 0\n" in capsys.readouterr().out
