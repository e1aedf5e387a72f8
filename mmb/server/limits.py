"""Limits of the server: requests that exceed them are refused while they arrive, before memory or disk is full."""

REQUEST_BYTES = 1 << 20  # maximum size of a request without a file
FILE_BYTES = 256 << 20
"""Maximum size of a request with a label map."""
LABEL_VOXELS = 512**3  # maximum number of voxels of a label map
LABEL_BYTES = 8 * LABEL_VOXELS + (1 << 20)
"""Maximum size of a label map's file after decompression. The ratio is not limited: gzip shrinks an empty label map to
a thousandth."""
REQUESTS = 32  # maximum number of requests with the token at a time; further ones get status 503
KEPT_REQUESTS = REQUESTS // 2  # of these, number that are kept for the page
SILENT_SECONDS = 30  # time in seconds after which a request ends whose body does not arrive
CONNECTIONS = 512  # maximum number of connections, idle ones included; with more, requests get status 503
UPLOAD_BYTES = 2 << 30  # maximum size of an uploaded study, as it arrives
UNPACKED_BYTES = 4 << 30  # maximum size of an uploaded study's files after a zip was unpacked
UPLOAD_FILES = 20_000  # maximum number of an uploaded study's files
FORM_FILES = 64  # maximum number of files in one form; more are sent as one zip
DIRECTORY_BYTES = 256 * UPLOAD_FILES
"""Maximum number of bytes of a zip that are read at once. Its list of files is, and fills the memory if it is long."""
HELD_BYTES = 16 << 30  # maximum size of all uploaded studies, with what was unpacked of them
SPARE_BYTES = 1 << 30  # what has to stay free on the disk with temporary files
STUDIES = 32  # maximum number of uploaded studies at a time, of which the half are kept for the page
FILES_AT_ONCE = 4  # maximum number of files of one study that arrive at once
READ_AT_ONCE = 2  # number of uploaded studies that are read at once
READ_SECONDS, READ_BYTES = 120, 3 << 30  # maximum time, and memory of the process, for reading an uploaded study
KEPT_SECONDS = 3600  # time in seconds after which an uploaded study and its results are removed
