"""Errors with a text for the console and one without names, and the silence of libraries that quote names."""

import logging
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Self

from common.text import printable

EACH = "If every subfolder is a study, use --each."
CHOOSE = "Choose the series or file for each sequence."
QUOTING = ("pydicom", "highdicom")
"""Libraries whose warnings and logs quote names, dates and UIDs."""
PROGRESS = ("monai.bundle.workflows", "ignite.engine.engine.SupervisedEvaluator", "common.io.weights")
"""Loggers of what the page says as well, or nobody needs."""


class StudyError(ValueError):
    """What is wrong with a study, or with what was asked of it.

    Attributes:
        text: what the console says. It ends with ``command``, what to give on the command line.
        public: what may leave the machine: no names of files and folders, which may be patients' names, and no options
            of the command line. By default it is the same text, but ends with ``elsewhere`` instead.
        file: the file that is wrong, for clients that have sent it (`to_its_sender`).
    """

    def __init__(
        self, text: str, public: str | None = None, file: Path | None = None, *, command: str = "", elsewhere: str = ""
    ) -> None:
        self.text = f"{text} {command}".rstrip()
        self.public = f"{text if public is None else public} {elsewhere}".rstrip()
        self.file = file
        super().__init__(self.text, self.public, file)

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, place: str | Path, what: str, public: str = "The study", *, command: str = "") -> Self:
        """Return the error that something is wrong with a file, folder or option, called ``public`` for others."""
        return cls(f"{place}: {what}", f"{public}: {what}", command=command)

    def followed_by(self, lines: Iterable[str]) -> Self:
        """Return the error with further lines in both texts."""
        text, public = ("\n".join([first, *lines]) for first in (self.text, self.public))
        return type(self)(text, public, self.file)

    def to_its_sender(self) -> Self:
        """Return the error for a client that has sent the study itself: the public text names the file."""
        named = f' The file: "{printable(self.file.name)}".' if self.file else ""
        return type(self)(self.text, f"{self.public}{named}", self.file)


def silence_libraries() -> None:
    """Silence the libraries in `QUOTING`, and what tells of a network's progress; once, where a process starts."""
    warnings.simplefilter("ignore")
    for name in QUOTING:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in PROGRESS:
        logging.getLogger(name).disabled = True
