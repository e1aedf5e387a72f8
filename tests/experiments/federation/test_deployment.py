"""A server and two hospitals as NVFlare deploys them: separate processes that communicate by TLS over a port."""

import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from hospitals import SETTINGS, site_list
from processes import free_port

from common.io import read_weights

ROOT = Path(__file__).parents[3]
ADMIN = "admin@example.org"


def tools(*words):
    done = subprocess.run([sys.executable, "-m", "tools", *map(str, words)], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-4000:]
    return done.stdout.splitlines()[-1]


def wait_for(found, seconds, what):
    """Return the result of a function as soon as it is true."""
    end = time.monotonic() + seconds
    while not (value := found()):
        assert time.monotonic() < end, what()
        time.sleep(0.3)
    return value


def trainers(kit):
    """Return the processes that train at a site, that is, those that run in its kit's folder for a job."""
    folders = {int(path.parent.name): os.path.realpath(path) for path in Path("/proc").glob("[0-9]*/cwd")}
    return [process for process, folder in folders.items() if folder.startswith(f"{kit}/") and "/app_" in folder]


def services(kit):
    """Return the processes of a site, but for the script that starts them again."""
    lines = {int(path.parent.name): path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline")}
    return [process for process, line in lines.items() if f"\0-m\0{kit}\0".encode() in line] + trainers(kit)


@pytest.mark.slow  # eight processes that import NVFlare, MONAI and PyTorch
def test_a_training_that_is_killed_is_back_in_the_next_round_and_a_site_that_is_in_the_same(coarse_dir, tmp_path):
    sites = {site: site_list(coarse_dir, tmp_path / f"{site}.json", slice(1)) for site in ("north", "south")}
    plan, port = tmp_path / "plan.json", free_port()
    plan.write_text(json.dumps({"name": "two", "bundle": "passion", "rounds": 2, "settings": SETTINGS, "sites": sites}))
    kits = Path(tools("provision", plan, tmp_path / "kits", "--server", "localhost", "--admin", ADMIN, "--port", port))
    local, store = kits / "localhost" / "local", tmp_path / "store"
    made = (local / "resources.json").read_text()
    (local / "resources.json").write_text(made.replace("/tmp/nvflare", str(store)))
    logs = {kit: kits / kit / "log.txt" for kit in ("localhost", *sites)}
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    script = [str(ROOT / "experiments" / "federation" / "app" / "kits.sh")]

    def said():
        return "\n".join(f"{path}: {path.read_text()[-1500:]}" for path in kits.rglob("log.txt"))

    session = subprocess.Popen([*script, "start", str(kits)], env=environment, cwd=ROOT, start_new_session=True)
    try:
        wait_for(lambda: all("Successfully registered" in read(logs[site]) for site in sites), 120, said)
        assert not answers_without_certificate(port, kits / "north" / "startup" / "rootCA.pem")
        submit = tools("federate", plan, tmp_path / "job").split()
        submit += ["--startup-kit", str(kits / ADMIN)]
        done = subprocess.run(submit, capture_output=True, text=True, env=environment)
        job = re.search(r"job_id: (\S+)", done.stdout)[1]
        os.kill(wait_for(lambda: trainers(kits / "north"), 120, said)[0], signal.SIGKILL)
        wait_for(lambda: "Round 1 started" in read(kits / "localhost" / job / "log.txt"), 300, said)
        for process in services(kits / "north"):
            os.kill(process, signal.SIGKILL)
        folder = store / "jobs-storage" / job
        wait_for(lambda: "FINISHED" in read(folder / "meta"), 300, said)
        zipfile.ZipFile(folder / "workspace").extractall(tmp_path / "result")
        averaged = re.findall("Averaged (.*)[.]", (tmp_path / "result" / "log.txt").read_text())
        assert averaged == ["south (1 cases)", "north (1 cases), south (1 cases)"]
        assert "north has logged in anew" in read(logs["localhost"])
        assert read_weights(tmp_path / "result" / "app_server" / "FL_global_model.pt")
        subprocess.run([*script, "stop", str(kits)], check=True)
        wait_for(lambda: not list(kits.glob("*/daemon_pid.fl")), 60, said)
        assert not is_open(port)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(session.pid, signal.SIGKILL)


def test_the_script_needs_startup_kits():
    words = [ROOT / "mmb/experiments/federation/app/kits.sh", "start", "/nowhere"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode
    assert "/nowhere: no startup kits" in done.stderr


def read(path):
    return path.read_text(errors="replace") if path.is_file() else ""


def is_open(port):
    with socket.socket() as one:
        return one.connect_ex(("127.0.0.1", port)) == 0


def answers_without_certificate(port, root):
    """Return whether a server accepts TLS from a client without a certificate of its federation."""
    context = ssl.create_default_context(cafile=root)
    with socket.create_connection(("localhost", port), timeout=10) as plain, suppress(ssl.SSLError):
        context.wrap_socket(plain, server_hostname="localhost").recv(1)
        return True
    return False
