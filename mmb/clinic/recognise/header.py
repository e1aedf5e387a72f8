"""Recognition of a series' sequence (T1, T1c, T2, FLAIR, or none of them) from its header.

A person wrote the description (``t1_mprage_sag_KM``); the parameters TR, TE and TI are those that the scanner used. If
the two contradict each other, the series is left out. T1c is a T1 after contrast agent; a T2 or FLAIR after it keeps
its name. The attribute that names the agent is often set for the whole study, and is missing as often, so the
description counts more. Only known words are quoted, since descriptions may contain names of patients.
"""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import acos, degrees, exp
from typing import Any

from pydicom.dataset import Dataset

from common.cohorts.examination import Told, differing
from common.cohorts.registry import dates
from common.modalities import display_name
from mmb.clinic.intake.headers import GREY, colour, items, number, private_number, text, texts
from mmb.clinic.recognise.certainty import Agent, Basis, Grade, grade
from mmb.clinic.recognise.contrast import Contrast, contrast_said
from mmb.clinic.recognise.evidence import HeaderEvidence
from mmb.clinic.recognise.words import (
    DENOISED,
    NO_AGENT,
    UNIFORM,
    doubtful_kind,
    excluded_kind,
    has_unknown_words,
    no_magnitude,
    other_body,
    plain,
    quoted,
    weightings,
)

AGENT_NAMED = (
    "ContrastBolusAgent", "ContrastBolusIngredient", "ContrastBolusRoute", "ContrastBolusVolume",
    "ContrastBolusTotalDose", "ContrastBolusIngredientConcentration", "ContrastFlowRate", "ContrastBolusStartTime",
)  # fmt: skip
"""Attributes each of which indicates that contrast agent was given."""
CORRECTIONS = {"NORM", "DIS2D", "DIS3D"}
"""Values of ImageType for corrections of intensity and distortion."""
LONG_TE = 50.0  # echo time in ms from which on fluid is bright, of an image other than a gradient echo
LONG_TI = 1500.0  # inversion time in ms from which on an image with a long TE is a FLAIR, whatever its TR
T1_FLUID = 4300.0  # T1 of cerebrospinal fluid in ms
FLUID_LEFT = 0.15  # maximum share of the magnetisation of fluid that is left in a FLAIR
LONGEST_TR = 3500.0  # repetition time in ms of a T1 gradient echo after an inversion; MP2RAGE's is longer
T1_BRAIN = 1000.0  # T1 of brain tissue in ms, by which the flip angle makes a gradient echo T1 or proton density
LONG_TRAIN = 48  # echoes of a train in 2D beyond those of usual spin echoes, as of echo-planar images and HASTE
SPOILED_TR = 60.0  # repetition time in ms below which the flip angle decides that
GE_COMPONENT = (0x0043, 0x102F)  # GE's private attribute: which part of the complex signal an image shows
GE_COMPONENTS = {1: "PHASE", 2: "REAL", 3: "IMAGINARY"}
INVERSION, MP2RAGE = "inversion image of an MP2RAGE", "mp2 ?rage"
KINDS = {"se", "ir", "gr", "ep", "rm"}  # values of ScanningSequence, in lower case


