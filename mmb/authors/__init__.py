"""Checkpoints by the authors of published methods, for our networks."""
