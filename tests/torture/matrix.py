"""Every command killed and cramped (``make torture``): ``python tests/torture/matrix.py FOLDER [ONLY]``, Linux, root.

Each try starts a command over an earlier result of it, in one of the circumstances below. It has to end in time, in the
old result whole or the new one whole, with a line that says why it failed, if it did, and with no traceback, no process
left and no file left in TMPDIR (after SIGKILL: none left by the next run). ``ONLY`` is a regular expression for the
names of tries, such as ``predict.*SIGTERM``. The folder keeps input and undisturbed results; a later call uses them.
"""

import gzip
import hashlib
import http.client
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
LIMIT = 900
"""Seconds after which a try counts as hanging."""
TINY = "--spacing [6,6,6] --crop [16,16,16] --backbone RFNet --width 4 --missing_rates None"

JOBS = {
    "predict": "tools predict {data}/study {out} m3ae --ckpt_path bundles/m3ae/models/phantom.pt --recipe phantom",
    "evaluation": "monai.bundle run --config_file ['bundles/passion/configs/inference.json',"
    "'bundles/passion/configs/evaluate.json','bundles/passion/configs/recipes/phantom.json'] "
    "--dataset_dir {data}/cohort --output_dir {out}",
    "training": "monai.bundle run --config_file bundles/passion/configs/train.json --dataset_dir {data}/cohort "
    f"--output_dir {{out}} --epochs 3 --evaluate [] {TINY}",
    "package": "tools package bundles/gss {out}",
    "download": "tools download gss {data}/packages/index.json {out}",
    "leaderboard": "tools leaderboard {data}/list.json {out} --dry_run",
    "label server": "clinic.server --studies {data} --models m3ae --recipe phantom --output_dir {out} --port 18400",
}
"""Command -> words after ``python -m``, from the repository."""
PHASES = (0.2, 0.5, 0.7, 0.85, 0.95)
"""When a signal is sent, or a folder vanishes, as a share of the time of an undisturbed run."""
AMONG_OTHERS = "setpriv --bounding-set=-dac_override,-dac_read_search"
"""Root without the right to read and write others' files."""
CIRCUMSTANCES = {
    **{
        f"{name} at {phase:.0%}": {"signal": name, "at": phase}
        for name in ("SIGKILL", "SIGTERM", "SIGINT")
        for phase in PHASES
    },
    **{f"TMPDIR of {size} MiB": {"tmpdir": size} for size in (1, 8, 100)},
    **{f"output of {size} MiB": {"output": size} for size in (1, 8, 100)},
    "read-only output": {"output": 100, "read_only": True},
    "another user's output": {"prefix": AMONG_OTHERS, "chown": "out"},
    "another user's input": {"prefix": AMONG_OTHERS, "chown": "data"},
    **{f"ulimit -v {size} GiB": {"prefix": f"prlimit --as={size << 30}"} for size in (2, 4)},
    "no HOME": {"prefix": "env -u HOME -u XDG_CACHE_HOME"},
    "umask 077": {"prefix": "sh -c 'umask 077; exec \"$@\"' -"},
    "LC_ALL=C and odd names": {"prefix": "env LC_ALL=C PYTHONUTF8=0 PYTHONCOERCECLOCALE=0", "named": "-病人 #1 e'x"},
    "python -O": {"options": "-O"},
    "two at once": {"twice": True},
    "clock set back": {"prefix": "env LD_PRELOAD=/usr/$LIB/faketime/libfaketime.so.1 FAKETIME=-2d"},
    **{f"input vanishes at {phase:.0%}": {"vanishes": True, "at": phase} for phase in PHASES[:4]},
}


@dataclass
class Outcome:
    """How a process ended: its exit code (None: it hung), the seconds it took, what it said, and its session."""

    code: int | None
    seconds: float
    said: str
    session: int


def command(words: str, data: Path, out: Path, how: dict) -> list[str]:
    """Return the command line of a job in a circumstance."""
    module, *rest = [word.format(data=data, out=out) for word in words.split()]
    python = [sys.executable, *shlex.split(how.get("options", "")), "-m", module]
    return [*shlex.split(how.get("prefix", "")), *python, *rest]


