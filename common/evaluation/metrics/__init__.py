"""What is measured of a case, by which conventions, and how results are kept."""
