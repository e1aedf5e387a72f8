"""Which image is which sequence: one decision from what headers and names say and what the images show.

Candidates are a study's series or its image files. Headers and names decide where they can. They leave a question open
if there are several T1, one of which does not say whether it was acquired after contrast agent, or if candidates are
equally good; then the images of the candidates `in_question` decide, and if they leave it open too, the study is
refused. An image that was chosen by an ambiguous header is used as what it clearly shows, or left out if it shows none
of the sequences. An image whose header is not ambiguous stays what that says, and `contradictions` names it.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any, ClassVar

import nibabel as nib
import numpy as np
import torch
from nibabel.affines import voxel_sizes

from common.io.geometry import lengths
from common.modalities import GLIOMA, display_name
from mmb.clinic.sequence_check import SURE, doubted_sequences

ENOUGH = 0.5  # minimum confidence in what a header says for the candidate to be used
RELIABLE = 0.8
"""Confidence from which on a candidate is preferred to one with less, whatever else they are; below it the user is
warned."""
OPEN = 0.9  # confidence below which a header is ambiguous: that of a T1 whose header does not mention contrast agent
TOLD_APART = 1.0
"""Minimum log-odds of what an image shows against anything else for it to decide where headers leave the choice; to
decide against an ambiguous header they are `mmb.clinic.sequence_check.SURE`."""
UNLIKELY = 0.05  # probability below which it is not said that an image may show something
COVERAGE = 80.0  # minimum extent in mm of a volume of a whole brain; smaller ones are slabs
ALIKE = 1.5
"""Maximum ratio of the voxel sizes of images of one resolution, and of the edges of a voxel that is nearly a cube."""

Shown = Mapping[str, float]
"""Class of `mmb.clinic.sequence_check.CLASSES` -> log-probability that an image shows it."""
Option = Callable[..., str]
"""Function ``(modalities, value)`` that says how the user sets them by hand, by default to a candidate."""


@dataclass(frozen=True)
class Verdict:
    """The modality that a candidate is recognised as.

    Attributes:
        modality: t1, t1c, t2 or flair; None if it is none of them or not recognised.
        confidence: confidence in the modality from 0 to 1; 0 for None.
        reason: explanation for the user.
    """

    modality: str | None
    confidence: float
    reason: str


UNKNOWN = Verdict(None, 0.0, "not recognised")


@dataclass(eq=False)
class Candidate:
    """A series or an image file that may be one of the modalities.

    Attributes:
        name: name in messages to the user, e.g. ``series 7``; it occurs once in a study.
        source: name on the page, which does not identify the patient.
        frame: name of the frame of reference.
        by_header: what its header or name says.
        problem: reason why it cannot be used, or None.
        fixed: whether the user says what it is, by hand or by the file's name.
        is_open: for a T1, whether only its image can tell if it was acquired after contrast agent.
        reformatted: whether it was computed from other images, as multi-planar reformats are.
        derived: whether it was computed from others in any way.
        other_body: a part of the body other than the head that its header names; empty if it names none.
        elsewhere: whether it does not lie where most others of its study do.
        in_3d: whether it was acquired in 3D.
        corrections: number of corrections (of intensity, of distortion) that were made.
        acquired: time of acquisition as text that sorts by time; empty if unknown.
        verdict: what `decide` takes it for.
        by_image: whether its image decided that.
        shows: what its image shows; None if it was not judged, or cannot be.
        in_threads: whether several may be read at once.
    """

    in_threads: ClassVar[bool] = True

    name: str
    source: str
    frame: str = ""
    by_header: Verdict = UNKNOWN
    problem: str | None = None
    fixed: bool = False
    is_open: bool = False
    reformatted: bool = False
    derived: bool = False
    other_body: str = ""
    elsewhere: bool = False
    in_3d: bool = False
    corrections: int = 0
    acquired: str = ""

    def __post_init__(self) -> None:
        self.start(None)

    def start(self, shows: Shown | None) -> None:
        """Take it for what its header says, with what its image shows."""
        self.verdict, self.by_image, self.shows = self.by_header, False, shows

    @cached_property
    def grid(self) -> tuple[Sequence[int], np.ndarray]:
        """Shape and affine (to mm, RAS) of the volume; its last axis, with the longest voxel edge, is the slices'."""
        image, _ = self.read()
        edges = np.linalg.norm(image.affine[:3, :3], axis=0).round(2)
        last = max(range(3), key=lambda axis: (edges[axis], axis))
        axes = [axis for axis in range(3) if axis != last] + [last]
        return [image.shape[axis] for axis in axes], image.affine[:, [*axes, 3]]

    def read(self) -> tuple[nib.Nifti1Image, list[str]]:
        """Read the volume; return it with warnings."""
        raise NotImplementedError

    @property
    def confidence(self) -> float | None:
        """Confidence in the verdict; None if it was set by hand, named by its file, or decided by the image."""
        return None if self.fixed or self.by_image else self.verdict.confidence

    def clearly(self, among: Collection[str] = ()) -> str | None:
        """Return the class, ``among`` some or all, that its image clearly shows (`TOLD_APART`); None if none."""
        if self.shows is None:
            return None
        first, second = sorted(among or self.shows, key=self.shows.__getitem__, reverse=True)[:2]
        return first if self.shows[first] - self.shows[second] >= TOLD_APART else None

    def take_for(self, modality: str | None, reason: str = "by what it shows") -> None:
        """Use it as the sequence that its image shows."""
        confidence = max(self.verdict.confidence, RELIABLE) if modality else 0.0
        self.verdict = Verdict(modality, confidence, f"{reason}; its header: {self.verdict.reason}")
        self.by_image = True


