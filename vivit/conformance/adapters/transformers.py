"""Hugging Face's ViViT (transformers on PyTorch): its attention as `joint`, its embedding, and model 1 as `forward`.

It has neither padding nor the other three models. Its attention is the function that its config selects by default,
PyTorch's scaled_dot_product_attention, which takes a mask.
"""

import importlib
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS  # pyright: ignore[reportMissingImports]
from transformers.models.vivit import modeling_vivit  # pyright: ignore[reportMissingImports]

from vivit.checkpoints.huggingface_export import check_exportable
from vivit.checkpoints.save import save
from vivit.conformance.adapters.of_torch import split, tensor, with_vjp
from vivit.model_data import ModelData
from vivit.reference.config import Config
from vivit.reference.params import Dense, Params

transformers: Any = importlib.import_module("transformers")  # `import` would be read as this file by type checkers


def _joint(qkv: Any, heads: int, mask: Any) -> Any:
    query, key, value = split(qkv, heads)
    c = qkv.shape[-1] // 3
    module = _attention(c, heads)
    attention = ALL_ATTENTION_FUNCTIONS.get_interface("sdpa", modeling_vivit.eager_attention_forward)
    seen = None if mask is None else mask[:, None, None]
    out, _ = attention(module, query, key, value, seen, dropout=0.0, scaling=module.scaling)
    return out.reshape(*qkv.shape[:2], c)


@lru_cache(maxsize=8)
def _attention(channels: int, heads: int) -> Any:
    config = transformers.VivitConfig(hidden_size=channels, num_attention_heads=heads)
    return modeling_vivit.VivitAttention(config).eval()


joint, joint_vjp = with_vjp(_joint)


def tubelet_embed(video: np.ndarray, params: Dense) -> Any:
    """Calls VivitTubeletEmbeddings; its tokens [b t·s c] as [b t s c]."""
    b, frames, height, width, _ = video.shape
    *tubelet, colors, c = params.kernel.shape
    config = transformers.VivitConfig(
        num_frames=frames, image_size=(height, width), tubelet_size=tubelet, num_channels=colors, hidden_size=c
    )
    module = modeling_vivit.VivitTubeletEmbeddings(config)
    kernel = np.ascontiguousarray(params.kernel.transpose(4, 3, 0, 1, 2))  # c colors | time height width
    module.projection.weight = torch.nn.Parameter(tensor(kernel))
    module.projection.bias = torch.nn.Parameter(tensor(params.bias))
    with torch.no_grad():
        return module(_pixels(video)).reshape(b, frames // tubelet[0], -1, c)


def forward(params: Params, video: np.ndarray, config: Config) -> Any:
    """Calls VivitForVideoClassification with these weights. Raises NotImplementedError for what it cannot be."""
    try:
        check_exportable(vars(config))
    except ValueError as error:
        raise NotImplementedError(str(error)) from None
    model = classifier(params, config, video.dtype.name)
    with torch.no_grad():
        return model(pixel_values=_pixels(video)).logits


def classifier(params: Params, config: Config, dtype: str) -> Any:
    """Returns a VivitForVideoClassification with these weights, in evaluation mode, of this dtype."""
    transformers.utils.logging.disable_progress_bar()
    with tempfile.TemporaryDirectory() as folder:
        save(ModelData(config=config, params=params), Path(folder) / "port", to="huggingface")
        model = transformers.VivitForVideoClassification.from_pretrained(Path(folder) / "port").eval()
    return model.to(getattr(torch, dtype))


def _pixels(video: np.ndarray) -> Any:
    return tensor(np.ascontiguousarray(video.transpose(0, 1, 4, 2, 3)))  # b frames colors height width
