"""What the bundles share. A process loads one version of it; a packaged bundle carries its own."""

__version__ = "0.2.0"
