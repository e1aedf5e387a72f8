"""A server of the bundles for 3D Slicer and OHIF, with MONAI Label's interface but without its code."""
