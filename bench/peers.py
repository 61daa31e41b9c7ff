"""Other implementations, given our weights: Hugging Face's PyTorch ViViT (model 1). Installed by the [peers] extra."""

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

import vivit
from vivit.reference.config import Config
from vivit.reference.params import Params


def hugging_face(params: Params, video: np.ndarray, config: Config, dtype: str) -> Callable[[], np.ndarray]:
    """A call of VivitForVideoClassification with these weights on this float video; it gives the logits [b v].

    Raises ImportError without torch and transformers.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import VivitForVideoClassification  # pyright: ignore[reportMissingImports]

    with tempfile.TemporaryDirectory() as folder:
        vivit.save(Path(folder) / "port", vivit.Model(config=config, params=params), to="huggingface")
        model = VivitForVideoClassification.from_pretrained(Path(folder) / "port").eval()
    model = model.to(getattr(torch, dtype))
    pixels = torch.from_numpy(np.ascontiguousarray(video.transpose(0, 1, 4, 2, 3))).to(getattr(torch, dtype))

    def call() -> np.ndarray:
        with torch.inference_mode():
            return model(pixel_values=pixels).logits.float().numpy()

    return call
