"""The MONAI Label server of the collection; it needs a virtual environment of its own, see requirements.txt."""

from label import stock as stock  # before anything of MONAI Label is imported
