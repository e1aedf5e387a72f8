"""What an error says on the console, and what of it may leave the machine."""

import ast
import pickle
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from common.cohorts.brats import PHANTOM
from common.modalities import GLIOMA
from mmb import errors
from mmb.clinic.recognise.reading import read_folder
from mmb.errors import StudyError
from mmb.predictors.nnunet import _no_model
from mmb.server.errors import private

OPTION = re.compile(r"(^|[\s(])--[a-z]")


def calls() -> Iterator[tuple[str, ast.Call]]:
    """Yield where a StudyError is made in the clinic, and the call."""
    for path in sorted(Path(errors.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and re.fullmatch(r"(StudyError(\.of)?|wrong)", ast.unparse(node.func)):
                yield f"{path.name}:{node.lineno}", node


def for_others(call: ast.Call) -> list[ast.expr]:
    """Return the arguments of which the public text is made."""
    of, named = ast.unparse(call.func), {each.arg: each.value for each in call.keywords if each.arg != "command"}
    first = of == "StudyError.of" or (of == "StudyError" and (len(call.args) > 1 or "public" in named))
    return [*call.args[first:], *named.values()]


def test_no_public_text_has_an_option_of_the_command_line():
    """An option stands in ``command``, in a text that has another for the public, or in the name of a place."""
    found = dict(calls())
    assert len(found) > 40
    leaks = {}
    for place, call in found.items():
        for node in (node for argument in for_others(call) for node in ast.walk(argument)):
            literal = isinstance(node, ast.Constant) and isinstance(node.value, str) and OPTION.search(node.value)
            worded = isinstance(node, ast.Name | ast.Attribute) and ast.unparse(node).endswith(
                ("option", "todo", "EACH")
            )
            if literal or worded:
                leaks[place] = ast.unparse(node)
    assert not leaks


def test_each_reader_has_the_end_that_helps():
    error = StudyError(
        "Two are T1.", code="equal", about=("t1",), command="Choose: --series t1=NUMBER", elsewhere=errors.CHOOSE
    )
    assert str(error) == "Two are T1. Choose: --series t1=NUMBER"
    assert error.public == "Two are T1. Choose the series or file for each sequence."
    error.lines = ["series 3: T1."]
    assert str(error) == "Two are T1. Choose: --series t1=NUMBER\nseries 3: T1."
    assert error.public == "Two are T1. Choose the series or file for each sequence.\nseries 3: T1."
    copy = pickle.loads(pickle.dumps(error))
    assert (copy.text, copy.public, copy.code) == (error.text, error.public, "equal")
    of_files = error.of_files("Name the files.")
    assert (of_files.text, of_files.public) == (error.text, "Name the files.")
    damaged = StudyError("Doe.nii: damaged.", "A file is damaged.")
    damaged.lines = ["Doe.nii: T1."]
    assert damaged.of_files("Name the files.").public == "A file is damaged."


@pytest.mark.parametrize(("sent", "end"), [(True, ' The file: "Doe.dcm".'), (False, "")])
def test_only_who_has_sent_a_study_is_told_its_names(sent, end):
    with pytest.raises(StudyError) as refused, private(sent):
        raise StudyError("/a/Doe: 1 of 2 files is damaged.", "The study: damaged.", Path("/a/Doe.dcm"))
    assert refused.value.public == f"The study: damaged.{end}"


@pytest.mark.parametrize("names", [["Doe_t1"], ["Doe t1 mprage a", "Doe t1 mprage b"]])  # two are compared first
def test_a_damaged_image_file_is_known(names, tmp_path):
    for name in names:
        (tmp_path / f"{name}.nii.gz").write_bytes(b"damaged")
    with pytest.raises(StudyError, match=rf"{names[0]}\.nii\.gz: cannot be read") as refused:
        read_folder(tmp_path, PHANTOM)
    said = "An image file cannot be read, or is not a single volume."
    assert refused.value.public == said
    assert refused.value.to_its_sender().public == f'{said} The file: "{names[0]}.nii.gz".'


def test_who_needs_another_model_is_told_of_options_on_the_console_alone():
    error = _no_model(Path("models"), [["t1c", "flair"]], GLIOMA)
    assert str(error).endswith(" needs exactly t1c+flair. Use fewer: --modalities t1c,flair.")
    assert error.public.endswith(" needs exactly t1c+flair.")
    error = _no_model(Path("models"), [["t1c", "flair"]], ["t1c"])
    assert error.public.endswith(" needs exactly t1c+flair. Use a bundle, which takes any subset.")


def test_a_fresh_process_quotes_no_patient():
    code = (
        "from mmb.errors import silence_libraries; silence_libraries(); import logging, warnings, pydicom, highdicom;"
        "[logging.getLogger(name).error('1.2.3') for name in ('pydicom', 'highdicom', 'pydicom.pixels')];"
        "warnings.warn('1.2.3')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
