"""ViViT, the Video Vision Transformer, in JAX: `init` a model, `forward` a video.

Names are loaded when they are first used, so that `import vivit.reference.models` loads NumPy and nothing else.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vivit.initialise import init
    from vivit.models import forward
    from vivit.reference.config import Config, named
    from vivit.tubelet import cut
    from vivit.video import read_clip

__all__ = ["Config", "cut", "forward", "init", "named", "read_clip"]

_HOMES = {
    "Config": "vivit.reference.config",
    "cut": "vivit.tubelet",
    "forward": "vivit.models",
    "init": "vivit.initialise",
    "named": "vivit.reference.config",
    "read_clip": "vivit.video",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'vivit' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
