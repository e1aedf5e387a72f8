"""Work on a study's images other than segmentation; a `Worker` runs it, since images may be damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib

from clinic import dicom
from clinic.server.datastore import Datastore, labelled_modality
from clinic.server.received_labels import in_values_of, read_label_map
from clinic.study.reading import choose_reference
from common import __version__


def write_image(datastore: Datastore, image: str, folder: Path) -> Path:
    """Write a study's reference volume, which clients show and on whose grid results lie, as NIfTI."""
    study, series = datastore.read_study(image, folder)
    path = folder / "image.nii.gz"
    nib.save(study.images[choose_reference(study, series)[0]], path)
    return path


def write_label(datastore: Datastore, image: str, tag: str, folder: Path) -> Path:
    """Write a study's label map as NIfTI; raise FileNotFoundError if it has none of this tag."""
    study, _ = datastore.read_study(image, folder)
    path = folder / "label.nii.gz"
    nib.save(datastore.read_label(image, tag, study, folder)[1], path)
    return path


def write_final_label(datastore: Datastore, image: str, file: Path, info: Any, folder: Path) -> Path:
    """Write a label map that a person has approved into a folder, in the form in which the store keeps it.

    Args:
        datastore: store of the study.
        image: identifier of the study.
        file: label map as sent by a client (see `read_label_map`), on the grid of one of the study's images.
        info: meaning of its values; see `in_values_of`.
        folder: output folder.
    """
    drawn, values = read_label_map(file, folder), datastore.cohort.labels.values
    voxels = in_values_of(values, drawn.get_fdata(dtype="float32"), info)
    label = nib.Nifti1Image(voxels, drawn.affine)
    study, series = datastore.read_study(image, folder)
    modality = labelled_modality(study, label, series)
    if datastore.label_file == "DICOM SEG":
        path = folder / "final.dcm"
        software = f"missing-modality-bundles {__version__}"
        dicom.write_seg(path, voxels, study.series[modality], values, software, "SEMIAUTOMATIC")
    else:
        path = folder / "final.nii.gz"
        nib.save(label, path)
    return path
