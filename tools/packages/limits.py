"""Limits on the size and time of downloads; whatever exceeds them is refused, whoever offers it."""

LISTING_SIZE = 4 << 20  # maximum size in bytes of an index or of a package's manifest: about 20,000 entries
PACKAGE_SIZE = 256 << 20
"""Maximum size of a package in bytes. Since nothing in it is compressed, it is not larger when unpacked."""
MEMBERS = 10_000  # maximum number of files in a package
DEPTH = 20  # maximum depth of folders in a package
PATIENCE = 60  # seconds after which a download fails if nothing, or less than `SLOWEST` requires, was received in them
SLOWEST = 10_000
"""Minimum rate in bytes per second, averaged over `PATIENCE`: 15 MB take at most half an hour, the largest package
eight hours."""