def run(line: list[str], place: Path, how: dict, seconds: float, data: Path) -> Outcome:
    """Run a command in a session of its own; disturb it when it is time."""
    environment = {**os.environ, "TMPDIR": str(place / "tmp"), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    began, log = time.monotonic(), place / "log"
    with log.open("wb") as file:
        process = subprocess.Popen(line, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)
    code = None
    try:
        if "clinic.server" in line:
            use_server(process, how)
        elif "at" in how:
            with suppress(subprocess.TimeoutExpired):
                process.wait(how["at"] * seconds)
        if how.get("vanishes"):
            subprocess.run(["umount", "-l", str(data)], check=True)
            if "clinic.server" in line:
                time.sleep(30)  # for its answer
                process.terminate()
        elif "signal" in how and process.poll() is None:
            send = os.killpg if how["signal"] == "SIGINT" else os.kill  # a terminal sends Ctrl-C to all of a group
            send(process.pid, getattr(signal, how["signal"]))
        code = process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    time.sleep(2)
    return Outcome(code, time.monotonic() - began - 2, log.read_text(errors="replace"), process.pid)


def use_server(process: subprocess.Popen, how: dict) -> None:
    """Have a study segmented, in the middle of which a signal is sent; else end the server afterwards."""
    for _ in range(600):
        with suppress(OSError, http.client.HTTPException):
            client = http.client.HTTPConnection("127.0.0.1", 18400, timeout=60)
            client.request("POST", "/infer/m3ae?image=study&output=json", headers={"Content-Length": "0"})
            if how.get("vanishes") or "signal" in how:
                time.sleep(8 * how["at"])
                return
            client.getresponse().read()
            break
        if process.poll() is not None:
            return
        time.sleep(0.3)
    process.terminate()


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of the files of a result, without locks and logs."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "log.txt", "minutes.txt")
    }


def damaged(path: Path) -> bool:
    """Return whether a file of a known kind cannot be read to its end."""
    import torch

    readers = {
        ".gz": lambda: gzip.decompress(path.read_bytes()),
        ".json": lambda: json.loads(path.read_text()),
        ".zip": lambda: zipfile.ZipFile(path).testzip(),
        ".pt": lambda: torch.load(path, weights_only=True, map_location="cpu"),
        ".html": lambda: re.search("</(html|table)>\\s*$", path.read_text()).end(),
    }
    try:
        readers.get(path.suffix, path.read_bytes)()
    except Exception:
        return True
    return False


def complaints(job: str, ended: Outcome, before: dict[str, str], place: Path, out: Path, how: dict) -> Iterator[str]:
    """Yield what a try did not keep of the promises."""
    killed = how.get("signal") == "SIGKILL"
    if ended.code is None:
        yield f"hung for {LIMIT} s"
    if "Traceback" in ended.said:
        yield "traceback: " + ended.said.strip().splitlines()[-1][:200]
    if ended.code not in (0, None) and "signal" not in how and not re.search(r"^error: .+", ended.said, re.M):
        yield f"exit code {ended.code} without a line that says why: {ended.said.strip()[-200:]!r}"
    now = digests(out)
    for name in sorted(before.keys() - now.keys()):
        yield f"lost {name}"
    hidden = [name for name in now.keys() - before.keys() if "/." in f"/{name}"]
    if hidden and not killed:
        yield f"left {hidden[0]} in the output"
    for name in [name for name in now if now[name] != before.get(name) and name not in hidden]:
        if damaged(out / name):
            yield f"cut off: {name}"
    if job in ("predict", "evaluation", "package", "download") and before:
        new = [name for name in before if now.get(name) not in (None, before[name])]
        if ended.code != 0 and new and "signal" not in how:  # which may come when all is done
            yield f"failed, but {new[0]} is no longer the old one"
    left = [path.name for path in (place / "tmp").rglob("*") if path.is_file()]
    if left and not killed:
        yield f"left {left[0]} in TMPDIR"
    if orphans := [line for line in processes() if line.split()[1] == str(ended.session)]:
        yield f"left a process: {orphans[0]}"


def processes() -> list[str]:
    """Return the running processes, a line each with the number of their session."""
    listed = subprocess.run(["ps", "-eo", "pid= , sid= , stat= , args="], capture_output=True, text=True).stdout
    return [line for line in listed.splitlines() if " Z" not in line]