def recognise_study(headers: Sequence[Dataset]) -> list[HeaderEvidence]:
    """Return what the headers of a study's images say, each in the light of the others.

    Contrast agent stays in the body: if an earlier series was acquired after it, so was a T1 whose header does not say.
    A T1 that does not say so is known to be earlier than a sure T1c. An agent that every series names
    was entered for the whole study, and tells nothing of a single T1.
    """
    agents, times = [agent_named(header) for header in headers], [acquired(header) for header in headers]
    days = [told_by_dates(header) for header in headers]
    after = [(time, day) for time, day, h in zip(times, days, headers, strict=True) if time and contrast(h)[0]]
    everywhere = len(headers) > 1 and all(agents)
    sure = [(time, day) for time, day, h in zip(times, days, headers, strict=True) if time and _is_sure_t1c(h)]
    said = []
    for header, agent, time, day in zip(headers, agents, times, days, strict=True):
        says, words = recognise(header, headers), contrast_words(header)
        if says.modality in ("t1", "t1c") and words is None:
            if everywhere:
                says = _late(says, Agent.STUDY, ", as for every series of the study, which is weak evidence", header)
            elif not agent and any(time > earlier and not differing([day, other]) for earlier, other in after):
                says = _late(says, Agent.LATER, ", but it was acquired after a series with contrast agent", header)
        if says.modality and says.grade == Grade.WEAK:
            reason = f"perhaps {display_name(says.modality)}, but too uncertain ({says.reason})"
            says = HeaderEvidence(None, Grade.NONE, reason)
        if says.rests_on[0] == Basis.PARAMETERS and says.modality in ("t1", "t1c") and _is_echo(header, headers):
            says = HeaderEvidence(None, Grade.NONE, f"one of several gradient echoes ({says.reason})")
        first = says.modality == "t1" and any(time and time < late and not differing([day, d]) for late, d in sure)
        unknown = words is None or words.after is None
        unknown = unknown and (everywhere or not agent or (words is not None and words.unknown))
        said.append(replace(says, contrast_unknown=unknown, earlier=words is None and first))
    return said


def _is_echo(header: Dataset, study: Sequence[Dataset]) -> bool:
    """Return whether an image is one of several gradient echoes, as the magnitudes of a field map are."""
    uid = text(header, "SeriesInstanceUID")
    times = {number(each, "EchoTime") for each in study if uid and text(each, "SeriesInstanceUID") == uid}
    kinds = _text(header, "ScanningSequence").split()
    return "se" not in kinds and (len(times) > 1 or (number(header, "EchoNumbers") or 1) > 1)


def _is_sure_t1c(header: Dataset) -> bool:
    says = recognise(header)
    return says.modality == "t1c" and says.grade == Grade.SURE


def _late(says: HeaderEvidence, agent: Agent, why: str, header: Dataset) -> HeaderEvidence:
    basis, _ = says.rests_on
    sure = grade(basis, agent, reformatted(header))
    return HeaderEvidence("t1c", sure, f"{says.reason}{why}", (basis, agent))


def recognise(header: Dataset, study: Sequence[Dataset] = ()) -> HeaderEvidence:
    """Recognise an image by its header (of a single-frame image, or `Series.header`); any attribute may be missing.

    ``study`` has the headers of its study's images.
    """
    if unwanted := _unwanted(header):
        return HeaderEvidence(None, Grade.NONE, unwanted, excluded=True)
    words = weightings(_description(header))
    mentioned = {*words}
    measured, parameters = _measured(header)
    weighting, basis = _weigh(mentioned, measured, number(header, "EchoTime") or 0)
    if measured == INVERSION and (quoted(MP2RAGE, _description(header)) or _has_partner(header, study)):
        weighting = None
    odd = has_unknown_words(_description(header))
    named = ", ".join(f"'{word}'" for word in words.values())
    others = (" and unknown words" if words else "none that is known") * odd
    heard = [f"words: {named}{others}"] * bool(words or odd) + [f"parameters: {parameters}"] * bool(parameters)
    evidence = "; ".join(heard) or "its header says nothing"
    doubt = doubtful_kind(_description(header))
    if weighting is None or (doubt and not mentioned):
        why = f"{doubt[0]} ('{doubt[1]}')" if doubt else f"{_why_not(mentioned, measured)} ({evidence})"
        return HeaderEvidence(None, Grade.NONE, why)
    if computed := reformatted(header):
        evidence = f"{evidence}; reformatted"
    agent = Agent.AGREED
    if weighting == "t1":
        after, agent, reason = contrast(header)
        weighting, evidence = "t1c" if after else "t1", f"{evidence}; {reason}"
    sure = grade(basis, agent, computed)
    if odd:
        sure = min(sure, Grade.OPEN if "DERIVED" in image_type(header)[:1] else Grade.LIKELY)
    unclear = weighting == "t2" and not text(header, "ScanningSequence") and text(header, "MRAcquisitionType") != "3D"
    if unclear and (train := number(header, "EchoTrainLength") or 0) >= LONG_TRAIN:
        sure = min(sure, Grade.OPEN)
        evidence = f"{evidence}; perhaps an echo-planar image, by its train of {train:g} echoes"
    if doubt:
        sure, evidence = min(sure, Grade.OPEN), f"{evidence}; '{doubt[1]}' may mean: {doubt[0]}"
    return HeaderEvidence(weighting, sure, evidence, (basis, agent))


