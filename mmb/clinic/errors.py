"""Errors with a text for the console and one without names, and the silence of libraries that quote names."""

import logging
import warnings
from pathlib import Path
from typing import Self

ONE = "give the folder of one, or --each if every subfolder is a study."
QUOTING = ("pydicom", "highdicom")
"""Libraries whose warnings and logs quote names, dates and UIDs."""
PROGRESS = ("monai.bundle.workflows", "ignite.engine.engine.SupervisedEvaluator", "common.io.weights")
"""Loggers of what the page says as well, or nobody needs."""


class StudyError(ValueError):
    """What is wrong with a study, or with what was asked of it.

    ``public`` says so without names of files and folders, which may be patients' names; it is the same text by default.
    """

    def __init__(self, text: str, public: str | None = None) -> None:
        super().__init__(text, public)
        self.text, self.public = text, text if public is None else public

    def __str__(self) -> str:
        return self.text

    @classmethod
    def of(cls, place: str | Path, what: str, public: str = "The study") -> Self:
        """Return the error that something is wrong with a file or folder, which is called ``public`` for others."""
        return cls(f"{place}: {what}", f"{public}: {what}")


def silence_libraries() -> None:
    """Silence the libraries in `QUOTING`, and what tells of a network's progress; once, where a process starts."""
    warnings.simplefilter("ignore")
    for name in QUOTING:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in PROGRESS:
        logging.getLogger(name).disabled = True
