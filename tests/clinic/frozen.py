"""What became of studies, to compare before and after a change of the code: ``python tests/clinic/frozen.py OUT``.

OUT is the output folder of ``mmb predict STUDIES OUT --each``. Prints, by study, its choices, volumes and remarks, and
digests of what was written; two outputs are compared by ``diff``.
"""

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pydicom

FOUND = ("source", "header", "confidence", "modality", "use", "reason", "problem", "instead")


def record(folder: Path) -> dict[str, Any]:
    """Return what became of a study, from the files of its result."""
    summary = json.loads((folder / "summary.json").read_text())
    label = np.asarray(nib.load(folder / "label.nii.gz").dataobj)
    made = {
        "asked": summary["asked"],
        "found": [{key: each[key] for key in FOUND} for each in summary["found"]],
        "answer": summary["answer"],
        "volumes": {name: round(ml, 3) for name, ml in summary["volumes"].items()},
        "classes": {name: round(ml, 3) for name, ml in summary["classes"].items()},
        "remarks": [[each["gravity"], each["code"], *each["about"]] for each in summary["remarks"]],
        "texts": [each["text"] for each in summary["remarks"]],
        "label": digest(label),
    }
    if (folder / "seg.dcm").is_file():
        seg = pydicom.dcmread(folder / "seg.dcm")
        made["seg"] = {"segments": [s.SegmentLabel for s in seg.SegmentSequence], "pixels": digest(seg.pixel_array)}
        made["sr"] = [*numbers(pydicom.dcmread(folder / "report.dcm"))]
    return made


def digest(voxels: np.ndarray) -> str:
    return f"{'x'.join(map(str, voxels.shape))} {hashlib.sha256(np.ascontiguousarray(voxels).data).hexdigest()[:16]}"


def numbers(item: pydicom.Dataset) -> Any:
    """Yield name and value of each number of a structured report."""
    for inner in item.get("ContentSequence", ()):
        if "MeasuredValueSequence" in inner:
            yield inner.ConceptNameCodeSequence[0].CodeMeaning, str(inner.MeasuredValueSequence[0].NumericValue)
        yield from numbers(inner)


if __name__ == "__main__":
    folders = sorted(path.parent for path in Path(sys.argv[1]).glob("*/summary.json"))
    print(json.dumps({folder.name: record(folder) for folder in folders}, indent=1, ensure_ascii=False))
