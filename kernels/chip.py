"""What the kernels ask of the chip that they are compiled for.

The chip is the attached TPU, or the one of `jax.set_mesh` when compiling ahead of time. Where neither is known (a TPU
program exported from a CPU host, Pallas's interpreter) the answers are those that every TPU can run.
"""

from typing import Any

import numpy as np
from jax.experimental.pallas import tpu as pltpu
from jax.typing import DTypeLike

_SMALLEST_VMEM = 16 * 2**20
_LARGEST_SCOPE = 64 * 2**20  # of a chip with 128 MiB: XLA keeps the rest for itself


def operand_dtype(dtype: DTypeLike) -> np.dtype:
    """In which dtype operands reach the matrix unit. A v3's takes float32 only, and rounds it to bfloat16 itself."""
    info = _info()
    return np.dtype(dtype if info is not None and info.generation >= 4 else np.float32)


def name() -> str | None:
    """What the chip is called in block_sizes.json: "v3", "v5e"."""
    info = _info()
    return None if info is None else str(info.chip_version)


def vmem_bytes() -> int:
    """How much VMEM a kernel may use."""
    info = _info()
    return _SMALLEST_VMEM if info is None else min(info.vmem_capacity_bytes, _LARGEST_SCOPE)


def _info() -> Any:
    try:
        return pltpu.get_tpu_info()
    except ValueError:  # «Unsupported TPU device kind: cpu»
        return None
