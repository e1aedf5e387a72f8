"""Segmentation of a patient's study: reading, alignment, quality checks, and inference with a bundle."""
