"""The MONAI Label server of the collection; it needs a virtual environment of its own, see requirements.txt."""
