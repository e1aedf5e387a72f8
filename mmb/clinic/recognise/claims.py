"""What names and headers of a study's files claim: DICOM series, NIfTI files of a folder, or files given one by one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pydicom

from common.cohorts.cohort import Cohort
from common.cohorts.examination import differing, told
from common.cohorts.scan import find_cases, named_after
from common.io.files import unread
from common.modalities import GLIOMA, canonical, display_name, resolve_subset, subset_name
from common.text import shortened
from mmb.clinic.intake.field_of_view import MIN_EXTENT_MM
from mmb.clinic.intake.folder import StudyFiles, require_image_files, study_files
from mmb.clinic.intake.headers import number, text
from mmb.clinic.intake.series import Others, Series, read_all
from mmb.clinic.recognise.certainty import Grade
from mmb.clinic.recognise.evidence import Candidate, HeaderEvidence, ImageFile, SeriesCandidate
from mmb.clinic.recognise.header import recognise, recognise_study, told_by_dates, traits
from mmb.clinic.recognise.image import has_known_sequences
from mmb.clinic.recognise.image_files import contradiction, not_what_they_end_with, recognise_files
from mmb.clinic.recognise.record import Record, Use, unused
from mmb.clinic.recognise.site import SiteTable
from mmb.clinic.remark import Gravity, Remark
from mmb.errors import EACH, StudyError
from mmb.extras import required

C = TypeVar("C", bound=Candidate)
DECIDE = {
    "not_recognised": ("To set one: {}", ""),
    "undecided": ("Choose: {}", ""),
    "equal": ("Choose: {}", ""),
    "unusable": ("To go on without it: {}", "none"),
}
"""Code of what `assign_series` refuses -> what the console asks for, and the value to set."""


@dataclass(frozen=True)
class Headers:
    """Image files that were given one by one, with what their names say."""

    candidates: Sequence[Candidate]
    cohort: Cohort
    modalities: Sequence[str]  # that may be used
    remarks: Sequence[Remark] = ()
    lines: Sequence[str] = ()  # on series that were joined of parts, and patterns of the site's table that fit none
    unused: Sequence[Record] = ()  # series or files that are no candidates
    unread: int = 0  # number of files that were not read

    @property
    def others(self) -> list[str]:
        """Its lines, and one for each series or file that is no candidate."""
        return [*self.lines, *(each.line() for each in self.unused)]

    def option(self, names: Sequence[str], value: str = "") -> str:
        """Return how the user sets modalities by hand."""
        return f"give the right ones, {' '.join(f'--{name} FILE' for name in names)}"

    def refused(self, error: StudyError) -> StudyError:
        """Return an error of `assign_series` with what the user can do."""
        if error.about:
            asked, value = DECIDE[error.code]
            error.command = asked.format(self.option(error.about, value))
        error.lines = [*error.lines, *self.others]
        return self._public(error)

    def _public(self, error: StudyError) -> StudyError:
        named = "The image files do not tell which sequences they are; name them x_t1.nii.gz, and so on."
        return error.of_files(named)


@dataclass(frozen=True)
class FolderHeaders(Headers):
    """Image files of a folder, with what their names and the JSON beside them say."""

    def option(self, names: Sequence[str], value: str = "") -> str:
        """Return how the user names files after modalities."""
        return f"move the wrong files away, or name the right ones {' and '.join(f'x_{name}.nii.gz' for name in names)}"


@dataclass(frozen=True)
class SeriesHeaders(Headers):
    """DICOM series, with what their headers say."""

    candidates: Sequence[SeriesCandidate]

    def option(self, names: Sequence[str], value: str = "") -> str:
        """Return how the user sets modalities, by default to a series."""
        value = value or ("NUMBER-PART" if any(each.series.part for each in self.candidates) else "NUMBER")
        return " ".join(["--series", *(f"{name}={value}" for name in names)])

    def _public(self, error: StudyError) -> StudyError:
        return error


def _named_file(name: str, path: str, modality: str, why: str, channel: int | None = None) -> ImageFile:
    name = name if channel is None else f"{name}, channel {channel}"
    says, file = HeaderEvidence(modality, Grade.SURE, why), Path(path)
    return ImageFile(name, says=says, fixed=True, path=file, channel=channel, told=told(file, name))


def given_files(files: Mapping[str, str | Path], cohort: Cohort, modalities: Sequence[str] | None) -> Headers:
    """Return what is said of an image file of any name for each modality."""
    wanted = resolve_subset(modalities, cohort.modalities)
    given = {canonical(name): str(file) for name, file in files.items()}
    if foreign := [name for name in given if name not in cohort.modalities]:
        what = f"unknown to the network; expected some of {subset_name(cohort.modalities)}."
        raise StudyError.of(f"--{foreign[0]}", what, foreign[0], code="option")
    require_image_files(given)
    used = [_named_file(file, file, name, "you named this file") for name, file in given.items() if name in wanted]
    if not used:
        raise StudyError(f"None of the files is of the requested modalities ({subset_name(wanted)}).", code="option")
    return Headers(used, cohort, wanted)


def read_headers(
    folder: str | Path | StudyFiles,
    cohort: Cohort,
    modalities: Sequence[str] | None = None,
    by_hand: Mapping[str, Any] | None = None,
    site: SiteTable | None = None,
) -> Headers:
    """Read what the names and headers of a study's files say; arguments and errors are those of `read_folder`."""
    wanted = resolve_subset(modalities, cohort.modalities)
    listed = study_files(folder)
    given = _given(by_hand or {}, wanted)
    usable = [name for name in wanted if given.get(name, "") is not None]
    headers = (_of_files if listed.images else _of_series)(listed, cohort, usable, given, site)
    unmatched = site.unmatched([each.described for each in headers.candidates]) if site else []
    said, left = unread(listed.files)
    remarks = [*headers.remarks, *(Remark("files_not_read", Gravity.WARNING, f"{each}.") for each in said)]
    return replace(headers, remarks=remarks, lines=[*headers.lines, *unmatched], unread=len(left))


