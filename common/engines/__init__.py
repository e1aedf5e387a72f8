"""Additions to MONAI's Ignite engines: inferers for any subset, and handlers."""
