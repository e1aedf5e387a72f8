"""DICOM input and output: the series of a study, recognition of their sequences, segmentations."""

try:
    from common.study.dicom.segmentation import CLASSES, read_seg, require_referable, write_seg
    from common.study.dicom.selection import Selection, choose
    from common.study.dicom.sequences import Undecided, Verdict, recognise
    from common.study.dicom.series import Series, load, read_study
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("highdicom", "pydicom"):
        raise
    raise ImportError(f'{error}; DICOM requires: pip install "missing-modality-bundles[dicom]".') from error

__all__ = [
    "CLASSES",
    "Selection",
    "Series",
    "Undecided",
    "Verdict",
    "choose",
    "load",
    "read_seg",
    "read_study",
    "recognise",
    "require_referable",
    "write_seg",
]
