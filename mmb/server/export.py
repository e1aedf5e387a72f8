"""The studies whose label a person has approved, as cases for a training."""

from pathlib import Path

import nibabel as nib
import numpy as np

from common.cohorts import get_cohort
from common.io.atomic import written_whole
from mmb.clinic.head.alignment import align
from mmb.clinic.head.grid import resample_label_to
from mmb.server.datastore import Datastore


def export_labelled_studies(studies: str, output_dir: str | Path, cohort: str) -> tuple[list[str], list[str]]:
    """Write the studies that have a final label as NIfTI files, each study on one grid of 1 mm.

    A case is named by a number, since a study's name may identify the patient: ``case_000_t1.nii.gz``, ...,
    ``case_000_seg.nii.gz``, without the modalities that are absent. Those of an earlier export are replaced; nothing is
    written if no study can be used.

    ``studies`` is the server's folder, and ``cohort`` the name of the cohort in whose label values the label maps are.
    Returns the names of the cases, and the reasons why other studies cannot be used. Raises ValueError if none can be.
    """
    store = Datastore(studies, get_cohort(cohort))
    cases, refused = [], []
    with written_whole(output_dir, earlier=[*Path(output_dir).glob("case_*.nii.gz")]) as folder:
        for number, image in enumerate(sorted(store.labelled_images("final"))):
            try:
                study = store.read_study(image)
                reference, label = store.read_label(image, "final", study)
                aligned = align(study.images, study.frames, reference).images
            except (FileNotFoundError, ValueError) as error:
                refused.append(str(error))
                continue
            grid, voxels = aligned[reference], np.asarray(label.dataobj).astype(np.uint8)
            classes = store.cohort.labels.values.values()
            moved = resample_label_to(voxels, label.affine, grid.affine, grid.shape, classes)
            cases.append(f"case_{number:03d}")
            for name, volume in {**aligned, "seg": nib.Nifti1Image(moved, grid.affine)}.items():
                nib.save(volume, folder / f"{cases[-1]}_{name}.nii.gz")
        if not cases:
            reason = f"the first one: {refused[0]}" if refused else "submit some in the viewer first."
            raise ValueError(f"None of {len(refused)} studies with a final label can be used; {reason}")
    return cases, refused
