"""A server of the bundles: a page for a dropped study, and MONAI Label's interface, without its code, for viewers."""