@dataclass(frozen=True)
class Decision:
    """The candidates that are used.

    Attributes:
        chosen: modality -> candidate, in the order of the modalities.
        explanations: a line for each candidate: what it is used as and why, or why it is left out.
        warnings: what the user should check.
        notes: other originals that could have been used for a modality, by their `Candidate.source`.
    """

    chosen: dict[str, Candidate]
    explanations: list[str]
    warnings: list[str]
    notes: list[str]


def _fits(candidate: Candidate, others: Mapping[str, Candidate]) -> tuple[bool, int]:
    """Return whether a T1c is like the T1 in plane and resolution, and like how many of the others."""
    alike = {name: candidate.verdict.modality == "t1c" and _alike(candidate, other) for name, other in others.items()}
    return alike.get("t1", False), sum(alike.values())


RANKS: Sequence[tuple[str, Callable[[Candidate, Mapping[str, Candidate]], Any]]] = (
    ("set by hand or named so", lambda candidate, _: candidate.fixed),
    ("where the other images lie", lambda candidate, _: not candidate.elsewhere),
    ("not of another part of the body by its header", lambda candidate, _: not candidate.other_body),
    ("original and not reformatted", lambda candidate, _: (not candidate.reformatted, not candidate.derived)),
    ("recognised more surely", lambda candidate, _: candidate.verdict.confidence >= RELIABLE),
    ("in the plane and resolution of the others", _fits),
    ("3D", lambda candidate, _: candidate.in_3d),
    ("of thinner slices", lambda candidate, _: -round(float(voxel_sizes(candidate.grid[1])[2]), 1)),
    ("of a larger matrix", lambda candidate, _: candidate.grid[0][0] * candidate.grid[0][1]),
    ("corrected for distortion or intensity", lambda candidate, _: candidate.corrections),
    ("later", lambda candidate, _: candidate.acquired if candidate.verdict.modality == "t1c" else ""),
    ("recognised with more confidence", lambda candidate, _: candidate.verdict.confidence),
)
"""Criteria by which one of several candidates is preferred, in this order: the reason that is given, and a function of
the candidate and of those chosen for other modalities. The first difference decides."""


def in_question(candidates: Sequence[Candidate], modalities: Sequence[str]) -> list[Candidate]:
    """Return the candidates whose images have to decide, with those they are compared with; none if headers decide."""
    for candidate in candidates:
        candidate.start(None)
    unclear, equal, others = _t1_in_question(candidates, modalities), [], {}
    wanted = _wanted(candidates, modalities)
    _locate(wanted)
    for modality in _order(modalities):
        best = _best(wanted, modality, others)
        equal += best
        others |= {modality: best[0]} if best else {}
    return [*dict.fromkeys([*unclear, *equal])] if unclear or len(equal) > len(others) else []


