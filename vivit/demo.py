"""The demo model, which ships with the package."""

from importlib import resources
from pathlib import Path


def demo_checkpoint() -> Path:
    """Returns the folder of the demo model, for `vivit.load`. Its README.md describes the model."""
    return Path(str(resources.files("vivit").joinpath("demo", "camera")))
