"""Code that all bundles share. A process loads one version of it; a packaged bundle contains its own copy."""

__version__ = "0.5.0"


def __getattr__(name: str) -> object:
    from common.names import OldPackage, find

    return OldPackage("common.methods") if name == "methods" else find(__name__, name, {})
