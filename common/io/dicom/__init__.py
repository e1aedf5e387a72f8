"""DICOM in and out: the series of a study, which sequence each of them is, segmentations of them."""

try:
    from common.io.dicom.segmentation import CLASSES, read_seg, require_referable, write_seg
    from common.io.dicom.selection import Selection, choose
    from common.io.dicom.sequences import Verdict, recognise
    from common.io.dicom.series import Series, load, read_study
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("highdicom", "pydicom"):
        raise
    raise ImportError(f'{error}; for DICOM: pip install "missing-modality-bundles[dicom]".') from error

__all__ = [
    "CLASSES",
    "Selection",
    "Series",
    "Verdict",
    "choose",
    "load",
    "read_seg",
    "read_study",
    "recognise",
    "require_referable",
    "write_seg",
]