def traits(header: Dataset) -> dict[str, Any]:
    """Return those fields of a `Candidate` that its header gives directly."""
    return {
        "described": text(header, "SeriesDescription"),
        "reformatted": reformatted(header),
        "derived": image_type(header)[:1] == ["DERIVED"],
        "other_body": other_body(_text(header, "BodyPartExamined")) or "",
        "in_3d": text(header, "MRAcquisitionType") == "3D",
        "mean": "MEAN" in image_type(header) or quoted("rms|mean", _description(header)) is not None,
        "corrections": len(CORRECTIONS & {*image_type(header)}) + bool(quoted(DENOISED, _description(header))),
        "acquired": acquired(header),
        "odd": has_unknown_words(_description(header)),
    }


def acquired(header: Dataset) -> str:
    """Return the time of acquisition as text that sorts by time; empty if unknown."""
    date, time = (text(header, name) for name in ("AcquisitionDate", "AcquisitionTime"))
    return date + time if date and time else text(header, "AcquisitionDateTime")


def told_by_dates(header: Dataset, name: str = "") -> Told:
    """Return what the dates of a header tell of its examination; what was derived may have a later SeriesDate."""
    stated = {kind: text(header, kind) for kind in ("StudyDate", "SeriesDate", "AcquisitionDate")}
    stated |= {"AcquisitionDate": stated["AcquisitionDate"] or acquired(header)}
    stated |= {"SeriesDate": ""} if image_type(header)[:1] == ["DERIVED"] else {}
    return Told(name, days={kind: found[0] for kind, value in stated.items() if len(found := dates(value)) == 1})


def contrast(header: Dataset) -> tuple[bool, Agent, str]:
    """Return whether a T1 was acquired after contrast agent, on what that rests, and the reason."""
    agent, words = agent_named(header), contrast_words(header)
    named = "a contrast agent is named" if agent else "no attribute names one"
    if words is None:
        return agent, Agent.ASSUMED, named if agent else "no contrast agent is named"
    if words.after is None:
        why = "beside an unknown word or sign " if words.unknown else ""
        return agent, Agent.UNCLEAR, f"'{words.word}' {why}leaves open whether contrast agent was given, {named}"
    if words.after == agent:
        rests_on = Agent.AGREED
    else:
        rests_on = Agent.BRIEF if words.brief else Agent.WORDS if words.after else Agent.ASSUMED
    return words.after, rests_on, f"{'after' if words.after else 'before'} contrast agent by '{words.word}', {named}"


def contrast_words(header: Dataset) -> Contrast | None:
    """Return what the description says of contrast agent; None if it says nothing.

    On Philips scanners the protocol's name is that of the series, and may contain what an edited description lacks.
    """
    names = ["SeriesDescription" if _text(header, "SeriesDescription") else "ProtocolName"]
    if "philips" in _text(header, "Manufacturer"):
        names.append("ProtocolName")
    return next(filter(None, (contrast_said(plain(text(header, name))) for name in names)), None)


def agent_named(header: Dataset) -> bool:
    """Return whether an attribute names a contrast agent, its dose or route; "none" or 0 do not count."""
    stated = any(number(header, name) != 0 and not re.fullmatch(NO_AGENT, _text(header, name)) for name in AGENT_NAMED)
    agents = items(header, "ContrastBolusAgentSequence")
    return stated or any(
        len(agent) and not re.fullmatch(f"(?!$)({NO_AGENT})", _text(agent, "CodeMeaning")) for agent in agents
    )


