"""A bundle as a folder for MONAI's model zoo and the Hugging Face Hub: name, format of code, checksums, README.md."""

import ast
import inspect
import json
import os
import re
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from jinja2 import Template
from monai.bundle import ConfigParser

from common.evaluation.metrics.results import NOTE
from common.io.bundle import COMMON
from common.io.files import file_digest, require_writable
from common.io.weights import metadata_of
from tools.package import assemble, require_complete
from tools.ship import default_weights

CARD = Path(__file__).with_name("hub.md")  # template of the Hub's README.md, filled in from metadata.json
RESULTS = COMMON.parent / "docs" / "open_glioma" / "results"
LARGEST = 25_000_000  # maximum size in bytes of a file in the zoo's repository
LINKED = 1_024_000  # its commit hook refuses larger ones, so that nearly all bundles there link their weights


def make_zoo_folder(bundle: str | os.PathLike, output_dir: str | os.PathLike, url: str | None = None) -> Path:
    """Write and return ``models/glioma_mri_segmentation_<bundle>``, completely or not at all; arguments as of `zoo`."""
    target = Path(output_dir, "models", f"glioma_mri_segmentation_{require_complete(bundle)[0]}")
    if target.exists():
        raise FileExistsError(f"{target} exists already; move it away, or choose another folder.")
    with TemporaryDirectory(prefix=".", dir=output_dir) as temporary:
        folder = Path(temporary, "bundle")
        assemble(bundle, folder)
        shutil.copy(stored_results(bundle) / "results.csv", folder / "models")
        metadata = metadata_of(bundle)
        datasets = re.findall(r"BraTS[- ]\w+", metadata["data_source"]) or [metadata["data_source"]]
        card = Template(CARD.read_text()).render(metadata, folder=target.name, datasets=datasets)
        Path(folder, "README.md").write_text(card + "\n")
        _link_large_files(folder, url)
        _format(folder)
        names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        Path(folder, "SHA256SUMS").write_text("".join(f"{file_digest(folder / name)}  {name}\n" for name in names))
        target.parent.mkdir(exist_ok=True)
        os.rename(folder, target)
    return target


def stored_results(bundle: str | os.PathLike) -> Path:
    """Return the folder with the stored evaluation of a bundle's weights by the decision of its inference.json."""
    decision = ConfigParser.load_config_file(Path(bundle, "configs", "inference.json"))["decision"]
    weights = default_weights(bundle)
    wanted = metadata_of(bundle)["weights"][weights.name]["sha256"], decision
    for note in RESULTS.rglob(NOTE):
        facts = json.loads(note.read_text())["facts"]
        if (facts.get("weights"), facts.get("decision", "threshold")) == wanted:
            return note.parent
    raise FileNotFoundError(f"{RESULTS}: no evaluation of {weights} by {decision}; store it there.")


def _link_large_files(folder: Path, url: str | None) -> None:
    """Replace large files by entries of ``large_files.yml``; without a URL, only check that the zoo takes them."""
    large = sorted(path for path in folder.rglob("*") if path.stat().st_size > (LARGEST if url is None else LINKED))
    if not large:
        return
    if url is None:
        raise ValueError(
            f"{large[0].relative_to(folder)} has {large[0].stat().st_size} bytes, but the zoo takes files of at most "
            f"{LARGEST}. Publish the bundle's large files, and give --url with the address of the folder that has them."
        )
    lines = ["large_files:"]
    for path in large:
        name = path.relative_to(folder).as_posix()
        lines += [f'  - path: "{name}"', f'    url: "{url.rstrip("/")}/{name}"']
        lines += [f'    hash_val: "{file_digest(path)}"', '    hash_type: "sha256"']
        path.unlink()
    Path(folder, "large_files.yml").write_text("\n".join(lines) + "\n")


def _format(folder: Path) -> None:
    """Format JSON and Python as the zoo's checks demand."""
    try:
        import black
        import isort
    except ImportError as error:
        raise ImportError(f'{error}. The zoo checks the format of code: pip install -e ".[test]".') from error
    mode = black.Mode(line_length=120, magic_trailing_comma=False)
    config = isort.Config(profile="black", line_length=120, src_paths=(folder.parent,))  # `common` is third party there
    for path in folder.rglob("*.json"):
        path.write_text(json.dumps(json.loads(path.read_text()), indent=4) + "\n")
    for path in folder.rglob("*.py"):
        sorted_imports = isort.code(_with_comments(path.read_text()), config=config)
        path.write_text(black.format_str(sorted_imports, mode=mode))


def _with_comments(code: str) -> str:
    """Turn the docstrings of a module's constants into comments: the zoo allows a module one docstring."""
    lines = code.splitlines()
    for node in reversed(ast.parse(code).body[1:]):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = inspect.cleandoc(node.value.value)
            lines[node.lineno - 1 : node.end_lineno] = [f"# {line}".rstrip() for line in text.splitlines()]
    return "\n".join(lines) + "\n"


def zoo(bundle: str, output_dir: str, url: str | None = None) -> None:
    """Make the folder of a bundle for a pull request to MONAI's model zoo, and for the Hugging Face Hub.

    Args:
        bundle: the bundle's folder, e.g. bundles/m3ae.
        output_dir: the folder to write, e.g. a clone of the zoo: models/glioma_mri_segmentation_NAME.
        url: where the bundle's folder is published; files above 1 MB are then listed in large_files.yml, not copied.
    """
    print(make_zoo_folder(bundle, require_writable(output_dir), url))
