"""Command lines: ``python -m tools VERB``."""
