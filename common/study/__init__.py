"""A patient's study in, a segmentation out."""
