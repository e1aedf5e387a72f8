"""Finding files, and writing them atomically."""

import hashlib
import os
import secrets
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from mimetypes import MimeTypes
from pathlib import Path
from typing import NoReturn

SUFFIXES = (".nii.gz", ".nii", ".mha", ".nrrd", ".img")
"""Suffixes of image files. Analyze images are named by their ``.img`` file, so that changed voxels are noticed."""
INSTALLED = {"site-packages", "dist-packages"}
"""Names of the folders of installed packages."""
FOREIGN = {
    **dict.fromkeys((".mgz", ".mgh", ".mnc", ".mhd", ".nhdr", ".par", ".rec"), "convert it to NIfTI (.nii.gz)"),
    **dict.fromkeys((".img.gz", ".hdr.gz", ".nii.bz2", ".nii.xz", ".nii.zip"), "unpack it, or convert it to .nii.gz"),
    **dict.fromkeys((".zip", ".tar", ".tgz", ".tar.bz2", ".tar.xz", ".gz", ".bz2", ".xz", ".7z", ".rar"), "unpack it"),
    **dict.fromkeys(
        (".npy", ".npz", ".h5", ".hdf5"),
        "an array says neither voxel size nor position; use the images that it was made from",
    ),
}
"""Suffix of files that may hold images but are not read -> what to do with them."""
BESIDE = (".hdr", ".db", ".lnk", ".docx", ".pptx", ".xlsx")
"""Suffixes of further files that lie beside images: headers of Analyze images, what Windows leaves, documents."""
NO_KIND = ("application/octet-stream", "application/dicom")
PROGRAMS = (b"MZ", b"\x7fELF")  # how they begin
CONTROL = {*range(32)} - {*b"\t\n\f\r\x1a\x1b"}  # bytes that a text does not have
_TYPES = MimeTypes()  # Python's own table: that of the system may name other kinds


def walk(folder: str | os.PathLike) -> list[Path]:
    """Return the files in a folder and below it, sorted.

    Links to folders elsewhere are followed, once. Links to folders above or within it are not, so circular links end.
    Hidden files and folders, and entries that are not files (such as pipes), are left out. A broken link is returned as
    a file, so that whoever opens it reports it. Raises PermissionError if a folder below cannot be read; the message
    names only ``folder`` itself.
    """
    root = Path(folder).resolve()
    seen, files = {root, *root.parents}, []

    def is_new(path: Path) -> bool:
        real = path.resolve()
        if real in seen or (path.is_symlink() and real.is_relative_to(root)):
            return False
        seen.add(real)
        return True

    def refuse(error: OSError) -> NoReturn:
        raise error

    try:
        for place, folders, names in os.walk(Path(folder), onerror=refuse, followlinks=True):
            folders[:] = [name for name in sorted(folders) if not name.startswith(".") and is_new(Path(place, name))]
            paths = [Path(place, name) for name in names if not name.startswith(".")]
            files += [path for path in paths if path.is_file() or not path.exists()]
    except OSError as error:
        # File names in a study's folder may contain patients' names.
        raise PermissionError(
            f"{folder}: a folder in it cannot be read ({error.strerror or error}), so its files would be missed. "
            "Make everything in it readable (chmod -R u+rX), or move the unreadable folder away; "
            f"find {folder} ! -readable shows it."
        ) from None
    return sorted(files)


def is_dicom(path: Path) -> bool:
    """Return whether a file has DICOM's file format (PS3.10, section 7.1) and can be opened."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def unread(paths: Sequence[Path]) -> tuple[list[str], list[Path]]:
    """Return a remark for each kind of file that may hold images but is not read, and the files; none is named.

    These are the kinds in `FOREIGN`, and what is neither an image nor known to lie beside images.
    """
    suffixes = sorted(FOREIGN, key=len, reverse=True)
    kinds: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        name = path.name.lower()
        kind = next((suffix for suffix in suffixes if name.endswith(suffix) and not name.endswith(SUFFIXES)), "")
        if kind or is_strange(path):
            kinds[kind].append(path)
    remarks = []
    for kind, files in sorted(kinds.items()):
        count = f"{len(files)} {'file' if len(files) == 1 else 'files'} not read"
        what = f"({kind}): {FOREIGN[kind]}" if kind else f"(of {len(paths)}; damaged or unknown): copy them again"
        remarks.append(f"{count} {what}, or remove what is not needed")
    return remarks, [path for files in kinds.values() for path in files]


def is_strange(path: Path) -> bool:
    """Return whether a file is no image, and none of the texts, pictures, documents and programs that lie beside them.

    An empty file without a suffix is one, as a copy that broke off leaves it.
    """
    name = path.name.lower()
    kind = _TYPES.guess_type(name)[0]
    if name == "dicomdir" or name.endswith((*SUFFIXES, *BESIDE)) or (kind and kind not in NO_KIND):
        return False
    try:
        with path.open("rb") as file:
            start = file.read(1024)
    except OSError:
        return True
    return start[128:132] != b"DICM" and not start.startswith(PROGRAMS) and (not start or bool({*start} & CONTROL))


def file_digest(path: str | os.PathLike) -> str:
    """Return the SHA-256 of a file's content."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def require_writable(folder: str | os.PathLike) -> str:
    """Create a folder if needed, check that files can be written to it, and return it.

    Raises PermissionError if they cannot, or if the folder belongs to an installed package.
    """
    if INSTALLED & {*Path(folder).resolve().parts}:
        raise PermissionError(f"{folder}: the folder lies within an installed package; pass another --output_dir.")
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=Path(folder)):
            pass
    except OSError as error:
        raise PermissionError(
            f"{folder}: cannot write there ({error.strerror or error}); make it writable, or pass another --output_dir."
        ) from error
    return str(folder)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffixes) that replaces ``path`` when the block ends without error.

    Raises IsADirectoryError if ``path`` is a folder.
    """
    target = Path(path)
    require_no_folder(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    unique = f"{os.getpid()}{secrets.token_hex(4)}"  # process numbers alone repeat on other machines
    temporary = target.with_name(f".{unique}.{target.name}")
    try:
        yield temporary
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def require_no_folder(path: Path) -> None:
    """Raise IsADirectoryError if a file that is to be written would take the place of a folder."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: a folder; expected the name of a file to write.")