def reformatted(header: Dataset) -> bool:
    """Return whether images were computed from others, as multi-planar reformats are."""
    types = image_type(header)
    return types[:2] == ["DERIVED", "SECONDARY"] or "MPR" in types


def image_type(header: Dataset) -> list[str]:
    """Return the values of ImageType."""
    return [value.strip().upper() for value in texts(header, "ImageType")]


def _unwanted(header: Dataset) -> str | None:
    """Return the kind of an image that is not a candidate; None if it may be a T1, T2 or FLAIR."""
    if model := colour(header):
        return f"in colour (PhotometricInterpretation {model}; expected {' or '.join(GREY)})"
    types = image_type(header)
    components = {"ImageType": types[2:], "ComplexImageComponent": texts(header, "ComplexImageComponent")}
    components["GE's type"] = [GE_COMPONENTS.get(int(private_number(header, GE_COMPONENT) or 0), "")]
    for where, values in components.items():
        if found := no_magnitude(values):
            return f"{found[0]} ({where} {found[1]})"
    if (number(header, "DiffusionBValue") or 0) > 0:
        return "diffusion (b-value)"
    if text(header, "AngioFlag") == "Y":
        return "angiography (AngioFlag)"
    searched = {
        "": _description(header),
        "ImageType ": plain(" ; ".join(types[2:])),
        "AcquisitionContrast ": _text(header, "AcquisitionContrast"),
        "SequenceName ": _text(header, "SequenceName"),
    }
    for where, words in searched.items():
        if found := excluded_kind(words) or (doubtful_kind(words) if where else None):
            return f"{found[0]} ({where}'{found[1]}')"
    return None


def _measured(header: Dataset) -> tuple[str | None, str]:
    """Return the weighting that follows from the parameters (None if unclear), and the parameters as text.

    Spin echoes: T1 has a short TR and TE, PD a long TR and a short TE, T2 both long. After an inversion, a short TI
    nulls fat (STIR); a long TI with a long TE nulls fluid (FLAIR); an intermediate one with a short TE gives T1 (T1
    FLAIR). Gradient echoes: see `_gradient_echo`.
    """
    tr, te, ti = (number(header, name) or None for name in ("RepetitionTime", "EchoTime", "InversionTime"))
    kinds = KINDS & set(_text(header, "ScanningSequence").split())
    named = [f"{name} {value:g} ms" for name, value in (("TR", tr), ("TE", te), ("TI", ti)) if value]
    parameters = ", ".join([*named, *sorted(kind.upper() for kind in kinds - {"rm"})])
    if "ep" in kinds:
        return "echo-planar image", parameters
    if te is None or tr is None:
        return None, parameters
    if ("gr" in kinds and "se" not in kinds) or (tr < 60 and te < 60):  # GE writes "RM" for several sequences
        flip = number(header, "FlipAngle") if not (ti or "ir" in kinds) else None
        uniform = "UNI" in image_type(header) or quoted(UNIFORM, _description(header)) is not None
        return _gradient_echo(tr, te, ti, flip, uniform), parameters
    if "ir" in kinds or ti:
        return _inverted(tr, te, ti), parameters
    if te < LONG_TE:
        return ("t1" if tr < 1500 else "pd"), parameters
    return ("t2" if te >= 60 and tr >= 1500 else None), parameters


def _gradient_echo(tr: float, te: float, ti: float | None, flip: float | None, uniform: bool) -> str:
    """Return the weighting of a gradient echo; ``uniform``: whether it was computed of both inversions of MP2RAGE.

    ``flip`` is the flip angle in degrees, None if an inversion makes the contrast. Far below the Ernst angle of brain,
    the contrast is that of proton density.
    """
    if te >= 10:
        return "T2*"
    if ti and (ti >= LONG_TI or tr > LONGEST_TR):
        return "t1" if uniform else INVERSION
    ernst = degrees(acos(exp(-tr / T1_BRAIN)))
    return "pd" if flip and tr < SPOILED_TR and flip < ernst / 2 else "t1"