def decide(
    candidates: Sequence[Candidate],
    modalities: Sequence[str],
    option: Option,
    shown: Mapping[str, Shown] | None = None,
    why_not_shown: str = "",
    required: Collection[str] = (),
) -> Decision:
    """Choose a candidate for each modality: by headers, and by images for those in ``shown``.

    If there are several, the criteria in `RANKS` decide, in their order: those that lie elsewhere, name another part of
    the body, or are derived where an original stands, come last. Two of them are for T1c alone: the plane and
    resolution of the other sequences, and a later acquisition. Raises ValueError if neither headers nor images decide,
    all candidates for a modality are unusable (slices missing, ...), or nothing is recognised. The message lists the
    candidates with what their images show.

    Args:
        candidates: all of the study's; their verdicts are changed.
        modalities: those that may be used, in their order.
        option: words what the user can do.
        shown: name of a candidate -> what its image shows. None: headers alone decide.
        why_not_shown: reason why the images could not be judged, or empty.
        required: names of candidates that must not be left out because of what they show.
    """
    chosen: dict[str, Candidate] = {}
    refusal, wanted = "", list(candidates)
    for candidate in candidates:
        candidate.start((shown or {}).get(candidate.name))
    try:
        if shown is not None:
            _settle_t1(candidates, modalities, option, why_not_shown)
        wanted = _wanted(candidates, modalities)
        _locate(wanted)
        for modality in _order(modalities):
            if best := _only_best(wanted, modality, chosen, option):
                chosen[modality] = best
        if not chosen:
            names = [name for name in modalities if name in GLIOMA]
            refusal = (
                f"Nothing is recognised as one of {', '.join(map(display_name, names))}. Set one: {option(names[:1])}"
            )
    except ValueError as error:
        refusal = str(error)
    explanations = [_explanation(candidate, candidate in wanted, chosen) for candidate in candidates]
    if refusal:
        raise ValueError("\n".join([refusal, *explanations]))
    warnings, notes = [*_warnings(wanted, chosen)], [*_notes(wanted, chosen)]
    chosen, taken = _by_content(chosen, modalities, required)
    for k, candidate in enumerate(candidates):
        if explanations[k].endswith("; taken.") and candidate.by_image:  # it may be another sequence now, or none
            explanations[k] = _explanation(candidate, True, chosen)
    return Decision(chosen, explanations, [*taken, *warnings], notes)


def contradictions(chosen: Mapping[str, Candidate]) -> Iterator[str]:
    """Yield a warning for images that do not show what they are used as."""
    shown = {name: torch.tensor([*each.shows.values()]) for name, each in chosen.items() if each.shows}
    for doubt in doubted_sequences(shown):
        named = " and ".join(f"{display_name(name)} ({chosen[name].source})" for name in doubt.modalities)
        yield (
            f"{named}: {doubt.what}. Do not use the result, volumes included, before you know which image is which "
            "sequence."
        )


def _locate(candidates: Sequence[Candidate]) -> None:
    """Say which candidates lie `elsewhere`: not over most of the others in their frame of reference.

    Nothing is said where no sequence has two candidates, since grids of files take time to read.
    """
    usable = [each for each in candidates if each.verdict.modality and each.problem is None]
    if len({each.verdict.modality for each in usable}) == len(usable):
        return
    for each in usable:
        others = [other for other in usable if other is not each and other.frame == each.frame]
        over = sum(_is_within(each, other) or _is_within(other, each) for other in others)
        each.elsewhere = len(others) >= 2 and over < len(others) / 2


def _is_within(candidate: Candidate, other: Candidate) -> bool:
    """Return whether the centre of an image lies within another one's field of view."""
    (shape, affine), (seen, grid) = candidate.grid, other.grid
    centre = affine @ [*((size - 1) / 2 for size in shape), 1]
    voxel = np.linalg.solve(grid, centre)[:3]
    return bool((voxel > -0.5).all() and (voxel < np.array(seen) - 0.5).all())


def _order(modalities: Sequence[str]) -> list[str]:
    """Return the modalities in the order in which they are chosen: T1c last, since it is to fit the others."""
    return sorted(modalities, key="t1c".__eq__)


def _wanted(candidates: Sequence[Candidate], modalities: Sequence[str]) -> list[Candidate]:
    """Return the candidates that may be used, as far as the user said something on it."""
    fixed = {each.verdict.modality for each in candidates if each.fixed}
    left_out = ({*GLIOMA} - {*modalities}) | fixed
    return [each for each in candidates if each.fixed or each.verdict.modality not in left_out]


def _t1_in_question(candidates: Sequence[Candidate], modalities: Sequence[str]) -> list[Candidate]:
    """Return the T1 and T1c if one of them has a rival and its header does not tell which of the two it is."""
    t1 = [each for each in candidates if each.verdict.modality in ("t1", "t1c") and each.problem is None]
    originals = [each for each in t1 if each.fixed or not each.reformatted]
    t1 = originals if any(each.is_open for each in originals) else t1
    rivals = Counter(each.verdict.modality for each in t1)
    settled = {each.verdict.modality for each in t1 if each.fixed} | ({"t1", "t1c"} - {*modalities})
    is_open = any(rivals[each.verdict.modality] > 1 for each in t1 if each.is_open and not each.fixed)
    return t1 if is_open and not {"t1", "t1c"} <= settled else []


