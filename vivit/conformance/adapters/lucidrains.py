"""The attention of lucidrains' ViViT (vit-pytorch), as `joint`: its module without norm and projections.

Its other parts cannot be examined: the model has no biases of query, key and value, no positions in time and norms
around its embedding, so it cannot hold the weights of ViViT. `classifier` is model 2 of those weights that it can hold,
for benchmarks. Its own default is PyTorch's scaled_dot_product_attention.
"""

import importlib.util
import sys
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]

from vivit.conformance.adapters.of_torch import tensor, with_vjp
from vivit.reference.config import Config
from vivit.reference.params import Dense, Encoder, LayerNorm, Params, layer


def _module() -> Any:
    """vit_pytorch/vivit.py alone: the package's other files import torchvision."""
    package = importlib.util.find_spec("vit_pytorch")
    if package is None or not package.submodule_search_locations:
        raise ModuleNotFoundError("No module named 'vit_pytorch'", name="vit_pytorch")
    file = f"{package.submodule_search_locations[0]}/vivit.py"
    spec: Any = importlib.util.spec_from_file_location("vit_pytorch_vivit", file)
    module = sys.modules["vit_pytorch_vivit"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


_vivit = _module()


def _joint(qkv: Any, heads: int, mask: Any) -> Any:
    c = qkv.shape[-1] // 3
    module = _vivit.Attention(3 * c, heads=heads, dim_head=c // heads).eval()
    module.norm = module.to_qkv = module.to_out = torch.nn.Identity()
    return module(qkv, mask=mask)


joint, joint_vjp = with_vjp(_joint)


def classifier(params: Params, config: Config, dtype: str) -> Any:
    """Returns its model 2 with these weights, in evaluation mode, of this dtype, without the norms of its embedding.

    The biases of query, key and value and the positions in time are zero: it has neither. Raises ValueError for weights
    without a temporal encoder or a head.
    """
    if params.temporal_encoder is None or params.head is None:
        raise ValueError(f"the config is of {config.model}: lucidrains' model 2 has a temporal encoder and a head")
    model = _vivit.ViViT(
        image_size=(config.height, config.width), image_patch_size=config.tubelet[1:], frames=config.frames,
        frame_patch_size=config.tubelet[0], num_classes=sum(config.classes), dim=config.channels,
        spatial_depth=config.layers, temporal_depth=config.temporal.layers, heads=config.heads,
        dim_head=config.channels // config.heads, mlp_dim=config.hidden,
    )  # fmt: skip
    model.to_patch_embedding[1] = model.to_patch_embedding[3] = torch.nn.Identity()
    for module in model.modules():
        if isinstance(module, torch.nn.GELU):
            module.approximate = "tanh" if config.gelu == "tanh" else "none"
        elif isinstance(module, torch.nn.LayerNorm):
            module.eps = config.epsilon
    positions = np.asarray(params.encoder.positions)
    weights = {
        "pos_embedding": np.broadcast_to(positions[1:], model.pos_embedding.shape),
        "spatial_cls_token": (params.encoder.class_token + positions[0])[None, None],
        "temporal_cls_token": np.asarray(params.temporal_encoder.class_token)[None, None],
        **_dense("to_patch_embedding.2", params.embedding),
        **_encoder("spatial_transformer", params.encoder),
        **_encoder("temporal_transformer", params.temporal_encoder),
        **_dense("mlp_head", params.head),
    }
    model.load_state_dict({name: tensor(np.array(weight, np.float32)) for name, weight in weights.items()})
    return model.eval().to(getattr(torch, dtype))


def _encoder(name: str, encoder: Encoder) -> dict[str, np.ndarray]:
    weights = _norm(f"{name}.norm", encoder.norm)
    for i in range(len(encoder.blocks.mlp.out.bias)):
        block, attention, mlp = layer(encoder.blocks, i), f"{name}.layers.{i}.0", f"{name}.layers.{i}.1.net"
        weights |= _norm(f"{attention}.norm", block.attention_norm)
        weights[f"{attention}.to_qkv.weight"] = np.transpose(block.attention.qkv.kernel)
        weights |= _dense(f"{attention}.to_out.0", block.attention.out)
        weights |= _norm(f"{mlp}.0", block.mlp_norm)
        weights |= _dense(f"{mlp}.1", block.mlp.hidden) | _dense(f"{mlp}.4", block.mlp.out)
    return weights


def _dense(name: str, dense: Dense) -> dict[str, np.ndarray]:
    kernel = np.asarray(dense.kernel)
    return {f"{name}.weight": kernel.reshape(-1, kernel.shape[-1]).T, f"{name}.bias": np.asarray(dense.bias)}


def _norm(name: str, norm: LayerNorm) -> dict[str, np.ndarray]:
    return {f"{name}.weight": np.asarray(norm.scale), f"{name}.bias": np.asarray(norm.bias)}
