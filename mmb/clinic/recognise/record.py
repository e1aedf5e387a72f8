"""Records: what each candidate is taken for, why, and what becomes of it."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Self

import numpy as np

from common.modalities import GLIOMA, display_name
from mmb.clinic.recognise.certainty import Grade, LogProbs, clearly
from mmb.clinic.recognise.evidence import Candidate, HeaderEvidence
from mmb.clinic.remark import Remark
from mmb.errors import StudyError

UNLIKELY = 0.05  # probability below which it is not said that an image may show something


class Use(StrEnum):
    """What becomes of a candidate."""

    TAKEN = "taken"
    LEFT_OUT = "left_out"  # it is none of the sequences
    UNWANTED = "unwanted"  # not requested
    UNUSABLE = "unusable"
    RIVAL = "rival"  # another one is better
    UNDECIDED = "undecided"  # the study is refused


@dataclass(frozen=True)
class FoundImage:
    """A series or image file of the study, what it was recognised as, and what became of it.

    Attributes:
        source: e.g. ``series 7``, as in ``used``; a file is not named.
        header: modality that its header or name says, or that was set by hand or by the site's table; None if it says
            none.
        confidence: how surely its header or name says so: none, open, likely or sure; None if it was set by hand or by
            the site's table, named by its file, or is no MR image.
        shows: class -> probability that the image shows it; empty if the image was not looked at.
        modality: what it is taken for; None if for none of the sequences.
        use: taken, left_out (it is none of the sequences), unwanted (not requested), unusable, rival (another one is
            better), or undecided.
        reason: why it is taken for that.
        problem: why it cannot be used; empty if it can.
        instead: source of the one that is used instead, and why; empty if there is none.
        files: number of files that were read for it.
    """

    source: str
    header: str | None
    confidence: str | None
    shows: Mapping[str, float]
    modality: str | None
    use: str
    reason: str
    problem: str = ""
    instead: str = ""
    files: int = 1


@dataclass(frozen=True, eq=False)
class Record:
    """What a candidate is taken for (None: none of the sequences) and why, and what becomes of it."""

    candidate: Candidate
    modality: str | None
    grade: Grade
    reason: str
    log_probs: LogProbs | None = None  # what its image shows; None if it was not judged, or cannot be
    by_image: bool = False  # its image decided what it is
    elsewhere: bool = False  # it does not lie where most others of its study do
    partial: bool = False  # it shows less than `WHOLE` of what another one shows
    use: Use = Use.UNDECIDED
    instead: tuple[Candidate, str] | None = None  # the candidate that is taken instead, and why

    @property
    def stated_grade(self) -> Grade | None:
        """The grade; None if it was set by hand or by the site's table, named by its file, or decided by the image."""
        return None if self.candidate.fixed or self.candidate.says.by_table or self.by_image else self.grade

    @property
    def better(self) -> str:
        """Which candidate is taken instead, and why; empty if none is."""
        return f"{self.instead[0].name} is {self.instead[1]}" if self.instead else ""

    @property
    def is_usable(self) -> bool:
        """Whether it may be used as its modality."""
        return self.modality is not None and self.candidate.problem is None

    @property
    def is_open(self) -> bool:
        """Whether only its image can tell if it was acquired after contrast agent."""
        return self.candidate.says.contrast_unknown and not self.candidate.fixed

    def clear_class(self, among: Collection[str] = ()) -> str | None:
        """Return the class, ``among`` some or all, that its image clearly shows; None if none."""
        return None if self.log_probs is None else clearly(self.log_probs, among)

    def taken_for(self, modality: str | None, reason: str = "by what it shows") -> Self:
        """Return it as the sequence that its image shows."""
        grade = max(self.grade, Grade.LIKELY) if modality else Grade.NONE
        reason = f"{reason}; its header: {self.reason}"
        return replace(self, modality=modality, grade=grade, reason=reason, by_image=True)

    def line(self) -> str:
        """Return what it was recognised as, what it shows, and whether and why it is taken."""
        broken = f"{self.candidate.problem}; by its header: " if self.candidate.problem else ""
        said = f"{self.candidate.name}: left out: {broken}{self.reason}"
        if self.modality:
            grade = "" if self.stated_grade is None else f", {self.stated_grade.word}"
            said = f"{self.candidate.name}: {display_name(self.modality)}{grade} ({self.reason})"
        if self.log_probs:
            seen = sorted(((p, name) for name, p in self.shown().items()), reverse=True)
            kinds = [(display_name(name) if name in GLIOMA else "none of the four", p) for p, name in seen]
            said += f"; its image shows {' or '.join(f'{kind} ({p:.0%})' for kind, p in kinds if p >= UNLIKELY)}"
        ends = {
            Use.TAKEN: "; used",
            Use.UNWANTED: "; not used, as requested",
            Use.UNUSABLE: f"; cannot be used: {self.candidate.problem}",
            Use.RIVAL: f"; not used, since {self.better}",
        }
        return f"{said}{ends.get(self.use, '')}."

    def shown(self) -> dict[str, float]:
        """Return class -> probability that its image shows it; empty if it was not judged."""
        odds = np.exp([*(self.log_probs or {}).values()])
        return dict(zip(self.log_probs or {}, (odds / odds.sum()).tolist(), strict=True))

    def found(self) -> FoundImage:
        """Return it without what only the study's owner may see."""
        each, better = self.candidate, f"{self.instead[0].source} is {self.instead[1]}" if self.instead else ""
        return FoundImage(
            source=each.source,
            header=each.says.modality,
            confidence=None if each.fixed or each.says.by_table else each.says.grade.word,
            shows={name: round(p, 3) for name, p in self.shown().items()},
            modality=self.modality,
            use=self.use,
            reason=self.reason,
            problem=each.problem or "",
            instead=better if self.use is Use.RIVAL else "",
            files=each.files,
        )


def unused(
    name: str, source: str, reason: str, said: str | None = None, use: Use = Use.LEFT_OUT, files: int = 1
) -> Record:
    """Return the record of a series or file that is no candidate; ``said``: modality by its description or name."""
    candidate = Candidate(name, source, says=HeaderEvidence(said, Grade.NONE, reason), fixed=True, files=files)
    return Record(candidate, said if use is Use.UNWANTED else None, Grade.NONE, reason, use=use)


@dataclass(frozen=True)
class Assignment:
    """What is used as which modality, in their order; all candidates, in theirs; and what is to be said of this."""

    chosen: dict[str, Record]
    records: Sequence[Record] = ()
    remarks: Sequence[Remark] = ()

    def undone(self, error: StudyError) -> StudyError:
        """Return an error of images that would have been used, with what was found."""
        records = [replace(each, use=Use.UNDECIDED) if each.use is Use.TAKEN else each for each in self.records]
        error.found = [each.found() for each in records]
        return error
