"""Which ops a forward is computed with, decided once, before anything is traced."""

import jax

from vivit.ops import XLA, Ops
from vivit.reference.values import quoted

BACKENDS = ("auto", "pallas", "xla")


def backend(name: str | Ops, platform: str | None = None) -> Ops:
    """The ops of this name.

    "auto": the Pallas kernels on a TPU, else XLA. "pallas": the kernels, off a TPU in Pallas's interpreter. "xla": no
    kernels. Ops are returned as they are. platform: what the program will run on; None: the devices of `jax.set_mesh`,
    or where JAX puts arrays by default. A program that is compiled for others says which ops it wants.
    Raises ValueError for another name.
    """
    if isinstance(name, Ops):
        return name
    if name not in BACKENDS:
        raise ValueError(f"attention is {quoted(name)}: it must be one of {', '.join(BACKENDS)}")
    on_tpu = (platform or _default_platform()) == "tpu"
    if name == "xla" or (name == "auto" and not on_tpu):
        return XLA
    from vivit.pallas_ops import INTERPRETED, PALLAS  # here: what runs on a CPU need not load Pallas

    return PALLAS if on_tpu else INTERPRETED


def _default_platform() -> str:
    meant = jax.sharding.get_abstract_mesh().abstract_device
    if meant is not None:
        return meant.platform
    device = jax.config.values["jax_default_device"]  # a device, a platform's name, or None
    return jax.default_backend() if device is None else getattr(device, "platform", device)
