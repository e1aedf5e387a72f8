"""How often `predict` says "Do not use" of correct studies, and of studies made wrong on purpose.

    python docs/preparation/stops.py measure CASES     appends to stops.csv, beside this file; goes on where it ended
    python docs/preparation/stops.py                   prints the table of docs/preparation.md

CASES is a folder of the 53 open glioma cases (docs/open_glioma/README.md), each with a folder of its own. A study has
all four sequences or two. It is made wrong in one of its images, drawn by the case's name: left and right exchanged,
exchanged with another sequence, or that of the next patient. ``unnamed`` studies say of T1 and T1c only that both are
T1.
"""

import csv
import json
import random
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from scipy.stats import beta

from common.cohorts.registry import get_cohort
from common.cohorts.scan import find_cases
from common.modalities import GLIOMA
from mmb.clinic.recognise.reading import read_files, read_folder
from mmb.clinic.recognise.remarks import contradicted
from mmb.clinic.remark import Gravity
from mmb.clinic.report.doubts import image_warnings
from mmb.errors import StudyError

CPU, COHORT = torch.device("cpu"), get_cohort("open_glioma")
CSV = Path(__file__).with_name("stops.csv")
COLUMNS = ("case", "sequences", "kind", "image", "stops", "doubts")
PAIRS = [*combinations(GLIOMA, 2)]
WRONG = ("mirrored", "exchanged", "another patient's")


def studies(names: Sequence[str]) -> Iterator[tuple[str, tuple[str, ...], str]]:
    """Yield case, sequences and kind of each study; the pair that is made wrong differs from case to case."""
    for number, name in enumerate(names):
        for sequences in (GLIOMA, *PAIRS):
            yield name, tuple(sequences), "correct"
        for sequences in (GLIOMA, PAIRS[number % len(PAIRS)]):
            for kind in WRONG:
                yield name, tuple(sequences), kind
        yield name, tuple(GLIOMA), "unnamed"


def made(
    files: Mapping[str, Path], others: Mapping[str, Path], kind: str, image: str, folder: Path
) -> Mapping[str, Path] | Path:
    """Return the files of a study after one image was made wrong, or a folder that does not name T1 and T1c."""
    files = dict(files)
    if kind == "mirrored":
        found = nib.load(files[image])
        across = int(np.abs(found.affine[0, :3]).argmax())
        files[image] = folder / "mirrored.nii.gz"
        nib.save(nib.Nifti1Image(np.flip(np.asarray(found.dataobj), across), found.affine), files[image])
    elif kind == "exchanged":
        other = random.Random(image + str(files[image])).choice([name for name in files if name != image])
        files[image], files[other] = files[other], files[image]
    elif kind == WRONG[2]:
        files[image] = others[image]
    elif kind == "unnamed":
        for name, path in files.items():
            said = {"t1": "T1", "t1c": "T1", "t2": "T2", "flair": "FLAIR"}[name]
            (folder / f"image_{name[::-1]}.nii.gz").symlink_to(path)
            (folder / f"image_{name[::-1]}.json").write_text(json.dumps({"SeriesDescription": said}))
        return folder
    return files


def remarks(study: Mapping[str, Path] | Path, expected: Mapping[str, Path]) -> tuple[list[str], list[str]]:
    """Return the codes of remarks that stop a result, or of a refusal, and of those that doubt it."""
    try:
        read = read_folder(study, COHORT) if isinstance(study, Path) else read_files(study, COHORT)
    except StudyError as error:
        return [f"refused:{error.code}"], []
    doubted = image_warnings(read, read.aligned, read.brain, COHORT.brain_ml)
    said = [*contradicted(read.used), *read.remarks, *doubted]
    stops, doubts = ([it.code for it in said if it.gravity is each] for each in (Gravity.STOP, Gravity.DOUBT))
    if isinstance(study, Path):
        paths = {name: each.candidate.path.resolve() for name, each in read.used.items()}
        doubts += ["taken for another"] * (paths != {name: path.resolve() for name, path in expected.items()})
    return stops, doubts


def measure(cases: Path) -> None:
    """Append what was not measured yet to the CSV."""
    found = {Path(item["image"][0]).parent.name: item for item in find_cases(cases, COHORT)}
    files = {name: dict(zip(it["modalities"], map(Path, it["image"]), strict=True)) for name, it in found.items()}
    names = sorted(files)
    done = {(row["case"], row["sequences"], row["kind"]) for row in rows()} if CSV.exists() else set()
    with CSV.open("a", newline="") as file:
        writer = csv.writer(file)
        if not done:
            writer.writerow(COLUMNS)
        for case, sequences, kind in studies(names):
            if (case, "+".join(sequences), kind) in done:
                continue
            image = random.Random(case + kind).choice(sequences) if kind in WRONG else ""
            own = {name: files[case][name] for name in sequences}
            other = files[names[(names.index(case) + 1) % len(names)]]
            with tempfile.TemporaryDirectory() as folder:
                stops, doubts = remarks(made(own, other, kind, image, Path(folder)), own)
            writer.writerow([case, "+".join(sequences), kind, image, " ".join(stops), " ".join(doubts)])
            file.flush()


def rows() -> list[dict[str, str]]:
    """Return what was measured."""
    with CSV.open(newline="") as file:
        return [*csv.DictReader(file)]


def table() -> str:
    """Return the page's table: of each kind of study, how many got a stop, which ones, and how many at least a doubt.

    A stop of a correct study has the upper bound of its 95 % interval (Clopper and Pearson, one-sided).
    """
    counted: dict[tuple[str, str], list[dict[str, str]]] = defaultdict(list)
    for row in rows():
        counted[row["kind"], "four" if row["sequences"].count("+") > 1 else "two"].append(row)
    lines = ["| study | sequences | stopped | stopped or doubted | codes |", "|---|---|---|---|---|"]
    for (kind, number), found in counted.items():
        stopped, told = (
            sum(any(row[key] for key in keys) for row in found) for keys in (["stops"], ["stops", "doubts"])
        )
        bound = f" (at most {beta.ppf(0.95, stopped + 1, len(found) - stopped):.1%})" if kind == "correct" else ""
        codes = sorted({code for row in found for code in row["stops"].split()})
        by = ", ".join(f"{code} {sum(code in row['stops'].split() for row in found)}" for code in codes)
        lines.append(f"| {kind} | {number} | {stopped} of {len(found)}{bound} | {told} | {by} |")
    return "\n".join(lines)


if __name__ == "__main__":
    if sys.argv[1:2] == ["measure"]:
        measure(Path(sys.argv[2]))
    else:
        print(table())