@contextmanager
def mounted(folder: Path, size: int) -> Iterator[Path]:
    """Mount a file system in memory of a size in MiB."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=False, stderr=subprocess.DEVNULL)


def undisturbed(job: str, folder: Path) -> float:
    """Run a job once for its result; return the seconds it took."""
    note = folder / f"{job}.txt"
    if not note.exists():
        shutil.rmtree(folder / job, ignore_errors=True)
        (folder / "new" / "tmp").mkdir(parents=True, exist_ok=True)
        first = run(command(JOBS[job], folder / "data", folder / job, {}), folder / "new", {}, 0, folder / "data")
        assert first.code == 0 or job == "label server", first.said[-3000:]
        note.write_text(str(first.seconds))
    return float(note.read_text())


def attempt(job: str, name: str, folder: Path) -> list[str]:
    """Make one try; return what was not kept."""
    how, seconds = CIRCUMSTANCES[name], undisturbed(job, folder)
    place = folder / "try"
    shutil.rmtree(place, ignore_errors=True)
    (place / "tmp").mkdir(parents=True)
    out, data = place / how.get("named", "") / "out", folder / "data"
    with ExitStack() as stack:
        if "tmpdir" in how:
            stack.enter_context(mounted(place / "tmp", how["tmpdir"]))
        if "output" in how:
            stack.enter_context(mounted(out, how["output"]))
        if how.get("vanishes") or "named" in how or how.get("chown") == "data":
            data = place / how.get("named", "") / "data"
            if how.get("vanishes"):
                stack.enter_context(mounted(data, 400))
            shutil.copytree(folder / "data", data, dirs_exist_ok=True)
        with suppress(OSError):  # where the old result does not fit, there is none
            shutil.copytree(folder / job, out, dirs_exist_ok=True)
        if (digests(out) if out.exists() else {}) != digests(folder / job):
            for path in out.iterdir() if out.exists() else ():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if how.get("read_only"):
            subprocess.run(["mount", "-o", "remount,ro", str(out)], check=True)
        for path in [place / how["chown"], *(place / how["chown"]).rglob("*")] if "chown" in how else ():
            os.chown(path, 65534, 65534)
            path.chmod((0o700 if path.is_dir() else 0o600) if how["chown"] == "data" else path.stat().st_mode & 0o755)
        before, line = digests(out) if out.exists() else {}, command(JOBS[job], data, out, how)
        if how.get("twice"):
            other = subprocess.Popen(
                line,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
        ended = run(line, place, how, seconds, data)
        if how.get("twice"):
            other.terminate() if job == "label server" else other.wait(LIMIT)
        wrong = list(complaints(job, ended, before, place, out, how))
        if how.get("signal") == "SIGKILL" and not wrong:
            again = run(command(JOBS[job], data, out, {}), place, {}, seconds, data)
            wrong = [f"next run: {one}" for one in complaints(job, again, {}, place, out, {})]
        return wrong


def prepare(folder: Path) -> None:
    """Write the input of all jobs, coarse and small."""
    import nibabel as nib
    from phantom_case import HEAD, write_case

    from common.cohorts import generate_phantom

    data, draft = folder / "data", folder / "draft"
    if data.exists():
        return
    write_case(draft / "study", "x", box=HEAD)
    (draft / "study" / "x_seg.nii.gz").unlink()
    generate_phantom(draft / "cohort", 6)
    for path in (draft / "cohort").rglob("*.nii.gz"):
        nib.save(nib.load(path).slicer[::2, ::2, ::2], path)
    methods = {name: {"bundle": "gss", "configs": ["baselines/backbone.json"]} for name in ("one", "two")}
    (draft / "list.json").write_text(json.dumps({"methods": methods}))
    subprocess.run(
        [sys.executable, "-m", "tools", "package", "bundles/gss", str(draft / "packages")], cwd=ROOT, check=True
    )
    draft.rename(data)


def main(folder: Path, only: str = "") -> None:
    """Make all tries, print a line each, and the sums."""
    prepare(folder)
    names = [(job, name) for job in JOBS for name in CIRCUMSTANCES if re.search(only, f"{job}, {name}")]
    held = 0
    for job, name in names:
        wrong = attempt(job, name, folder)
        held += not wrong
        print(f"{job}, {name}: {'; '.join(wrong) or 'held'}", flush=True)
    print(f"{len(names)} tries, {held} held")
    sys.exit(held < len(names))


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve(), *sys.argv[2:])
