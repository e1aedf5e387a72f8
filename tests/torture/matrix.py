"""Commands killed and cramped (``make torture``): ``python tests/torture/matrix.py FOLDER [ONLY]``, Linux, root.

Each try starts a command over an earlier result of it, in one of the circumstances below. It has to end in time, with
no process left, and to leave the old result whole or the new one whole; what SIGKILL stops has to succeed when it is
run again. ``ONLY`` is a regular expression for the names of tries, such as ``predict.*SIGTERM``. The folder keeps input
and undisturbed results; a later call uses them.
"""

import gzip
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
LIMIT = 900
"""Seconds after which a try counts as hanging."""
TINY = "--spacing [6,6,6] --crop [16,16,16] --backbone RFNet --width 4 --missing_rates null"

JOBS = {
    "predict": "mmb predict {data}/study {out} m3ae --ckpt_path bundles/m3ae/models/phantom.pt --recipe phantom",
    "evaluation": "monai.bundle run --config_file ['bundles/passion/configs/inference.json',"
    "'bundles/passion/configs/evaluate.json','bundles/passion/configs/recipes/phantom.json'] "
    "--dataset_dir {data}/cohort --output_dir {out}",
    "training": "monai.bundle run --config_file bundles/passion/configs/train.json --dataset_dir {data}/cohort "
    f"--output_dir {{out}} --epochs 3 --evaluate [] {TINY}",
    "package": "tools package bundles/gss {out}",
    "leaderboard": "mmb leaderboard {data}/list.json {out} --dry_run",
}
"""Command -> words after ``python -m``, from the repository."""
PHASES = (0.3, 0.6, 0.85)
"""When a signal is sent, as a share of the time of an undisturbed run."""
CIRCUMSTANCES = {
    **{
        f"{name} at {phase:.0%}": {"signal": name, "at": phase}
        for name in ("SIGKILL", "SIGTERM", "SIGINT")
        for phase in PHASES
    },
    **{f"output of {size} MiB": {"output": size} for size in (1, 8)},
    "two at once": {"twice": True},
}


def start(job: str, folder: Path, out: Path, log: str = "log") -> subprocess.Popen:
    """Start a command in a session of its own."""
    words = [sys.executable, "-m", *(word.format(data=folder / "data", out=out) for word in JOBS[job].split())]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (folder / log).open("wb") as file:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=file, stderr=file, start_new_session=True)


def ended(process: subprocess.Popen) -> int | None:
    """Return a command's exit code, or None if it has to be killed because it hangs."""
    try:
        return process.wait(LIMIT)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return None


def digests(folder: Path) -> dict[str, str]:
    """Return the digests of the files of a result, without logs and what is hidden."""
    paths = {path.relative_to(folder): path for path in sorted(folder.rglob("*")) if path.is_file()}
    return {
        str(name): hashlib.sha256(path.read_bytes()).hexdigest()
        for name, path in paths.items()
        if name.name not in ("log.txt", "minutes.txt") and "/." not in f"/{name}"
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


def complaints(job: str, process: subprocess.Popen, before: dict[str, str], out: Path, how: dict) -> Iterator[str]:
    """Yield what a try did not keep of the promises."""
    if (code := ended(process)) is None:
        yield f"hung for {LIMIT} s"
    time.sleep(2)
    if left := subprocess.run(["pgrep", "-a", "-s", str(process.pid)], capture_output=True, text=True).stdout:
        yield f"left a process: {left}"
    now = digests(out)
    yield from (f"lost {name}" for name in sorted(before.keys() - now.keys()))
    new = [name for name in now if now[name] != before.get(name)]
    yield from (f"cut off: {name}" for name in new if damaged(out / name))
    if job in ("predict", "evaluation", "package") and code != 0 and "signal" not in how:  # which may come at the end
        yield from (f"failed, but {name} is no longer the old one" for name in new if name in before)


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
        began = time.monotonic()
        assert ended(start(job, folder, folder / job)) == 0, (folder / "log").read_text()
        note.write_text(str(time.monotonic() - began))
    return float(note.read_text())


def attempt(job: str, name: str, folder: Path) -> list[str]:
    """Make one try; return what was not kept."""
    how, seconds = CIRCUMSTANCES[name], undisturbed(job, folder)
    shutil.rmtree(folder / "try", ignore_errors=True)
    out = folder / "try"
    out.mkdir()
    with ExitStack() as stack:
        if "output" in how:
            stack.enter_context(mounted(out, how["output"]))
        with suppress(OSError):  # where the old result does not fit, there is none
            shutil.copytree(folder / job, out, dirs_exist_ok=True)
        before = digests(out)
        if before != digests(folder / job):
            for path in out.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            before = {}
        processes = [start(job, folder, out, f"log{n}") for n in range(2 if how.get("twice") else 1)]
        if "signal" in how:
            with suppress(subprocess.TimeoutExpired):
                processes[0].wait(how["at"] * seconds)
            if processes[0].poll() is None:
                send = os.killpg if how["signal"] == "SIGINT" else os.kill  # a terminal sends Ctrl-C to all of a group
                send(processes[0].pid, getattr(signal, how["signal"]))
        wrong = [complaint for process in processes for complaint in complaints(job, process, before, out, how)]
        if how.get("signal") == "SIGKILL" and not wrong:
            again = start(job, folder, out)
            wrong = [f"next run: {complaint}" for complaint in complaints(job, again, digests(out), out, {})]
            wrong += [] if again.returncode == 0 else [f"next run: exit code {again.returncode}"]
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
