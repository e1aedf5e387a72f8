"""The methods that the papers are compared to, one file a baseline, each with its training step and losses."""
