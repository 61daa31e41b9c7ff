"""NumPy to PyTorch, bfloat16 included, and a core's vector-Jacobian product by autograd."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch  # pyright: ignore[reportMissingImports]


def tensor(array: np.ndarray) -> torch.Tensor:
    """Returns a tensor of the same memory and dtype. PyTorch cannot take NumPy's bfloat16 by itself."""
    if array.dtype.name == "bfloat16":
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def with_vjp(core: Callable[..., torch.Tensor]) -> tuple[Callable[..., torch.Tensor], Callable[..., torch.Tensor]]:
    """Returns (core, its vector-Jacobian product) of a core (qkv, heads, mask) on tensors; they take NumPy arrays."""

    def function(qkv: np.ndarray, heads: int, *, mask: np.ndarray | None = None) -> torch.Tensor:
        with torch.no_grad():
            return core(tensor(qkv), heads, None if mask is None else tensor(mask))

    def vjp(qkv: np.ndarray, out_cotangent: np.ndarray, heads: int, *, mask: np.ndarray | None = None) -> torch.Tensor:
        leaf: Any = tensor(qkv).requires_grad_()
        out = core(leaf, heads, None if mask is None else tensor(mask))
        return torch.autograd.grad(out, leaf, tensor(out_cotangent))[0]

    return function, vjp


def split(qkv: torch.Tensor, heads: int) -> tuple[torch.Tensor, ...]:
    """Splits qkv [b n 3c] into query, key and value, each [b h n d]."""
    b, n, fused = qkv.shape
    return qkv.reshape(b, n, 3, heads, fused // 3 // heads).permute(2, 0, 3, 1, 4).unbind()
