"""The store of studies: a folder with a subfolder for each study.

An image in MONAI Label's terms is a whole study here: one case, whatever series it has. Nothing is cached between
requests.
"""

import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nibabel as nib
import torch

from common.cohorts.cohort import Cohort
from common.io.files import replacing
from common.io.geometry import grid_difference
from mmb.clinic.recognise.reading import Study, read_folder
from mmb.clinic.recognise.site import SiteTable
from mmb.clinic.report.segmentation import CLASSES
from mmb.server.errors import private

TAGS = ("final", "original")
"""Tags of labels in MONAI Label: approved by a person, and made by a model."""
LABEL_OFFSET = 0.1
"""Maximum distance in mm between corresponding corners of a label map and the image that it was drawn on."""


def class_label(name: str) -> str:
    """Return the name of a class for clients, as in our DICOM SEG, e.g. ``Oedema`` for ``ED``."""
    return CLASSES.get(name, (name,))[0]


class Datastore:
    """A folder with a subfolder for each study: DICOM files at any depth, or NIfTI files named after the modalities.

    In MONAI Label's terms studies are images with identifiers, and labels have tags. Labels are in
    ``labels/<tag>/<study>/<time>.nii.gz`` (UTC), and none is ever overwritten; the newest counts. A
    ``labels/<tag>/<study>.nii.gz``, as in MONAI Label, counts as the first. Raises FileNotFoundError if there is no
    such folder.
    """

    def __init__(self, location: str | Path, cohort: Cohort, site: SiteTable | None = None) -> None:
        self.root, self.cohort, self.site = Path(location), cohort, site
        if not self.root.is_dir():
            raise FileNotFoundError(f"{location}: no such folder; expected one with a subfolder for each study.")

    def list_images(self) -> list[str]:
        """Return the names of the subfolders."""
        return sorted(p.name for p in self.root.iterdir() if p.is_dir() and p.name != "labels" and p.name[0] != ".")

    def labelled_images(self, tag: str) -> set[str]:
        """Return the studies that have a label map."""
        return {image for image in self.list_images() if self._labels(image, tag)}

    def folder(self, image: str) -> Path:
        """Return a study's folder.

        Raises FileNotFoundError if there is no such study; PermissionError if the identifier leads outside the store.
        """
        if image in self.list_images():
            return self.root / image
        if Path(image).name != image or image == "..":
            raise PermissionError("This image is not in the study store; give the name of one of its studies.")
        raise FileNotFoundError("The study store has no study of this name.")

    def read_label(self, image: str, tag: str, study: Study) -> tuple[str, nib.Nifti1Image]:
        """Return the newest label map with a tag: the modality of its grid, and the map in the cohort's values."""
        labels = self._labels(image, tag)
        if not labels:
            raise FileNotFoundError(f"The study has no label {tag!r}.")
        written: Any = nib.load(labels[-1])
        voxels = self.cohort.labels.read(torch.as_tensor(written.get_fdata()), "The label map")
        label = nib.Nifti1Image(voxels.numpy(), written.affine)
        return labelled_modality(study, label), label

    def save_label(self, image: str, tag: str, file: Path) -> str:
        """Copy a label map, beside those of earlier times; return its name in the store."""
        now = datetime.now(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        with replacing(self._tagged(tag) / image / f"{now}.nii.gz") as temporary:
            shutil.copyfile(file, temporary)
        return image

    def _labels(self, image: str, tag: str) -> list[Path]:
        """Return the label maps of a study, the newest last."""
        folder = self._tagged(tag)
        first = folder / f"{image}.nii.gz"
        return [*([first] if first.is_file() else []), *sorted((folder / image).glob("[0-9]*.nii.gz"))]

    def _tagged(self, tag: str) -> Path:
        if tag not in TAGS:
            raise FileNotFoundError(f"Unknown tag {tag!r}; expected one of {', '.join(TAGS)}.")
        return self.root / "labels" / tag

    def read_study(self, image: str) -> Study:
        """Read a study's volumes; the errors are those of `folder` and `read_folder`."""
        folder = self.folder(image)
        with private():
            return read_folder(folder, self.cohort, site=self.site)

    def status(self) -> dict[str, Any]:
        """Return the numbers of studies and labels, for GET /info."""
        counts = {tag: len(self.labelled_images(tag)) for tag in TAGS}
        return {"total": len(self.list_images()), "completed": counts["final"], "label_tags": counts}

    def json(self) -> dict[str, Any]:
        """Return the studies and the tags of their labels."""
        labelled = {tag: self.labelled_images(tag) for tag in TAGS}
        tags = {image: [tag for tag in TAGS if image in labelled[tag]] for image in self.list_images()}
        return {"objects": {image: {"labels": {tag: {} for tag in own}} for image, own in tags.items()}}


def labelled_modality(study: Study, label: nib.Nifti1Image) -> str:
    """Return the modality on whose grid a label map lies.

    If several have this grid, it is that of the reference, which `App.image` shows. Raises ValueError if the reference
    has another grid, and those that fit differ in their frames of reference; or if no modality has this grid.
    """
    fitting = [name for name, image in study.images.items() if grid_difference(label, image, LABEL_OFFSET) is None]
    if study.reference in fitting:
        return study.reference
    if len({study.frames[name] for name in fitting}) > 1:
        raise ValueError(f"The label map lies on the grids of {', '.join(fitting)}, of different frames of reference.")
    if fitting:
        return fitting[0]
    grids = ", ".join(f"{study.sources[name]} {image.shape}" for name, image in study.images.items())
    raise ValueError(
        f"A label map of shape {label.shape} does not lie on the grid of any image of the study, {grids}; draw it on "
        "one of them."
    )
