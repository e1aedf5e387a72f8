"""A leaderboard runs as a Slurm job array, on a real Slurm with one node."""

import json
import os
import shutil
import socket
import subprocess
import sys
import time

import pandas as pd
import pytest
from processes import ROOT, free_port

from mmb.experiments.slurm import write_array

METHODS = {
    "zero-filled U-Net": {"bundle": "m3ae", "configs": ["baselines/zero_filled.json"]},
    "U-HeMIS (it's small)": {"bundle": "mag_ms", "configs": ["baselines/hemis.json"]},
}
CONFIG = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
SlurmctldPort={port}
SlurmdPort={other_port}
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
ReturnToService=2
MpiDefault=none
DefMemPerCPU=100
NodeName={host} NodeAddr=127.0.0.1 CPUs=2 RealMemory=500 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES State=UP
"""


@pytest.fixture
def slurm(tmp_path, monkeypatch):
    """Start munge, slurmctld and slurmd; yield a function that runs a Slurm command and returns its output."""
    if not all(map(shutil.which, ("munged", "slurmctld", "slurmd"))):
        pytest.skip("needs Debian's slurmctld, slurmd, slurm-client and munge")
    folder, host = tmp_path / "slurm", socket.gethostname().split(".")[0]
    (folder / "state").mkdir(parents=True)
    (folder / "spool").mkdir()
    folder.chmod(0o755)
    (folder / "key").write_bytes(os.urandom(1024))
    (folder / "key").chmod(0o600)
    config = folder / "slurm.conf"
    config.write_text(CONFIG.format(host=host, folder=folder, port=free_port(), other_port=free_port()))
    monkeypatch.setenv("SLURM_CONF", str(config))
    files = {"key-file": "key", "socket": "munge.socket", "pid-file": "munge.pid", "seed-file": "munge.seed"}
    words = [f"--{option}={folder / name}" for option, name in files.items()]
    daemons = [
        subprocess.Popen(["munged", "--foreground", "--force", *words], stderr=subprocess.DEVNULL),
        subprocess.Popen(["slurmctld", "-D"], stderr=subprocess.DEVNULL),
        subprocess.Popen(["slurmd", "-D"], stderr=subprocess.DEVNULL),
    ]

    def call(*words: str) -> str:
        done = subprocess.run(words, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    try:
        try:
            until(lambda: "idle" in subprocess.run(["sinfo"], capture_output=True, text=True).stdout, 60)
        except AssertionError:
            said = [log.read_text()[-500:] for log in folder.glob("*.log")]
            pytest.skip(f"Slurm does not start on this machine, which needs root: {said}")
        yield call
        subprocess.run(["scancel", "--full", "--user", "root"], check=False)
    finally:
        for daemon in reversed(daemons):
            daemon.terminate()
            daemon.wait()


def until(is_so, seconds: float) -> None:
    limit = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < limit
        time.sleep(0.2)


def leaderboard(*words: str) -> str:
    command = [sys.executable, "-m", "mmb", "leaderboard", *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout


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


@pytest.mark.slow  # two small trainings, each of them evaluated
def test_a_task_that_is_queued_again_ends_as_a_local_run(slurm, tmp_path):
    methods, out, local = tmp_path / "list.json", tmp_path / "out", tmp_path / "local"
    methods.write_text(json.dumps({"methods": METHODS}))
    first, second = METHODS
    said = leaderboard(methods, out, "--dry_run", "--slurm")
    assert "2 trainings" in said
    (job,) = [word for word in slurm("sbatch", "--array=0", str(out / "array.sh")).split() if word.isdigit()]
    log = out / "zero_filled_u_net" / "log.txt"
    until(lambda: log.is_file() and "Epoch[1] Complete" in log.read_text(), 300)
    slurm("scontrol", "requeue", f"{job}_0")
    until(lambda: slurm("squeue", "--noheader", "--format=%T").strip() == "PENDING", 60)
    until(lambda: slurm("sinfo", "--noheader", "--format=%T").strip() == "idle", 60)  # or it would end the new run too
    # Slurm would wait for two minutes. In the second of the requeue it would refuse the new run: "credential revoked".
    slurm("scontrol", "update", f"job={job}_0", "StartTime=now+2seconds")
    until(lambda: not slurm("squeue", "--noheader"), 900)
    said = (out / "slurm_0.txt").read_text()
    assert "DUE TO JOB REQUEUE" in said
    assert (log.parent / "evaluation" / "evaluation.json").is_file(), said
    leaderboard(methods, out, "--dry_run", "--at_once", "0")  # trains nothing; a single method is not compared
    assert not (out / "report").exists()
    table = pd.read_csv(out / "leaderboard.csv").set_index("method")["state"]
    assert table.to_dict() == {first: "finished", second: "not finished"}
    leaderboard(methods, local, "--dry_run", "--only", first)
    results = [folder / log.parent.name / "evaluation" / "results.csv" for folder in (out, local)]
    pd.testing.assert_frame_equal(*map(pd.read_csv, results))
