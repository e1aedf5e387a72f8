import sys


def phantom(folder: str, subjects: int = 3, dicom: bool = False, seed: int = 2023) -> None:
    """Write synthetic patients, to try the other verbs on: NIfTI files, or studies as a scanner sends them.

    No patient was scanned: numbers computed from these images mean nothing. `predict` with `--recipe phantom` segments
    them with weights that were trained on such images.

    Args:
        folder: where to write; it must not exist yet, or be empty.
        subjects: number of patients; to train on them, at least 3.
        dicom: write each as a DICOM study, with a folder for each series; by default NIfTI with BraTS names, their
            labels and, of 3 or more, a datalist.
        seed: of the random numbers from which anatomy and tumours are drawn.
    """
    print("Synthetic images: no patient was scanned. A real patient is written by: mmb example FOLDER", file=sys.stderr)
    if dicom:
        from mmb.clinic.examples.phantom import write_studies

        print(write_studies(folder, subjects, seed))
    else:
        from common.cohorts import generate_phantom

        print(generate_phantom(folder, subjects, seed, with_split=subjects >= 3))
