"""Stores of studies: a folder with a subfolder for each study, or a DICOMweb archive.

An image in MONAI Label's terms is a whole study here: one case, whatever series it has. Nothing is cached between
requests; fetched files go into a folder of the caller.
"""

import logging
import re
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import pydicom
import torch
from dicomweb_client import DICOMwebClient
from pydicom.datadict import tag_for_keyword

from common.cohorts.cohort import Cohort
from common.io.files import replacing
from common.io.geometry import grid_difference
from mmb.clinic.recognise.reading import Study, choose_reference, read_folder
from mmb.clinic.recognise.site import SiteTable
from mmb.clinic.report.segmentation import CLASSES, DOUBT, read_seg
from mmb.server.archive import archive_session, store
from mmb.server.errors import private
from mmb.server.limits import RESULTS, STUDY_BYTES

TAGS = ("final", "original")
"""Tags of labels in MONAI Label: approved by a person, and made by a model."""
PAGE = 200  # number of results requested at a time
LABEL_OFFSET = 0.1
"""Maximum distance in mm between corresponding corners of a label map and the image that it was drawn on."""
UID = re.compile(r"[0-9][0-9.]{0,63}")
STORED = (("application/dicom", "*"),)
"""Media type of images in the transfer syntax in which an archive stores them; not all archives can convert them."""


def class_label(name: str) -> str:
    """Return the name of a class for clients, as in our DICOM SEG, e.g. ``Oedema`` for ``ED``."""
    return CLASSES.get(name, (name,))[0]


def is_url(location: str) -> bool:
    """Return whether a location is the URL of an archive."""
    return location.startswith(("http://", "https://"))


class Datastore(ABC):
    """A store of studies and labels, in MONAI Label's terms: images with identifiers, labels with tags.

    Another process gets its own copy, made from the same arguments. ``location`` is a folder, or the URL of a DICOMweb
    service.

    Attributes:
        label_file: kind of file, among those that `predict` writes, that is stored as a label.
    """

    label_file: str

    def __init__(self, location: str, cohort: Cohort, site: SiteTable | None = None) -> None:
        self.location, self.cohort, self.site = location, cohort, site

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.location, self.cohort, self.site)

    @abstractmethod
    def list_images(self) -> list[str]:
        """Return the studies' identifiers."""

    @abstractmethod
    def labelled_images(self, tag: str) -> set[str]:
        """Return the studies that have a label with this tag."""

    @abstractmethod
    def fetch(self, image: str, folder: str | Path) -> tuple[Path, str | None]:
        """Fetch a study's files, the first step of all work on it; return their folder, and the series, if given.

        Raises FileNotFoundError if there is no such study; PermissionError if the identifier leads outside the store.
        In an archive ``image`` may also be the SeriesInstanceUID of one of its series.
        """

    @abstractmethod
    def read_label(self, image: str, tag: str, study: Study, folder: str | Path) -> tuple[str, nib.Nifti1Image]:
        """Return the newest label map with a tag: the modality of its grid, and the map in the cohort's values."""

    @abstractmethod
    def save_label(self, image: str, tag: str, file: Path) -> str:
        """Store a label, a file of the kind `label_file`; return its name in the store."""

    def read_study(self, image: str, folder: str | Path) -> tuple[Study, str | None]:
        """Fetch a study and read its volumes; the errors are those of `fetch` and `read_folder`."""
        files, series = self.fetch(image, folder)
        with private():
            return read_folder(files, self.cohort, site=self.site), series

    def status(self) -> dict[str, Any]:
        """Return the numbers of studies and labels, for GET /info."""
        counts = {tag: len(self.labelled_images(tag)) for tag in TAGS}
        return {"total": len(self.list_images()), "completed": counts["final"], "label_tags": counts}

    def json(self) -> dict[str, Any]:
        """Return the studies and the tags of their labels."""
        labelled = {tag: self.labelled_images(tag) for tag in TAGS}
        tags = {image: [tag for tag in TAGS if image in labelled[tag]] for image in self.list_images()}
        return {"objects": {image: {"labels": {tag: {} for tag in own}} for image, own in tags.items()}}


def open_datastore(location: str, cohort: Cohort, site: SiteTable | None = None) -> Datastore:
    """Return the store at a URL (DICOMweb) or in a folder."""
    return (DICOMWebDatastore if is_url(location) else FolderDatastore)(location, cohort, site)


def labelled_modality(study: Study, label: nib.Nifti1Image, shown: str | None = None) -> str:
    """Return the modality on whose grid a label map lies.

    If several have this grid, it is that of the series ``shown`` (a SeriesInstanceUID; None: the one that `App.image`
    shows). Raises ValueError if ``shown`` has another grid, and those that fit differ in their frames of reference; or
    if no modality has this grid.
    """
    first, _ = choose_reference(study, shown)
    fitting = [name for name, image in study.images.items() if grid_difference(label, image, LABEL_OFFSET) is None]
    if first in fitting:
        return first
    if len({study.frames[name] for name in fitting}) > 1:
        raise ValueError(f"The label map lies on the grids of {', '.join(fitting)}, of different frames of reference.")
    if fitting:
        return fitting[0]
    grids = ", ".join(f"{study.sources[name]} {image.shape}" for name, image in study.images.items())
    raise ValueError(
        f"A label map of shape {label.shape} does not lie on the grid of any image of the study, {grids}; draw it on "
        "one of them."
    )


