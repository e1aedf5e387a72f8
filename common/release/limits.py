"""What a download may cost at most; what is more is refused, whoever offers it."""

LISTING_SIZE = 4 << 20
"""Bytes of an index, or of a package's manifest: some 20,000 entries."""
PACKAGE_SIZE = 256 << 20
"""Bytes of a package. Nothing in it is compressed, so unpacked it is no larger."""
MEMBERS = 10_000
"""Files in a package."""
DEPTH = 20
"""Folders that a file in a package lies in."""
PATIENCE = 60
"""Seconds in which nothing, or less than `SLOWEST` wants, may come before a download fails."""
SLOWEST = 10_000
"""Bytes a second, as a mean over each `PATIENCE`: so 15 MB take half an hour at most, the largest package eight."""
