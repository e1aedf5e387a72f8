"""Choice between the candidates for each sequence: which one is used, if any, and why.

Candidates are a study's series, or image files (`clinic.dicom.image_files`). Headers and names decide where they can.
They leave a doubt if there are several T1, one of which does not say whether it was acquired after contrast agent, or
if candidates are equally good. Then the images decide. If they leave a doubt as well, the study is refused.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from nibabel import Nifti1Image
from nibabel.affines import voxel_sizes
from pydicom.dataset import Dataset

from clinic.dicom.headers import quiet, text
from clinic.dicom.pixels import load
from clinic.dicom.sequences import Verdict, agent_named, contrast, contrast_words, image_type, recognise, reformatted
from clinic.dicom.series import Series
from common.io.geometry import lengths
from common.modalities import GLIOMA, canonical, display_name

ENOUGH = 0.5  # minimum confidence of a candidate that is used
SURE = 0.8  # a candidate with at least this confidence is preferred to one with less, whatever else they are
COVERAGE = 80.0  # minimum extent in mm of a volume of a whole brain; smaller ones are slabs
ALIKE = 1.5
"""Maximum ratio of the voxel sizes of images of one resolution, and of the edges of a voxel that is nearly a cube."""
TOLD_APART = 1.0  # minimum log-odds of what an image shows against anything else for it to decide

UNLIKELY = 0.05  # probability below which it is not said that an image may show something
UNKNOWN = Verdict(None, 0.0, "not recognised")

RANKS = (
    "set by hand or named so",
    "recognised more surely",
    "original and not reformatted",
    "in the plane and resolution of the others",
    "3D",
    "of thinner slices",
    "of a larger matrix",
    "corrected for distortion or intensity",
    "later",
    "recognised with more confidence",
)
"""Criteria by which one of several candidates is preferred, in this order; the first difference decides."""


@dataclass(eq=False)
class Candidate:
    """A series or an image file that may be one of the modalities.

    Attributes:
        name: name in messages to the user, e.g. ``series 7``.
        source: name on the page, which does not identify the patient.
        header: attributes, of which an image file has few or none.
        problem: reason why it cannot be used, or None.
        verdict: what it is recognised as.
        fixed: whether the user says so, by hand or by the file's name.
        is_open: for a T1, whether only its image can tell if it was acquired after contrast agent.
        shows: class -> log-probability that its image shows it; None if its image was not judged, or cannot be.
        by_image: whether its image decided the verdict.
    """

    name: str
    source: str
    header: Dataset
    problem: str | None = None
    verdict: Verdict = UNKNOWN
    fixed: bool = False
    is_open: bool = field(default=False, init=False)
    shows: Mapping[str, float] | None = field(default=None, init=False)
    by_image: bool = field(default=False, init=False)

    @property
    def frame(self) -> str:
        """Name of the frame of reference."""
        raise NotImplementedError

    @property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine (to mm, RAS) of the volume; its last axis is that of the slices."""
        raise NotImplementedError

    def read(self) -> Nifti1Image:
        """Read the volume."""
        raise NotImplementedError

    def clearly(self, among: Collection[str] = ()) -> str | None:
        """Return the class, ``among`` some or all, that its image clearly shows (`TOLD_APART`); None if none."""
        if self.shows is None:
            return None
        first, second = sorted(among or self.shows, key=self.shows.__getitem__, reverse=True)[:2]
        return first if self.shows[first] - self.shows[second] >= TOLD_APART else None

    def take_for(self, modality: str | None, reason: str) -> None:
        """Use it as the sequence that its image shows."""
        confidence = max(self.verdict.confidence, SURE) if modality else 0.0
        self.verdict = Verdict(modality, confidence, f"{reason}; its header: {self.verdict.reason}")
        self.by_image = True


