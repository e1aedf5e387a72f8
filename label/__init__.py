"""The server of the bundles for 3D Slicer and OHIF, by MONAI Label's interface but without its code."""