def of_one_examination(headers: Headers) -> Headers:
    """Return headers, with a remark if images may be of two examinations, or are so by the user's choice.

    Raises StudyError if they are of two otherwise.
    """
    usable = [each for each in headers.candidates if each.problem is None and each.says.modality in headers.modalities]
    named = {each.says.modality for each in usable if each.fixed}
    usable = [each for each in usable if each.fixed or each.says.modality not in named]
    free = [each for each in usable if not each.fixed or isinstance(headers, FolderHeaders)]
    found = differing([each.told for each in free])
    if found and found.certain:
        days = shortened([f"{each.name} {max(each.told.days.values())}" for each in free if each.told.days], 20)
        way = headers if isinstance(headers, SeriesHeaders) else Headers(headers.candidates, headers.cohort, [])
        todo = f"Move those of the other one away; or, if they belong together: {way.option(headers.modalities)}"
        public = "The images are of two examinations or patients, by their names or dates; give those of one."
        raise StudyError(f"{found}. {todo}.{f' Dates: {days}.' * bool(days)}", public, code="two_examinations")
    if found := found or differing([each.told for each in usable]):
        pair = [f"{display_name(it.says.modality or '')} ({it.source})" for it in usable if it.name in found[:2]]
        what = "are of two examinations or patients" if found.certain else "have names as of two patients or times"
        text = f"{' and '.join(pair)} {what}, and are used together. Make sure that they are of one examination."
        lines = [*headers.lines, *([] if found.certain else [f"{found}."])]  # which show no date
        remark = Remark("two_examinations", Gravity.WARNING, text)
        return replace(headers, remarks=[*headers.remarks, remark], lines=lines)
    return headers


def _given(by_hand: Mapping[str, Any], wanted: Sequence[str]) -> dict[str, Any]:
    """Return what is set by hand, by the modalities' usual names, after checking these."""
    if not isinstance(by_hand, Mapping):
        raise StudyError.of(
            f"--series {by_hand!r}", "expected sequences and SeriesNumbers, e.g. t1c=7.", "series", code="option"
        )
    given = {canonical(str(name)): key for name, key in by_hand.items()}
    if len(given) < len(by_hand):
        what = f"one modality is given twice in {', '.join(map(str, by_hand))}; name each once."
        raise StudyError.of("--series", what, "series", code="option")
    if foreign := [name for name in given if name not in wanted]:
        what = f"{foreign[0]} is not among the modalities to use, {subset_name(wanted)}."
        raise StudyError.of("--series", what, "series", code="option")
    if all(given.get(name, "") is None for name in wanted):
        raise StudyError.of(
            "--series", "every modality is left out; expected at least one to be used.", "series", code="option"
        )
    return given


