"""How sure headers, names and images have to be of a sequence: the grades of headers, the limits of images' log-odds.

An image decides by one margin, how much likelier one reading of it is than another: from `TOLD_APART` on where headers
leave the choice, from `SURE` on against a header that is not sure, and never against one that is.
"""

from collections.abc import Collection, Mapping
from enum import IntEnum

import numpy as np

LogProbs = Mapping[str, float]
"""Class of `mmb.clinic.recognise.image.CLASSES` -> log-probability that an image shows it."""
TOLD_APART = 1.0
"""Minimum margin of what an image shows for it to decide where headers leave the choice."""
RATHER = float(np.log(2))
"""Minimum margin, of T1 against T1c or the reverse, of an image that does not contradict what its header says of
contrast agent. In 1 of 53 open cases an image has less."""
SURE = 3.0
"""Minimum margin for an image to decide, or to be doubted, against what its header or name says."""
SURE_ALONE = 2.5
"""The same for an image that is judged alone, whose log-odds are smaller."""


class Grade(IntEnum):
    """How surely a header or name tells which sequence an image is."""

    NONE = 0  # it tells nothing
    WEAK = 1  # too little for the image to be used
    OPEN = 2  # enough, with a warning, unless the image tells more
    LIKELY = 3  # enough without a warning; only a T1 is its image's to confirm
    SURE = 4  # the image does not decide against it

    @property
    def word(self) -> str:
        """The grade for a reader."""
        return self.name.lower()


class Basis(IntEnum):
    """On what the weighting rests that a header tells: the weakest first."""

    AGAINST = 0  # words against parameters that may be those of a variant
    PARAMETERS = 1
    PARTLY = 2  # words, and parameters that only partly fit; or words that name two weightings
    WORDS = 3
    BOTH = 4


class Agent(IntEnum):
    """On what it rests whether a T1 was acquired after contrast agent: the weakest first."""

    STUDY = 0  # an agent is named in every series
    UNCLEAR = 1  # words leave it open
    LATER = 2  # an earlier series was acquired after it
    BRIEF = 3  # words that may mean something else, against the attribute
    ASSUMED = 4  # no words; or words against an attribute that names an agent
    WORDS = 5  # words, where no attribute names an agent
    AGREED = 6  # words and attributes; of other weightings, where it does not matter


_GRADES = {
    #                   STUDY, UNCLEAR, LATER, BRIEF, ASSUMED, WORDS, AGREED; then the same for reformatted images
    Basis.BOTH:       ((2, 2, 2, 2, 3, 4, 4), (2, 2, 2, 2, 2, 3, 3)),
    Basis.WORDS:      ((2, 2, 2, 2, 2, 2, 3), (1, 2, 2, 2, 2, 2, 2)),
    Basis.PARTLY:     ((2, 2, 2, 2, 2, 2, 2), (1, 1, 1, 2, 2, 2, 2)),
    Basis.PARAMETERS: ((1, 1, 1, 2, 2, 2, 2), (1, 1, 1, 1, 2, 2, 2)),
    Basis.AGAINST:    ((1, 1, 1, 1, 2, 2, 2), (1, 1, 1, 1, 1, 2, 2)),
}  # fmt: skip


def grade(basis: Basis, agent: Agent, reformatted: bool) -> Grade:
    """Return how surely a header tells a sequence."""
    return Grade(_GRADES[basis][reformatted][agent])


def margin(log_probs: LogProbs, shown: str, among: Collection[str] = ()) -> float:
    """Return the log-odds that an image shows a class against the likeliest other one ``among`` some, or all."""
    return log_probs[shown] - max(log_probs[other] for other in among or log_probs if other != shown)


def clearly(log_probs: LogProbs, among: Collection[str] = ()) -> str | None:
    """Return the class, ``among`` some or all, that an image shows by at least `TOLD_APART`; None if none."""
    best = max(among or log_probs, key=log_probs.__getitem__)
    return best if margin(log_probs, best, among) >= TOLD_APART else None
