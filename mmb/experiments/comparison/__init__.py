"""Comparison of evaluations: side by side, pooled, and with label maps of other programs."""