def _settle_t1(candidates: Sequence[Candidate], modalities: Sequence[str], option: Option, why_not_shown: str) -> None:
    """Decide by the images for each T1 in question whose header does not tell if it shows contrast agent.

    One whose image does not clearly show either T1 or T1c is left out; ValueError if one of the two is then lacking.
    """
    t1 = _t1_in_question(candidates, modalities)
    opened = [each for each in t1 if each.is_open and not each.fixed]
    fixed = {each.verdict.modality for each in t1 if each.fixed}
    possible = ("t1", "t1c", "other")  # by their headers
    kinds, named = {each.clearly(possible) for each in t1} & {"t1", "t1c"}, {*t1} - {*opened}
    # Alike, they decide nothing unless a header says the same: of 50 open cases, 5 to 8 had such images that were taken
    # for the other.
    alike = len(kinds) == 1 and kinds != {each.verdict.modality for each in named}
    seen = {each: None if alike else each.clearly(possible) for each in opened}
    unclear = [each for each in opened if seen[each] not in ("t1", "t1c")]
    clear = {seen.get(each, each.verdict.modality) for each in t1 if each not in unclear}
    if unclear and not fixed and not {"t1", "t1c"} & {*modalities} <= clear:
        names = ", ".join(each.name for each in unclear)
        failed = f" (they could not be compared: {why_not_shown.rstrip('.')})" if why_not_shown else ""
        raise ValueError(
            f"{names}: neither header nor image tells whether this T1 was acquired before or after contrast agent"
            f"{' (nothing that looks otherwise is there to compare with)' if alike else failed}. Look at the T1 listed "
            f"here, and choose: {option(('t1', 't1c'))}"
        )
    for each in opened:
        if each in unclear:
            each.take_for(None, "by what it shows" if seen[each] else "its image shows nothing clearly")
        else:
            each.take_for(seen[each])


def _best(wanted: Sequence[Candidate], modality: str, others: Mapping[str, Candidate]) -> list[Candidate]:
    """Return the usable candidates for a modality that are equally good, and better than the rest."""
    usable = [each for each in wanted if each.verdict.modality == modality and each.problem is None]
    if len(usable) < 2:
        return usable
    ranks = [_rank(each, others) for each in usable]
    return [each for each, rank in zip(usable, ranks, strict=True) if rank == max(ranks)]


def _only_best(
    wanted: Sequence[Candidate], modality: str, others: Mapping[str, Candidate], option: Option
) -> Candidate | None:
    """Return the best candidate for a modality, or None; ValueError if none can be used, or several are equal.

    Among equally good ones, those whose images clearly show something else are left out.
    """
    candidates, equal = [each for each in wanted if each.verdict.modality == modality], _best(wanted, modality, others)
    if candidates and not equal:
        first, name = candidates[0], display_name(modality)
        which = f"first of {len(candidates)} {name}, none of which can" if candidates[1:] else f"only {name} and cannot"
        raise ValueError(
            f"{first.name} is the {which} be used: {first.problem}. To go on without it: {option((modality,), 'none')}"
        )
    if len(equal) > 1 and (fitting := [each for each in equal if each.clearly() in (None, modality)]):
        for each in {*equal} - {*fitting}:
            each.take_for(None, "its image shows something else")
        equal = fitting
    if len(equal) > 1:
        names = ", ".join(each.name for each in equal)
        raise ValueError(
            f"{names}: all are {display_name(modality)} and cannot be told apart. Choose: {option((modality,))}"
        )
    return equal[0] if equal else None


def _by_content(
    chosen: Mapping[str, Candidate], modalities: Sequence[str], required: Collection[str]
) -> tuple[dict[str, Candidate], list[str]]:
    """Use images that were chosen by ambiguous headers as the modality that they clearly show; say what changed.

    An image that shows none of the modalities is left out, unless it is the only one. One that clearly shows what its
    header says is no longer ambiguous. For example, a T1 with confidence 0.7 that looks like T1c becomes the T1c.
    """
    opened = {
        name: each
        for name, each in chosen.items()
        if each.shows and each.confidence is not None and each.confidence < OPEN
    }
    free = [name for name in modalities if name in opened or name not in chosen]
    possible = [
        names
        for names in product((*free, "other"), repeat=len(opened))
        if all(names.count(name) <= 1 for name in free)
        and names.count("other") < len(chosen)
        and not any(new == "other" and opened[name].name in required for name, new in zip(opened, names, strict=True))
    ]

    def likelihood(names: Sequence[str]) -> float:
        return sum(each.shows[name] for each, name in zip(opened.values(), names, strict=True))

    best = max(possible, key=likelihood)
    moves = dict(zip(opened, best if likelihood(best) - likelihood([*opened]) >= SURE else opened, strict=True))
    remarks = []
    for name, new in moves.items():
        each = opened[name]
        if new != name:
            what = "looks like none, and is left out"
            if new != "other":
                what = f"looks like {display_name(new)}, and is taken for it"
            why = f"its header leaves open whether it is {display_name(name)} ({each.verdict.reason})"
            remarks.append(f"{each.source}: {why}; it {what}.")
        if new != name or each.shows[name] - max(each.shows[other] for other in each.shows if other != name) >= SURE:
            each.take_for(None if new == "other" else new)
    renamed = {moves.get(name, name): each for name, each in chosen.items()}
    return {name: renamed[name] for name in modalities if name in renamed}, remarks