def _inverted(tr: float, te: float, ti: float | None) -> str | None:
    """Return the weighting of a spin echo after an inversion, whose TI may be unknown."""
    if ti and ti < 400:
        return "STIR"
    if te >= LONG_TE and (ti >= LONG_TI or _nulls_fluid(tr, ti) if ti else tr >= 4000):
        return "flair"
    return "t1" if te < LONG_TE and (ti < LONG_TI if ti else tr < 4000) else None


def _nulls_fluid(tr: float, ti: float) -> bool:
    """Return whether hardly any magnetisation of fluid is left at the inversion time; with a short TR it is short too.

    Source: the signal equation of inversion recovery, 1 - 2 exp(-TI / T1) + exp(-TR / T1).
    """
    return abs(1 - 2 * exp(-ti / T1_FLUID) + exp(-tr / T1_FLUID)) <= FLUID_LEFT


def _has_partner(header: Dataset, study: Sequence[Dataset]) -> bool:
    """Return whether a study has another image after an inversion with this long TR, as MP2RAGE acquires two."""
    tr, ti = (number(header, name) for name in ("RepetitionTime", "InversionTime"))
    others = (each for each in study if number(each, "RepetitionTime") == tr)
    return any(abs((number(each, "InversionTime") or ti or 0) - (ti or 0)) > 1 for each in others)


def _weigh(mentioned: set[str], measured: str | None, te: float) -> tuple[str | None, Basis]:
    """Return the weighting on which words and parameters agree, None if they do not, and on what it rests.

    Words for T1 outweigh a limit of TR or TI if the echo time ``te`` in ms is that of a T1: not all scanners, such as
    those of low field, keep the limits.
    """
    if measured in ("STIR", INVERSION) and mentioned in ({"t1"}, {"t1", "flair"}) and 0 < te < LONG_TE:
        return "t1", Basis.AGAINST
    if mentioned >= {"flair", "t1"} and "t2" not in mentioned:  # T1 FLAIR: an inversion that increases T1 contrast
        agreed = {"t1": ("t1", Basis.BOTH), None: ("t1", Basis.PARTLY), "pd": ("t1", Basis.PARTLY)}
    elif "flair" in mentioned:
        agreed = {"flair": ("flair", Basis.BOTH), None: ("flair", Basis.PARTLY)}
        agreed |= {"t2": ("flair", Basis.AGAINST), "t1": ("t1", Basis.AGAINST)}
    elif "pd" in mentioned:
        agreed = {"t2": ("t2", Basis.WORDS)} if "t2" in mentioned else {}  # the second of two echoes
    elif mentioned == {"t1"}:
        agreed = {"t1": ("t1", Basis.BOTH), None: ("t1", Basis.WORDS), "pd": ("t1", Basis.AGAINST)}
    elif mentioned == {"t2"}:
        agreed = {"t2": ("t2", Basis.BOTH), None: ("t2", Basis.WORDS), "flair": ("flair", Basis.PARTLY)}
    else:
        agreed = {name: (name, Basis.PARAMETERS) for name in ("t1", "t2", "flair")}
    return agreed.get(measured, (None, Basis.AGAINST))


def _why_not(mentioned: set[str], measured: str | None) -> str:
    if measured in ("T2*", "STIR", "echo-planar image", INVERSION):
        return measured
    if "pd" in mentioned or (measured == "pd" and "t1" not in mentioned):
        return "proton density"
    if mentioned and measured:
        return "description and parameters contradict each other"
    return "not recognised"


def _description(header: Dataset) -> str:
    """Return the words of the description or, without one, of the protocol, which may cover the whole examination."""
    return _text(header, "SeriesDescription") or _text(header, "ProtocolName")


def _text(header: Dataset, name: str) -> str:
    return plain(" ".join(texts(header, name)))
