"""What is to be said of a study: records, made where the facts are known, in one list that every output is made of."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Gravity(StrEnum):
    """How much a remark matters, the gravest first."""

    STOP = "stop"  # the result is not to be used
    DOUBT = "doubt"  # all of the result is doubtful
    WARNING = "warning"  # something to check, or a result that is less exact
    NOTE = "note"  # how the result was made


@dataclass(frozen=True)
class Remark:
    """Something to be said of a study or its result.

    Attributes:
        code: name for programs; remarks of one kind have the same.
        about: modalities that it is about; empty if it is about the whole study.
        text: one or more sentences, in which no name, date, identifier or path occurs.
        brief: of a STOP, the reason in a few words, for the answer; else empty.
    """

    code: str
    gravity: Gravity
    text: str
    about: tuple[str, ...] = ()
    brief: str = ""


def by_gravity(remarks: list[Remark]) -> list[Remark]:
    """Return remarks, the gravest first; those of one gravity stay in their order."""
    return sorted(remarks, key=lambda remark: [*Gravity].index(remark.gravity))


def stop_reasons(remarks: Iterable[Remark]) -> list[str]:
    """Return why a result is not to be used, each reason in a few words."""
    return [*dict.fromkeys(remark.brief for remark in remarks if remark.gravity is Gravity.STOP)]
