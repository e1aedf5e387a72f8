"""The tutorial runs from beginning to end, and is committed with the outputs of such a run."""

import json
from pathlib import Path

import pytest

TUTORIAL = Path(__file__).parents[1] / "docs" / "tutorial.ipynb"


def kinds(cells: list[dict]) -> list[set[str]]:
    """Return the kinds of output of each cell: names of streams, and media types."""
    return [
        {kind for output in cell.get("outputs", []) for kind in output.get("data", [output.get("name", "error")])}
        for cell in cells
    ]


def test_it_has_outputs_and_no_errors():
    found = set().union(*kinds(json.loads(TUTORIAL.read_text())["cells"]))
    assert {"stdout", "image/png", "text/markdown"} <= found
    assert not {"stderr", "error"} & found
    assert TUTORIAL.stat().st_size < 500_000


@pytest.mark.slow  # six segmentations and a comparison, two minutes
def test_it_runs():
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(TUTORIAL, 4)
    NotebookClient(notebook, timeout=600, resources={"metadata": {"path": str(TUTORIAL.parent)}}).execute()
    assert kinds(notebook.cells) == kinds(json.loads(TUTORIAL.read_text())["cells"])
