"""Scripts for maintainers, in a clone only."""
