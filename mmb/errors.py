"""Errors with a text for the console and one without names, and the silence of libraries that quote names."""

import logging
import warnings
from collections.abc import Sequence
from copy import copy
from pathlib import Path
from typing import Any, Self

from common.text import printable

EACH = "If every subfolder is a study, use --each."
CHOOSE = "Choose the series or file for each sequence."
QUOTING = ("pydicom", "highdicom")
"""Libraries whose warnings and logs quote names, dates and UIDs."""
PROGRESS = ("monai.bundle.workflows", "ignite.engine.engine.SupervisedEvaluator", "common.io.weights")
"""Loggers of what the page says as well, or nobody needs."""


class StudyError(ValueError):
    """Why a study is refused: what is wrong with it, or with what was asked of it.

    Attributes:
        said: what is wrong, on this machine; neither options of the command line nor `lines`.
        file: the file that is wrong, for clients that have sent it (`to_its_sender`).
        code: the kind, for programs.
        about: modalities that a person can decide; empty if none.
        command: what to give on the command line, the end of the `text`.
        found: `mmb.clinic.recognise.record.FoundImage` of each series or file.
        lines: a line for each of them, for the console, and elsewhere unless they name files.
    """

    def __init__(
        self,
        said: str,
        public: str | None = None,
        file: Path | None = None,
        *,
        code: str = "unusable",
        about: Sequence[str] = (),
        command: str = "",
        elsewhere: str = "",
    ) -> None:
        self.file, self.code, self.about, self.command = file, code, tuple(about), command
        self.found: Sequence[Any] = ()
        self.lines: Sequence[str] = ()
        self.said = said
        self._public = f"{said if public is None else public} {elsewhere}".rstrip()
        self._lines_name_files = False
        super().__init__(said, public, file)

    @property
    def text(self) -> str:
        """What the console says."""
        return "\n".join([f"{self.said} {self.command}".rstrip(), *self.lines])

    @property
    def public(self) -> str:
        """What may leave the machine: no names of files and folders, which may be patients' names, and no options of
        the command line.
        """
        return "\n".join([self._public, *([] if self._lines_name_files else self.lines)])

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(
        cls, place: str | Path, what: str, public: str = "The study", *, code: str = "unusable", command: str = ""
    ) -> Self:
        """Return the error that something is wrong with a file, folder or option, called ``public`` for others."""
        return cls(f"{place}: {what}", f"{public}: {what}", code=code, command=command)

    def of_files(self, undecided: str) -> Self:
        """Return the error of a study whose names of files must not leave the machine: its lines have them.

        If a person can decide something (`about`), its own text has them too; ``undecided`` is then the public one.
        """
        other = copy(self)
        other._public, other._lines_name_files = undecided if self.about else self._public, True
        return other

    def to_its_sender(self) -> Self:
        """Return the error for a client that has sent the study itself: the public text names the file."""
        other = copy(self)
        other._public += f' The file: "{printable(self.file.name)}".' if self.file else ""
        return other


def silence_libraries() -> None:
    """Silence the libraries in `QUOTING`, and what tells of a network's progress; once, where a process starts."""
    import pydicom.config  # noqa: F401  # imported later, it would set its log level anew

    warnings.simplefilter("ignore")
    for name in QUOTING:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in PROGRESS:
        logging.getLogger(name).disabled = True
