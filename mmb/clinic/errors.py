"""Errors with a text for the user's own console, and one for whoever may not see names of files and folders."""

from pathlib import Path
from typing import Self


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