def _rank(candidate: Candidate, others: Mapping[str, Candidate]) -> list[Any]:
    return [value(candidate, others) for _, value in RANKS]


def _alike(candidate: Candidate, other: Candidate) -> bool:
    """Return whether two images have similar voxels and, unless these are nearly cubes, slices in one plane."""
    sizes, others = (np.sort(voxel_sizes(each.grid[1])) for each in (candidate, other))
    similar = (np.maximum(sizes / others, others / sizes) <= ALIKE).all()
    return bool(similar) and (sizes[2] <= ALIKE * sizes[0] or _plane(candidate) == _plane(other))


def _plane(candidate: Candidate) -> str:
    normal = np.cross(*candidate.grid[1][:3, :2].T)
    return ("sagittal", "coronal", "axial")[int(np.abs(normal).argmax())]


def _warnings(wanted: Sequence[Candidate], chosen: Mapping[str, Candidate]) -> Iterator[str]:
    for modality, best in chosen.items():
        for each in wanted:
            if each.verdict.modality == modality and each.problem:
                yield f"{each.source}, by its header {display_name(modality)}, is not used: {each.problem}."
        if best.reformatted:
            yield f"{best.source} is reformatted; there is no original."
        if best.other_body:
            yield f"{best.source}: its header names another part of the body ({best.other_body})."


def _notes(wanted: Sequence[Candidate], chosen: Mapping[str, Candidate]) -> Iterator[str]:
    for each in wanted:
        best = chosen.get(each.verdict.modality or "")
        if each.by_image and each.verdict.modality is None:
            yield f"Left out: {_described(each)}: {each.verdict.reason}."
        elif best and best is not each and each.problem is None and not each.reformatted:
            yield (
                f"{display_name(each.verdict.modality)} too, but not used: {_described(each)}, since "
                f"{_described(best)} is {_advantage(best, each, chosen)}."
            )


def _described(candidate: Candidate) -> str:
    return f"{candidate.source} ({_plane(candidate)}, {lengths(voxel_sizes(candidate.grid[1]))} mm)"


def _advantage(best: Candidate, other: Candidate, chosen: Mapping[str, Candidate]) -> str:
    others = {name: each for name, each in chosen.items() if each is not best}
    return next(reason for reason, value in RANKS if value(best, others) != value(other, others))


def _explanation(candidate: Candidate, is_wanted: bool, chosen: Mapping[str, Candidate]) -> str:
    """Return a line: what a candidate was recognised as, what it shows, and whether and why it is taken."""
    name, verdict, best = candidate.name, candidate.verdict, chosen.get(candidate.verdict.modality or "")
    if verdict.modality is None:
        line = f"{name}: left out: {verdict.reason}"
    else:
        line = f"{name}: {display_name(verdict.modality)}, confidence {verdict.confidence:.2f} ({verdict.reason})"
    if candidate.shows:
        likely = np.exp([*candidate.shows.values()]) / np.exp([*candidate.shows.values()]).sum()
        seen = [pair for pair in sorted(zip(likely, candidate.shows, strict=True), reverse=True) if pair[0] >= UNLIKELY]
        line += f"; its image shows {' or '.join(f'{_in_words(name)} ({share:.0%})' for share, name in seen)}"
    if verdict.modality and not is_wanted:
        line += "; not used, as requested"
    elif verdict.modality and candidate.problem:
        line += f"; cannot be used: {candidate.problem}"
    elif candidate is best:
        line += "; taken"
    elif best:
        line += f"; not taken, since {best.name} is {_advantage(best, candidate, chosen)}"
    return f"{line}."


def _in_words(shown: str) -> str:
    return display_name(shown) if shown in GLIOMA else "none of the four"
