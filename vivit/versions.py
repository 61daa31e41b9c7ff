"""Which software ran, and on what: for files that are read long afterwards."""

import importlib.metadata
import platform

PACKAGES = ("vivit", "jax", "jaxlib", "numpy")


def versions() -> dict[str, str]:
    """The version of every package in PACKAGES, of Python and of the system. What is not installed says so."""
    return {
        **{name: _version(name) for name in PACKAGES},
        "python": platform.python_version(),
        "system": platform.platform(),
    }


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # run from a checkout that was not installed
        return "not installed"
