"""Datalists of arbitrary JSON are refused, or read as written with valid names."""

from __future__ import annotations

import json
import os

from fuzz.attempts import attempt
from hypothesis import given
from hypothesis import strategies as st

from common.cohorts import prepare

ATOMS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.sampled_from(["a", "../a", "/etc/passwd", "t1", "t1ce", "x.nii.gz", "brats2021", "training"]),
)
VALUES = st.recursive(
    ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)
KEYS = ("case", "image", "modalities", "label", "channels")


@given(
    st.lists(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=3), max_size=3),
    st.dictionaries(st.sampled_from(["training", "validation", "test", "cohort", "modalities"]), VALUES, max_size=1),
)
def test_datalists(tmp_path_factory, changes, top):
    folder = tmp_path_factory.getbasetemp() / "datalists"
    folder.mkdir(exist_ok=True)
    (folder / "x.nii.gz").touch()
    plain = {"image": ["x.nii.gz"], "modalities": ["t1"], "label": "x.nii.gz"}
    listed = {
        "training": [{"case": f"case{number}", **plain, **change} for number, change in enumerate(changes)],
        **top,
    }
    path = folder / "list.json"
    path.write_text(json.dumps(listed))

    def is_right(parts) -> bool:
        items = [item for part in ("training", "validation", "test") for item in parts[part]]
        asked = [item for part in ("training", "validation", "test") for item in listed.get(part, [])]
        return len({item["case"] for item in items}) == len(asked) and all(
            item["case"] == other["case"]
            and os.path.basename(item["case"]) == item["case"]
            and len(item["image"]) == len(item["modalities"])
            and item["modalities"] == (["t1c"] if other["modalities"] == ["t1ce"] else other["modalities"])
            for item, other in zip(items, asked, strict=True)
        )

    attempt(lambda: prepare("brats2021", folder, datalist=path), is_right)
