"""What there is to try things with: the model that ships with the package."""

from importlib import resources
from pathlib import Path


def demo_checkpoint() -> Path:
    """The folder of the model that ships with the package, for `vivit.load`; its README.md says what it knows."""
    return Path(str(resources.files("vivit").joinpath("demo", "carousel")))