def _of_files(
    listed: StudyFiles, cohort: Cohort, wanted: Sequence[str], given: Mapping[str, Any], site: SiteTable | None
) -> Headers:
    """Read the names of image files, and the JSON beside those whose names do not end in a modality."""
    folder = listed.folder
    roles = named_after(folder, cohort)
    ended = {path: role for path, role in roles.items() if role in GLIOMA} if has_known_sequences(cohort) else {}
    unfit = not_what_they_end_with(ended)
    roles |= dict.fromkeys(unfit)
    unnamed = [path for path, role in roles.items() if role is None]
    named = {role for role in roles.values()} - {None, "label"}
    files = recognise_files(unnamed, folder, site) if "channels" not in named else []
    try:
        cases = find_cases(folder, cohort, unnamed if named else [*unfit]) if named or not files else []
    except ValueError as error:
        public = "The study: its image files cannot be assigned to sequences; name them x_t1.nii.gz, and so on."
        raise StudyError(str(error), public, code="not_recognised") from None
    if len(cases) > 1:
        names = shortened(case["case"] for case in cases)
        public = f"The study: {len(cases)} subjects; give the folder of one."
        said = f"{folder}: {len(cases)} subjects, {names}; give the folder of one."
        raise StudyError(said, public, code="several_subjects", command=EACH)
    case = cases[0] if cases else {"image": [], "modalities": []}
    channels = case.get("channels", [None] * len(case["image"]))
    by_name = {
        name: _named_file(str(Path(path).relative_to(folder)), path, name, "named by its file", channel)
        for name, path, channel in zip(case["modalities"], case["image"], channels, strict=True)
    }
    moved = {*given.values()}  # which may be of a file that is named after a modality that is not wanted
    unwanted = {name: by_name.pop(name) for name in [*by_name] if name not in wanted and by_name[name].key not in moved}
    left_out = [unused(file.name, file.source, "by its name", name, Use.UNWANTED) for name, file in unwanted.items()]
    if not by_name and not files:
        what = f"none of the requested modalities ({subset_name(wanted)}); it has {subset_name(case['modalities'])}."
        raise StudyError.of(folder, what, code="option")
    shown = {file.path for file in (*files, *by_name.values())}
    no_image = {"label": "a label, by its name", None: "its name is none of a sequence"}
    left_out += [
        unused(str(path.relative_to(folder)), ImageFile.source, unfit.get(path, no_image[role]))
        for path, role in roles.items()
        if path not in shown and role in no_image
    ]
    remarks = []
    for name, file in by_name.items() if "channels" not in case else ():
        if text := contradiction(file.path, name):
            said = f"{display_name(name)} ({file.source}): {text}"
            remarks.append(Remark("json_contradicts", Gravity.WARNING, said, (name,)))
    chosen = set_by_hand([*files, *by_name.values()], given)
    return FolderHeaders(chosen, cohort, wanted, remarks, unused=left_out)


def _of_series(
    listed: StudyFiles, cohort: Cohort, wanted: Sequence[str], given: Mapping[str, Any], site: SiteTable | None
) -> SeriesHeaders:
    """Read the headers of DICOM series."""
    with required("clinic", "The study is DICOM"):  # else it would be missed after minutes, when a SEG is written
        import highdicom  # noqa: F401
    series, others = read_all(listed.folder, listed.files)
    candidates = series_candidates(series, given, site)
    joined = [
        f"{each.name}: its images differ in {', '.join(each.differ)}, but make up one volume."
        for each in series
        if each.differ and each.problem is None
    ]
    studies = {str(each.header.get("StudyInstanceUID", "")) for each in series}
    several = (
        f"The series have {len(studies)} different StudyInstanceUIDs; they count as one study, since they are of "
        "one patient and date and share their frame of reference."
    )
    remarks = [Remark("several_study_uids", Gravity.NOTE, several)] if len(studies) > 1 else []
    return SeriesHeaders(candidates, cohort, wanted, remarks, joined, other_series(others))