class FolderDatastore(Datastore):
    """A folder with a subfolder for each study: DICOM files at any depth, or NIfTI files named after the modalities.

    Labels are in ``labels/<tag>/<study>/<time>.nii.gz`` (UTC), and none is ever overwritten; the newest counts. A
    ``labels/<tag>/<study>.nii.gz``, as in MONAI Label, counts as the first.
    """

    label_file = "label map"

    def __init__(self, location: str, cohort: Cohort, site: SiteTable | None = None) -> None:
        super().__init__(location, cohort, site)
        self.root = Path(location)
        if not self.root.is_dir():
            raise FileNotFoundError(f"{location}: no such folder; expected one with a subfolder for each study.")

    def list_images(self) -> list[str]:
        """Return the names of the subfolders."""
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and p.name != "labels" and p.name[0] != ".")

    def labelled_images(self, tag: str) -> set[str]:
        """Return the studies that have a label map."""
        return {image for image in self.list_images() if self._labels(image, tag)}

    def fetch(self, image: str, folder: str | Path) -> tuple[Path, None]:
        """Return the study's own folder."""
        if image in self.list_images():
            return self.root / image, None
        if Path(image).name != image or image == "..":
            raise PermissionError("This image is not in the study store; give the name of one of its studies.")
        raise FileNotFoundError("The study store has no study of this name.")

    def read_label(self, image: str, tag: str, study: Study, folder: str | Path) -> tuple[str, nib.Nifti1Image]:
        """Read the label map."""
        labels = self._labels(image, tag)
        if not labels:
            raise FileNotFoundError(f"The study has no label {tag!r}.")
        written: Any = nib.load(labels[-1])
        voxels = self.cohort.labels.read(torch.as_tensor(written.get_fdata()), "The label map")
        label = nib.Nifti1Image(voxels.numpy(), written.affine)
        return labelled_modality(study, label), label

    def save_label(self, image: str, tag: str, file: Path) -> str:
        """Copy the label map, beside those of earlier times."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        with replacing(self._folder(tag) / image / f"{now}.nii.gz") as temporary:
            shutil.copyfile(file, temporary)
        return image

    def _labels(self, image: str, tag: str) -> list[Path]:
        """Return the label maps of a study, the newest last."""
        folder = self._folder(tag)
        first = folder / f"{image}.nii.gz"
        return [*([first] if first.is_file() else []), *sorted((folder / image).glob("[0-9]*.nii.gz"))]

    def _folder(self, tag: str) -> Path:
        if tag not in TAGS:
            raise FileNotFoundError(f"Unknown tag {tag!r}; expected one of {', '.join(TAGS)}.")
        return self.root / "labels" / tag


class DICOMWebDatastore(Datastore):
    """A DICOMweb archive: studies by their StudyInstanceUID; labels are DICOM SEG of their series.

    The segments' SegmentAlgorithmType distinguishes labels approved by a person from those made by a model.
    """

    label_file = "DICOM SEG"

    def __init__(self, location: str, cohort: Cohort, site: SiteTable | None = None) -> None:
        super().__init__(location, cohort, site)
        logging.getLogger("dicomweb_client").setLevel(logging.ERROR)  # it logs UIDs
        self.client = DICOMwebClient(location, session=archive_session())
        self._names = {label.casefold() for name in cohort.labels.values for label in (name, class_label(name))}

    def list_images(self) -> list[str]:
        """Return the StudyInstanceUIDs of the MR studies."""
        studies = _search_all(self.client.search_for_studies, search_filters={"ModalitiesInStudy": "MR"})
        return sorted({_value(study, "StudyInstanceUID") for study in studies})

    def status(self) -> dict[str, Any]:
        """Return nothing, since an archive may have too many studies to count them for each GET /info."""
        return {}

    def labelled_images(self, tag: str) -> set[str]:
        """Return the studies that have a segmentation with this tag."""
        segmentations = [
            (_value(series, "StudyInstanceUID"), _value(series, "SeriesInstanceUID"))
            for series in _search_all(self.client.search_for_series, search_filters={"Modality": "SEG"})
            if _value(series, "Modality") == "SEG"
        ]
        return {study for study, series in segmentations if self._tag(study, series) == tag}

    def fetch(self, image: str, folder: str | Path) -> tuple[Path, str | None]:
        """Retrieve the MR series of a study."""
        study, series = self._find(image)
        files, size = Path(folder, "study"), 0
        for number, uid in enumerate(self._series(study, "MR")):
            size += sum(path.stat().st_size for path in self._retrieve(study, uid, files / f"{number:03d}"))
            if size > STUDY_BYTES:
                raise ValueError(f"The MR series of this study exceed {STUDY_BYTES >> 30} GiB, the limit for a study.")
        return files, series

    def read_label(self, image: str, tag: str, study: Study, folder: str | Path) -> tuple[str, nib.Nifti1Image]:
        """Retrieve the newest segmentation with this tag that references one of the series in use."""
        uid, _ = self._find(image)
        used = {series.uid: name for name, series in study.series.items()}
        candidates = []
        for number, seg in enumerate(self._series(uid, "SEG")):
            if self._tag(uid, seg) != tag:
                continue
            for path in self._retrieve(uid, seg, Path(folder, f"seg{number:03d}")):
                header = pydicom.dcmread(path, stop_before_pixels=True)
                referred = [item.SeriesInstanceUID for item in header.get("ReferencedSeriesSequence") or []]
                made = str(header.get("ContentDate", "")), str(header.get("ContentTime", ""))
                candidates += [(made, path, used[source]) for source in referred if source in used]
        if not candidates:
            raise FileNotFoundError(f"The study has no label {tag!r} for one of the series in use.")
        _, path, name = max(candidates, key=lambda candidate: candidate[0])
        series = study.series[name]
        return name, nib.Nifti1Image(read_seg(path, series, self.cohort.labels.values), series.affine)

    def save_label(self, image: str, tag: str, file: Path) -> str:
        """Send the DICOM SEG, which states whether a person approved it; return its SeriesInstanceUID."""
        return str(store(self.client, [file]))

    def _find(self, image: str) -> tuple[str, str | None]:
        """Return the StudyInstanceUID, and the SeriesInstanceUID if that is what was given."""
        if not UID.fullmatch(image):
            raise PermissionError("This image is not in the archive; give a StudyInstanceUID or SeriesInstanceUID.")
        # The results are compared, since some proxies and archives ignore the filter.
        for study in self.client.search_for_studies(search_filters={"StudyInstanceUID": image}):
            if _value(study, "StudyInstanceUID") == image:
                return image, None
        series = self.client.search_for_series(search_filters={"SeriesInstanceUID": image})
        studies = {_value(each, "StudyInstanceUID") for each in series if _value(each, "SeriesInstanceUID") == image}
        if not studies:
            raise FileNotFoundError("The archive has no study and no series of this UID.")
        if len(studies) > 1:
            raise ValueError(f"The archive has this series in {len(studies)} studies; give the StudyInstanceUID.")
        return studies.pop(), image

    def _series(self, study: str, modality: str) -> list[str]:
        series = _search_all(self.client.search_for_series, study, search_filters={"Modality": modality})
        return [_value(each, "SeriesInstanceUID") for each in series if _value(each, "Modality") == modality]

    def _retrieve(self, study: str, series: str, folder: Path) -> list[Path]:
        folder.mkdir(parents=True)
        paths = []
        for number, instance in enumerate(self.client.iter_series(study, series, media_types=STORED)):
            if (instance.StudyInstanceUID, instance.SeriesInstanceUID) != (study, series):
                raise ValueError("The archive answered with images of another study or series.")
            paths.append(folder / f"{number:06d}.dcm")
            instance.save_as(paths[-1])
        return paths

    def _tag(self, study: str, series: str) -> str | None:
        """Return the tag of a series' newest segmentation; None if it has other segments than the classes."""
        instances = self.client.retrieve_series_metadata(study, series)
        newest = max(instances or [{}], key=lambda each: (_value(each, "ContentDate"), _value(each, "ContentTime")))
        segments = _values(newest, "SegmentSequence")
        names = {_value(each, "SegmentLabel").strip().removesuffix(DOUBT).casefold() for each in segments}
        if not names or not names <= self._names:
            return None
        automatic = any(_value(segment, "SegmentAlgorithmType") == "AUTOMATIC" for segment in segments)
        return "original" if automatic else "final"


def _values(dataset: Mapping[str, Any], keyword: str) -> list[Any]:
    """Return the values of an attribute of DICOM JSON."""
    return dataset.get(f"{tag_for_keyword(keyword):08X}", {}).get("Value") or []


def _value(dataset: Mapping[str, Any], keyword: str) -> str:
    """Return the first value of an attribute of DICOM JSON as text; empty if there is none."""
    return str((_values(dataset, keyword) or [""])[0])


def _search_all(search: Callable[..., list[dict[str, Any]]], *of: str, **options: Any) -> list[dict[str, Any]]:
    """Return all search results of an archive, page by page; Orthanc respects an offset only with a limit."""
    results: list[dict[str, Any]] = []
    while page := search(*of, **options, limit=PAGE, offset=len(results)):
        if page[0] in results:
            raise ValueError("The archive returns the first page of a search again for each further page.")
        results += page
        if len(results) > RESULTS:
            raise ValueError(f"The search found more than {RESULTS} studies or series, the limit for a search.")
    return results
