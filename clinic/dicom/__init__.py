"""DICOM input and output: the series of a study, recognition of their sequences, segmentations."""

try:
    from clinic.dicom.candidates import left_out, mixed_series, option, series_candidates
    from clinic.dicom.pixels import load
    from clinic.dicom.segmentation import CLASSES, read_seg, require_referable, write_seg
    from clinic.dicom.sequences import recognise
    from clinic.dicom.series import Series, read_all, read_series
except ModuleNotFoundError as error:
    if str(error.name).partition(".")[0] not in ("highdicom", "pydicom"):
        raise
    raise ImportError(f'{error}; DICOM requires: pip install "missing-modality-bundles[dicom]".') from error