@dataclass(eq=False)
class SeriesCandidate(Candidate):
    """A series as a candidate."""

    series: Series = field(kw_only=True)

    @property
    def frame(self) -> str:
        """Its frame of reference or, without one, its own name."""
        return self.series.frame_of_reference or self.series.name

    @property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine of the series."""
        return self.series.shape, self.series.affine

    def read(self) -> Nifti1Image:
        """Decode the pixels."""
        return load(self.series)


Look = Callable[[Sequence[Candidate]], Sequence[Mapping[str, float] | None]]
"""Function that returns what images of one head show (`Candidate.shows`), or raises ValueError if they cannot be put on
one grid."""
Option = Callable[..., str]
"""Function ``(modalities, value)`` that says how the user sets them by hand, by default to a candidate."""


@dataclass(frozen=True)
class Selection:
    """The candidates that are used.

    Attributes:
        chosen: modality -> candidate, in the order t1, t1c, t2, flair, for the modalities found.
        explanations: a line for each candidate: what it is used as and why, or why it is left out.
        warnings: what the user should check.
        notes: other originals that could have been used for a modality, by their `Candidate.source`.
    """

    chosen: dict[str, Candidate]
    explanations: list[str]
    warnings: list[str]
    notes: list[str]


def choose(series: Sequence[Series], by_hand: Mapping[str, Any] | None = None, look: Look | None = None) -> Selection:
    """Choose a series for each sequence; see `choose_among`.

    ``by_hand`` overrides the recognition. It maps a modality to a `Series.key`: the SeriesNumber, or text such as
    ``3-1`` if several volumes have this number. None leaves the modality out. Raises ValueError if a series set by hand
    does not exist.
    """
    fixed = _set_by_hand(series, by_hand or {})
    found = [SeriesCandidate(one.name, one.name, one.header, one.problem, series=one) for one in series]
    recognise_all(found)
    for one in found:
        extent = min(size * step for size, step in zip(one.series.shape, one.series.spacing, strict=True))
        if one.verdict.modality and one.problem is None and extent < COVERAGE:
            one.verdict = Verdict(None, 0.0, f"a slab of {extent:.0f} mm, not a whole brain ({one.verdict.reason})")
        for modality in (name for name, set_by_hand in fixed.items() if set_by_hand is one.series):
            one.verdict, one.fixed = Verdict(modality, 1.0, "set by hand"), True
    number = "'NUMBER-PART'" if any(one.part for one in series) else "NUMBER"

    def option(names: Sequence[str], value: str = number) -> str:
        settings = ", ".join(f"{name!r}: {value}" for name in names)
        return f'--series "{{{settings}}}"'

    selection = choose_among(found, [name for name, one in fixed.items() if one is None], option, look)
    used = {one.series for one in selection.chosen.values() if isinstance(one, SeriesCandidate)}
    mixed = [
        f"{one.name} is only a part of a series with single slices and a multi-frame image ({other.name} is another "
        "part): check that it is complete."
        for one in series
        for other in series
        if one in used and one.uid == other.uid and one.multiframe != other.multiframe
    ]
    return replace(selection, warnings=[*selection.warnings, *mixed])


@quiet()
def choose_among(
    found: Sequence[Candidate], left_out: Collection[str], option: Option, look: Look | None = None
) -> Selection:
    """Choose a candidate for each sequence.

    If there are several, the criteria in `RANKS` decide, in their order. Two of them are for T1c alone: the plane and
    resolution of the other sequences, and a later acquisition.

    ``look`` judges the images; without it, headers alone decide. Modalities in ``left_out`` are not wanted. The
    verdicts of candidates may change. Raises ValueError if neither headers nor images decide, all candidates for a
    modality are unusable (slices missing, ...), or nothing is recognised. The message lists the candidates with what
    their images show; ``option`` words what the user can do.
    """
    chosen: dict[str, Candidate] = {}
    refusal, wanted = "", list(found)
    try:
        if look:
            _settle_t1(found, left_out, option, look)
        fixed = {one.verdict.modality for one in found if one.fixed}
        wanted = [one for one in found if one.fixed or one.verdict.modality not in {*left_out, *fixed}]
        for modality in sorted(GLIOMA, key="t1c".__eq__):  # T1c last, since it is to fit the others
            if best := _best(wanted, modality, chosen, option, look):
                chosen[modality] = best
        if not chosen:
            names = [name for name in GLIOMA if name not in left_out]
            refusal = (
                f"Nothing is recognised as one of {', '.join(map(display_name, names))}. Set one: {option(names[:1])}"
            )
    except ValueError as error:
        refusal = str(error)
    explanations = [_explanation(one, one in wanted, chosen) for one in found]
    if refusal:
        raise ValueError("\n".join([refusal, *explanations]))
    chosen = {modality: chosen[modality] for modality in GLIOMA if modality in chosen}
    return Selection(chosen, explanations, [*_warnings(wanted, chosen)], [*_notes(wanted, chosen)])


def recognise_all(found: Sequence[Candidate]) -> None:
    """Recognise candidates by their headers, each in the light of the others.

    Contrast agent stays in the body. If an earlier series was acquired after it, so was a T1 whose header does not say.
    An agent that every series names was entered for the whole study, and does not tell which T1 was acquired after it.
    """
    agents = [agent_named(one.header) for one in found]
    times = [_acquired(one.header) for one in found]
    after = [time for one, time in zip(found, times, strict=True) if time and contrast(one.header)[0]]
    for one, agent, time in zip(found, agents, times, strict=True):
        verdict, words = recognise(one.header), contrast_words(one.header)
        silent = verdict.modality in ("t1", "t1c") and words is None
        everywhere = agent and len(found) > 1 and all(agents)
        if silent and everywhere:
            reason = f"{verdict.reason}, as for every series of the study, which is weak evidence"
            verdict = Verdict("t1c", round(0.75 * verdict.confidence, 2), reason)
        elif silent and not agent and any(time > earlier for earlier in after):
            reason = f"{verdict.reason}, but it was acquired after a series with contrast agent"
            verdict = Verdict("t1c", round(0.8 * verdict.confidence, 2), reason)
        if verdict.modality and verdict.confidence < ENOUGH:
            perhaps = f"perhaps {display_name(verdict.modality)}, confidence only {verdict.confidence:.2f}"
            verdict = Verdict(None, 0.0, f"{perhaps} ({verdict.reason})")
        one.verdict, one.is_open = verdict, (words is None or words[0] is None) and (everywhere or not agent)


def _settle_t1(found: Sequence[Candidate], left_out: Collection[str], option: Option, look: Look) -> None:
    """Decide by the images, if one has a rival, for each T1 whose header does not tell if it shows contrast agent.

    One whose image does not clearly show either T1 or T1c is left out; ValueError if one of the two is then lacking.
    """
    t1 = [one for one in found if one.verdict.modality in ("t1", "t1c") and one.problem is None]
    originals = [one for one in t1 if one.fixed or not reformatted(one.header)]
    t1 = originals if any(one.is_open for one in originals) else t1
    opened = [one for one in t1 if one.is_open and not one.fixed]
    rivals = Counter(one.verdict.modality for one in t1)
    fixed = {one.verdict.modality for one in t1 if one.fixed}
    if {"t1", "t1c"} <= fixed | {*left_out} or not any(rivals[one.verdict.modality] > 1 for one in opened):
        return
    failed = _look(t1, look)
    possible = ("t1", "t1c", "other")  # by their headers
    kinds, named = {one.clearly(possible) for one in t1} & {"t1", "t1c"}, {*t1} - {*opened}
    # Alike, they decide nothing unless a header says the same: of 50 open cases, 5 to 8 had such images that were taken
    # for the other.
    alike = len(kinds) == 1 and kinds != {one.verdict.modality for one in named}
    seen = {one: None if alike else one.clearly(possible) for one in opened}
    unclear = [one for one in opened if seen[one] not in ("t1", "t1c")]
    clear = {seen.get(one, one.verdict.modality) for one in t1 if one not in unclear}
    if unclear and not fixed and not {"t1", "t1c"} <= clear | {*left_out}:
        names = ", ".join(one.name for one in unclear)
        raise ValueError(
            f"{names}: neither header nor image tells whether this T1 was acquired before or after contrast agent"
            f"{' (nothing that looks otherwise is there to compare with)' if alike else failed}. Look at the T1 listed "
            f"here, and choose: {option(('t1', 't1c'))}"
        )
    for one in opened:
        reason = "by what it shows" if seen[one] else "its image shows nothing clearly"
        one.take_for(seen[one] if one not in unclear else None, reason)


def _look(candidates: Sequence[Candidate], look: Look) -> str:
    """Judge candidates by their images; return why that failed, or an empty text."""
    try:
        for one, shows in zip(candidates, look(candidates), strict=True):
            one.shows = shows
    except ValueError as error:
        return f" (they could not be compared: {str(error).rstrip('.')})"
    return ""


def _best(
    wanted: Sequence[Candidate], modality: str, others: Mapping[str, Candidate], option: Option, look: Look | None
) -> Candidate | None:
    """Return the best candidate for a modality, or None; ValueError if none can be used, or several are equal.

    Among equally good ones, those whose images clearly show something else are left out.
    """
    candidates = [one for one in wanted if one.verdict.modality == modality]
    usable = [one for one in candidates if one.problem is None]
    if candidates and not usable:
        first, name = candidates[0], display_name(modality)
        which = f"first of {len(candidates)} {name}, none of which can" if candidates[1:] else f"only {name} and cannot"
        raise ValueError(
            f"{first.name} is the {which} be used: {first.problem}. To go on without it: {option((modality,), 'None')}"
        )
    if len(usable) < 2:
        return usable[0] if usable else None
    ranks = [_rank(one, others) for one in usable]
    equal = [one for one, rank in zip(usable, ranks, strict=True) if rank == max(ranks)]
    if len(equal) > 1 and look:
        if any(one.shows is None for one in equal):
            _look([*equal, *others.values()], look)
        fitting = [one for one in equal if one.clearly() in (None, modality)]
        for one in set(equal) - {*fitting} if fitting else ():
            one.take_for(None, "its image shows something else")
        equal = fitting or equal
    if len(equal) > 1:
        names = ", ".join(one.name for one in equal)
        raise ValueError(
            f"{names}: all are {display_name(modality)} and cannot be told apart. Choose: {option((modality,))}"
        )
    return equal[0]


def _rank(one: Candidate, others: Mapping[str, Candidate]) -> tuple[Any, ...]:
    """Return the criteria in the order of `RANKS`; ``others`` are the candidates chosen for other modalities."""
    header, after = one.header, one.verdict.modality == "t1c"
    alike = {name: after and _is_alike(one, other) for name, other in others.items()}
    shape, affine = one.grid
    return (
        one.fixed,
        one.verdict.confidence >= SURE,
        not reformatted(header),
        (alike.get("t1", False), sum(alike.values())),
        text(header, "MRAcquisitionType") == "3D",
        -round(float(voxel_sizes(affine)[2]), 1),
        shape[0] * shape[1],
        len({"NORM", "DIS2D", "DIS3D"} & set(image_type(header))),
        _acquired(header) if after else "",
        one.verdict.confidence,
    )


def _is_alike(one: Candidate, other: Candidate) -> bool:
    """Return whether two images have similar voxels and, unless these are nearly cubes, slices in one plane."""
    sizes, others = (np.sort(voxel_sizes(each.grid[1])) for each in (one, other))
    similar = (np.maximum(sizes / others, others / sizes) <= ALIKE).all()
    return bool(similar) and (sizes[2] <= ALIKE * sizes[0] or _plane(one) == _plane(other))


def _plane(one: Candidate) -> str:
    normal = np.cross(*one.grid[1][:3, :2].T)
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def _warnings(wanted: Sequence[Candidate], chosen: Mapping[str, Candidate]) -> Iterator[str]:
    for modality, best in chosen.items():
        for one in wanted:
            if one.verdict.modality == modality and one.problem:
                yield f"{one.source}, by its header {display_name(modality)}, is not used: {one.problem}."
        if reformatted(best.header):
            yield f"{best.source} is reformatted; there is no original."


def _notes(wanted: Sequence[Candidate], chosen: Mapping[str, Candidate]) -> Iterator[str]:
    for one in wanted:
        best = chosen.get(one.verdict.modality or "")
        if one.by_image and one.verdict.modality is None:
            yield f"Left out: {_described(one)}: {one.verdict.reason}."
        elif best and best is not one and one.problem is None and not reformatted(one.header):
            yield (
                f"{display_name(one.verdict.modality)} too, but not used: {_described(one)}, since {_described(best)} "
                f"is {_advantage(best, one, chosen)}."
            )


def _described(one: Candidate) -> str:
    return f"{one.source} ({_plane(one)}, {lengths(voxel_sizes(one.grid[1]))} mm)"


def _advantage(best: Candidate, other: Candidate, chosen: Mapping[str, Candidate]) -> str:
    others = {name: one for name, one in chosen.items() if one is not best}
    ranks = zip(RANKS, _rank(best, others), _rank(other, others), strict=True)
    return next(reason for reason, more, less in ranks if more != less)


def _explanation(one: Candidate, is_wanted: bool, chosen: Mapping[str, Candidate]) -> str:
    """Return a line: what a candidate was recognised as, what it shows, and whether and why it is taken."""
    verdict, best = one.verdict, chosen.get(one.verdict.modality or "")
    if verdict.modality is None:
        line = f"{one.name}: left out: {verdict.reason}"
    else:
        line = f"{one.name}: {display_name(verdict.modality)}, confidence {verdict.confidence:.2f} ({verdict.reason})"
    if one.shows:
        likely = np.exp([*one.shows.values()]) / np.exp([*one.shows.values()]).sum()
        seen = [pair for pair in sorted(zip(likely, one.shows, strict=True), reverse=True) if pair[0] >= UNLIKELY]
        line += f"; its image shows {' or '.join(f'{_in_words(name)} ({share:.0%})' for share, name in seen)}"
    if verdict.modality and not is_wanted:
        line += "; not used, as requested"
    elif verdict.modality and one.problem:
        line += f"; cannot be used: {one.problem}"
    elif one is best:
        line += "; taken"
    elif best:
        line += f"; not taken, since {best.name} is {_advantage(best, one, chosen)}"
    return f"{line}."


def _in_words(shown: str) -> str:
    return display_name(shown) if shown in GLIOMA else "none of the four"


def _set_by_hand(series: Sequence[Series], by_hand: Mapping[str, Any]) -> dict[str, Series | None]:
    """Return the series that are set by hand, after checking them."""
    fixed: dict[str, Series | None] = {}
    for name, key in by_hand.items():
        modality = canonical(str(name))
        if modality not in GLIOMA:
            raise ValueError(f"--series: unknown modality {name!r}; expected one of {', '.join(GLIOMA)}.")
        if key is None:
            fixed[modality] = None
            continue
        matches = [one for one in series if str(key) in (one.key, str(one.number))]
        if len(matches) != 1:
            keys = ", ".join(one.key for one in matches or series)
            what = "several volumes have this number" if matches else "there is no such series"
            raise ValueError(f"--series: {modality}: {key}: {what}; expected one of {keys}.")
        if matches[0].problem:
            raise ValueError(f"--series: {modality}: {matches[0].name} cannot be used: {matches[0].problem}.")
        if matches[0] in fixed.values():
            raise ValueError(f"--series: {matches[0].name} is set for two modalities.")
        fixed[modality] = matches[0]
    if [fixed.get(modality, "") for modality in GLIOMA] == [None] * len(GLIOMA):
        raise ValueError("--series: every modality is left out; expected at least one to be used.")
    return fixed


def _acquired(header: Dataset) -> str:
    """Return the time of acquisition as text that sorts by time; empty if unknown."""
    date, time = (text(header, name) for name in ("AcquisitionDate", "AcquisitionTime"))
    return date + time if date and time else text(header, "AcquisitionDateTime")
