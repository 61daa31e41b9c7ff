"""ViViT, the Video Vision Transformer, in JAX: `load` or `init` a model, `forward` a video, `save`.

Names are loaded when they are first used, so that `import vivit.reference.models` loads NumPy and nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivit.checkpoints.image import from_image_model
    from vivit.checkpoints.load import load
    from vivit.checkpoints.save import save
    from vivit.data.opening import Limits
    from vivit.inference.export import export
    from vivit.initialise import init
    from vivit.model import Model
    from vivit.models import forward
    from vivit.preprocessing import Preprocessing
    from vivit.reference.config import Config, named
    from vivit.tubelet import cut
    from vivit.video import read_clip

    __version__: str

__all__ = [
    "Config",
    "Limits",
    "Model",
    "Preprocessing",
    "cut",
    "export",
    "forward",
    "from_image_model",
    "init",
    "load",
    "named",
    "read_clip",
    "save",
]

_HOMES = {
    "Config": "vivit.reference.config",
    "Limits": "vivit.data.opening",
    "Model": "vivit.model",
    "Preprocessing": "vivit.preprocessing",
    "cut": "vivit.tubelet",
    "export": "vivit.inference.export",
    "forward": "vivit.models",
    "from_image_model": "vivit.checkpoints.image",
    "init": "vivit.initialise",
    "load": "vivit.checkpoints.load",
    "named": "vivit.reference.config",
    "read_clip": "vivit.video",
    "save": "vivit.checkpoints.save",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("vivit.versions").version("vivit")
    if name not in _HOMES:
        raise AttributeError(f"module 'vivit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
