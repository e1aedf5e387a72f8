"""The phantom: a synthetic cohort, generated on first use."""