def series_candidates(
    series: Sequence[Series], by_hand: Mapping[str, Any] | None = None, site: SiteTable | None = None
) -> list[SeriesCandidate]:
    """Return a study's series as candidates.

    ``by_hand`` (see `set_by_hand`) overrides the recognition and ``site``, the site's table.
    """
    candidates, taken = [], {*map(str, (by_hand or {}).values())}
    for volume, says in zip(series, recognise_study([volume.header for volume in series]), strict=True):
        if says.modality is None:  # of a mixture of echoes, the larger part may be that of proton density
            says = next((other for other in map(recognise, volume.parts) if other.modality), says)
        extent = min(size * step for size, step in zip(volume.shape, volume.spacing, strict=True))
        if site and not {volume.key, str(volume.number)} & taken:
            says = site.says(text(volume.header, "SeriesDescription"), says, volume.name, volume.name)
        if says.modality and volume.problem is None and extent < MIN_EXTENT_MM:
            slab = f"a slab of {extent:.0f} mm, not a whole brain ({says.reason})"
            says = HeaderEvidence(None, Grade.NONE, slab)
        frame, shown = volume.frame_of_reference or volume.name, traits(volume.header)
        shown |= {"problem": volume.problem, "series": volume, "doubt": volume.doubt, "files": len(volume.files)}
        shown |= {"told": told_by_dates(volume.header, volume.name)}
        candidates.append(SeriesCandidate(volume.name, volume.name, frame, says, **shown))
    return set_by_hand(candidates, by_hand or {})


def set_by_hand(candidates: Sequence[C], by_hand: Mapping[str, Any]) -> list[C]:
    """Return candidates of which some are set by hand, whatever their headers and names say.

    ``by_hand`` maps a modality to a `Candidate.key`: the SeriesNumber, text such as ``3-1`` if several volumes have
    this number, or a file's name; None sets none. A file that is named after a modality that is set otherwise is not
    used. Raises StudyError if there is no such candidate, or it cannot be used.
    """
    wrong = partial(StudyError.of, "--series", public="series", code="option")
    fixed: dict[C, str] = {}
    for modality, key in by_hand.items():
        if key is None:
            continue
        found = [each for each in candidates if str(key) in each.keys]
        if len(found) != 1:
            keys = ", ".join(each.key for each in found or candidates)
            kind = "series" if isinstance(next(iter(candidates), None), SeriesCandidate) else "file"
            what = "several volumes have this number" if found else f"there is no such {kind}"
            raise wrong(f"{modality}: {key}: {what}; expected one of {keys}.")
        (each,) = found
        if each.problem:
            raise wrong(f"{modality}: {each.name} cannot be used: {each.problem}.")
        if each in fixed:
            raise wrong(f"{each.name} is set for two modalities.")
        fixed[each] = modality
    kept = [each for each in candidates if each in fixed or not (each.fixed and each.says.modality in by_hand)]
    said = {each: HeaderEvidence(name, Grade.SURE, "set by hand") for each, name in fixed.items()}
    return [replace(each, says=said[each], fixed=True) if each in said else each for each in kept]


def other_series(others: Others) -> list[Record]:
    """Return why series are left out that are not of a class of MR images, and what their descriptions name."""
    left_out = []
    for (series, kind), files in others.items():
        described = ["SeriesDescription", "ProtocolName", "Rows"]
        header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=described)
        modality = recognise(header).modality if number(header, "Rows") else None  # reports have no rows
        named = f"{display_name(modality)} by its description, but " if modality else ""
        count = f"{len(files)} {'file' if len(files) == 1 else 'files'}"
        todo = "; export the scanner's own images" if modality else ""
        reason = f"{named}{kind} ({count}), not MR Image{todo}"
        left_out.append(unused(f"series {series}", f"series {series}", reason, modality, files=len(files)))
    return left_out
