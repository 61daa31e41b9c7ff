"""ViViT, the Video Vision Transformer, in JAX: `load` or `init` a model, `classify` or `explain` a video, `save`.

Names are loaded when they are first used, so that `import vivit.reference.models` loads NumPy and nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivit.checkpoints.save import save
    from vivit.explanation.compute import explain
    from vivit.inference.classification import classify
    from vivit.inference.export import export
    from vivit.inference.features import features
    from vivit.inference.probe import probe
    from vivit.inference.timeline import timeline
    from vivit.initialise import init
    from vivit.models import forward
    from vivit.pretrained import Model, from_image_model, load
    from vivit.reference.config import Config, named
    from vivit.tubelet import cut
    from vivit.video.clip import read_clip
    from vivit.video.container import Limits
    from vivit.video.preprocessing import Preprocessing

    __version__: str

__all__ = [
    "Config",
    "Limits",
    "Model",
    "Preprocessing",
    "classify",
    "cut",
    "explain",
    "export",
    "features",
    "forward",
    "from_image_model",
    "init",
    "load",
    "named",
    "probe",
    "read_clip",
    "save",
    "timeline",
]

_HOMES = {
    "Config": "vivit.reference.config",
    "Limits": "vivit.video.container",
    "Model": "vivit.pretrained",
    "Preprocessing": "vivit.video.preprocessing",
    "classify": "vivit.inference.classification",
    "cut": "vivit.tubelet",
    "explain": "vivit.explanation.compute",
    "export": "vivit.inference.export",
    "features": "vivit.inference.features",
    "forward": "vivit.models",
    "from_image_model": "vivit.pretrained",
    "init": "vivit.initialise",
    "load": "vivit.pretrained",
    "named": "vivit.reference.config",
    "probe": "vivit.inference.probe",
    "read_clip": "vivit.video.clip",
    "save": "vivit.checkpoints.save",
    "timeline": "vivit.inference.timeline",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("vivit.versions").version("vivit")
    if name not in _HOMES:
        raise AttributeError(f"module 'vivit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
