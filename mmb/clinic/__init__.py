"""From a patient's study to a segmentation: reading, alignment, inference, DICOM, and a server for viewers."""
