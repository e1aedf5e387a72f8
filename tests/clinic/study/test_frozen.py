"""Three studies of the phantom become what they became: choices, volumes, SEG, SR and every sentence.

After a change that is meant, write tests/golden/studies.json anew: ``python tests/clinic/study/test_frozen.py``.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from archive_stack import SERIES, write_studies
from clinic.frozen import record

from mmb.clinic.study.batch import segment_each
from mmb.clinic.study.options import Options

GOLDEN = Path(__file__).parents[2] / "golden" / "studies.json"
NUMBERS = ("volumes", "classes", "label", "seg", "sr", "answer", "warnings", "notes")
"""What may differ a little between processors, or quotes such a number."""


def segmented(folder: Path) -> dict[str, dict[str, Any]]:
    write_studies(folder)
    (folder / "studies").mkdir()
    for name in SERIES:
        (folder / name).rename(folder / "studies" / name)
    outcomes = [each for each, _ in segment_each(folder / "studies", folder / "out", Options(recipe="phantom"))]
    assert not [each.failure for each in outcomes if each.failure]
    return {name: record(folder / "out" / name) for name in sorted(SERIES)}


@pytest.mark.slow  # three studies, half a minute
def test_studies_become_what_they_became(tmp_path):
    before, now = json.loads(GOLDEN.read_text()), json.loads(json.dumps(segmented(tmp_path)))
    for name, each in now.items():
        assert {k: v for k, v in each.items() if k not in NUMBERS} == {
            k: v for k, v in before[name].items() if k not in NUMBERS
        }
        for key in ("volumes", "classes"):
            assert each[key] == pytest.approx(before[name][key], rel=0.02, abs=0.1)
        for key in ("warnings", "notes"):
            assert len(each[key]) == len(before[name][key])
        assert each["seg"]["segments"] == before[name]["seg"]["segments"]
        assert [what for what, _ in each["sr"]] == [what for what, _ in before[name]["sr"]]
