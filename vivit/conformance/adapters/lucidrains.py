"""The attention of lucidrains' ViViT (vit-pytorch), as `joint`: its module without norm and projections.

Its other parts cannot be examined: the model has no biases of query, key and value, and no entry for them fused, so it
cannot hold the weights of ViViT. Its own default is PyTorch's scaled_dot_product_attention.
"""

import importlib.util
import sys
from typing import Any

import torch  # pyright: ignore[reportMissingImports]

from vivit.conformance.adapters.of_torch import with_vjp


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
