"""Choice of one candidate for each modality, be the candidates DICOM series or image files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, TypeVar

from common.modalities import display_name

ENOUGH = 0.5
"""Minimum confidence of a candidate that is used."""
SURE = 0.8
"""A candidate with at least this confidence is preferred to one with less, whatever else they are."""


@dataclass(frozen=True)
class Verdict:
    """The modality that a candidate was recognised as.

    Attributes:
        modality: t1, t1c, t2 or flair; None if it is none of them or not recognised.
        confidence: confidence in the modality from 0 to 1; 0 for None.
        reason: explanation for the user.
    """

    modality: str | None
    confidence: float
    reason: str


@dataclass(frozen=True)
class SecondT1:
    """A T1 that is used as T1c for now: two images are T1 by their headers, which do not mention contrast agent.

    Their content decides which one is the T1c; see `clinic.study.appearance.reassign_by_image`.

    Attributes:
        tied: whether the headers do not even tell which one would be the T1; then the study is refused if the content
            does not decide. Otherwise only the better one is kept, as T1.
        message: message of the refusal, or the warning.
    """

    tied: bool
    message: str


class Candidate(Protocol):
    """A series or an image file, and the modality that it was recognised as."""

    @property
    def verdict(self) -> Verdict:
        """The modality, and how sure it is."""

    @property
    def rank(self) -> tuple[Any, ...]:
        """Criteria by which one of several candidates for a modality is preferred; the first difference decides."""


C = TypeVar("C", bound=Candidate)


class TieError(Exception):
    """Candidates for a modality that cannot be told apart."""

    def __init__(self, equal: Sequence[Any]) -> None:
        self.equal = equal


def choose(candidates: Iterable[C], modality: str) -> C | None:
    """Return the best candidate for a modality, None if there is none; raise `TieError` if several are equally good."""
    ranked = _best_first(one for one in candidates if one.verdict.modality == modality)
    equal = [one for one in ranked if one.rank == ranked[0].rank]
    if len(equal) > 1:
        raise TieError(equal)
    return equal[0] if equal else None


def second_t1(candidates: Iterable[C]) -> tuple[C | None, bool]:
    """Return the second best of several T1, any of which may be after contrast agent, and if it ties with the best.

    It is to be used as T1c if there is no other. There is none (None) if the second and third are equally good.
    """
    first, second, third, *_ = [*_best_first(candidates), None, None, None]
    if second is None or (third is not None and third.rank == second.rank):
        return None, False
    return second, first.rank == second.rank


def as_t1c(verdict: Verdict) -> Verdict:
    """Return the verdict on a T1 that is used as T1c."""
    return replace(verdict, modality="t1c")


def if_enough(verdict: Verdict) -> Verdict:
    """Return a verdict, or one of no modality if its confidence is below `ENOUGH`."""
    if verdict.modality is None or verdict.confidence >= ENOUGH:
        return verdict
    perhaps = f"perhaps {display_name(verdict.modality)}, confidence only {verdict.confidence:.2f}"
    return Verdict(None, 0.0, f"{perhaps} ({verdict.reason})")


def _best_first(candidates: Iterable[C]) -> list[C]:
    return sorted(candidates, key=lambda one: one.rank, reverse=True)
