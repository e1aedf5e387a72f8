"""How much the server takes: what exceeds a limit is refused while it comes in, before it fills memory or disk."""

REQUEST_BYTES = 1 << 20
"""Of a request that brings no file."""
FILE_BYTES = 256 << 20
"""Of a request that brings one: a label map, or what the viewer stores in the archive."""
LABEL_VOXELS = 512**3
"""Of a label map."""
LABEL_BYTES = 8 * LABEL_VOXELS + (1 << 20)
"""Of a label map's file when it is unpacked. No ratio is asked for: gzip packs an empty label map to a thousandth."""
ANSWER_BYTES, ANSWER_SECONDS = 4 << 30, 600
"""Of one answer of the DICOMweb archive, such as the images of a series."""
STUDY_BYTES = 16 << 30
"""Of the images of a study that are retrieved from it."""
RESULTS = 100_000
"""Of a search in it."""
