"""The choice among a study's series, with or without what their images show."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from common.cohorts.registry import PHANTOM
from common.modalities import GLIOMA, canonical
from mmb.clinic.intake.series import Series
from mmb.clinic.recognise.assign import assign_series, to_look_at
from mmb.clinic.recognise.certainty import LogProbs
from mmb.clinic.recognise.claims import SeriesHeaders, series_candidates
from mmb.clinic.recognise.evidence import Candidate
from mmb.clinic.recognise.record import Assignment
from mmb.errors import StudyError

Look = Callable[[Sequence[Candidate]], Mapping[str, LogProbs]]


def choose(series: Sequence[Series], by_hand: Mapping[str, Any] | None = None, look: Look | None = None) -> Assignment:
    """Return the assignment, for which ``look`` judges the images in question."""
    given = {canonical(str(name)): key for name, key in (by_hand or {}).items()}
    candidates = series_candidates(series, given)
    left_out = {name for name, key in given.items() if key is None}
    modalities = [name for name in GLIOMA if name not in left_out]
    left, is_open = to_look_at(candidates, modalities)
    try:
        return assign_series(candidates, modalities, look([*left]) if look and is_open else None)
    except StudyError as error:
        raise SeriesHeaders(candidates, PHANTOM, modalities).refused(error) from None
