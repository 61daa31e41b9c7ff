"""Chooses the ops of a forward, once, before tracing."""

from typing import Any

import jax

from vivit.ops import XLA, Ops
from vivit.reference.values import quoted

BACKENDS = ("auto", "pallas", "xla")


def backend(name: str | Ops, platform: str | None = None) -> Ops:
    """Returns the ops with this name.

    "auto": the Pallas kernels on a TPU, cuDNN's attention on a CUDA GPU that has it, else XLA. "pallas": the Pallas
    kernels, in Pallas's interpreter where there is no TPU. "xla": no kernels. Ops are returned unchanged.
    platform: the platform that runs the program, "cpu", "gpu" or "tpu"; None: that of the devices of `jax.set_mesh`, or
    JAX's default. Pass it, or Ops, to compile for another platform.
    Raises ValueError for any other name.
    """
    if isinstance(name, Ops):
        return name
    if name not in BACKENDS:
        raise ValueError(f"attention is {quoted(name)}: it must be one of {', '.join(BACKENDS)}")
    platform = platform or _default_platform()
    # kernels are not imported at the top: a program for a CPU does not load them
    if name == "pallas" or (name == "auto" and platform == "tpu"):
        from vivit.pallas_ops import INTERPRETED, PALLAS

        return PALLAS if platform == "tpu" else INTERPRETED
    if name == "auto" and platform == "gpu" and _has_fused_attention(jax.devices("gpu")[0]):
        from vivit.gpu_ops import CUDNN

        return CUDNN
    return XLA


def _has_fused_attention(gpu: Any) -> bool:
    """Whether cuDNN has an attention for this GPU: one of NVIDIA, of compute capability 8.0 or later."""
    return "cuda" in gpu.client.platform_version and float(gpu.compute_capability) >= 8.0


def _default_platform() -> str:
    mesh_device = jax.sharding.get_abstract_mesh().abstract_device
    if mesh_device is not None:
        return mesh_device.platform
    device = jax.config.values["jax_default_device"]  # a device, a platform's name, or None
    return jax.default_backend() if device is None else getattr(device, "platform", device)
