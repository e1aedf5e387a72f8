"""Code that all bundles share. A process loads one version of it; a packaged bundle contains its own copy."""

__version__ = "0.6.0"
