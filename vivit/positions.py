"""Position embeddings, as in reference/positions.py, which computes the constant tables and interpolation matrices."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32

from vivit.reference import positions as reference
from vivit.reference.config import Config


def table(
    learned: Float[Array, "n c"] | None, config: Config, grid: tuple[int, int, int], config_grid: tuple[int, int, int]
) -> Float32[Array, "m c"] | None:
    """Returns the positions float32[n c] that one encoder adds, the class token's first if there is one, or None.

    learned: the encoder's parameter [n c] for config_grid, which is resized if the video's grid differs.
    """
    if learned is None:
        constant = reference.table(None, config, grid, config_grid)
        return None if constant is None else jnp.asarray(constant, jnp.float32)
    learned = learned.astype(jnp.float32)
    if grid == config_grid:
        return learned
    if config.class_token:
        return jnp.concatenate([learned[:1], resize(learned[1:], config_grid, grid)])
    return resize(learned, config_grid, grid)


def resize(
    positions: Float[Array, "n c"], grid: tuple[int, int, int], target: tuple[int, int, int]
) -> Float[Array, "m c"]:
    """Interpolates learned positions linearly: float[n c] of `grid` to float[n c] of `target`."""
    return resize_time(resize_space(positions, grid, target[1:]), (grid[0], *target[1:]), target[0])


def resize_space(
    positions: Float[Array, "n c"], grid: tuple[int, int, int], target: tuple[int, int]
) -> Float[Array, "m c"]:
    """Resizes each time index's positions to another height and width. Arguments and result as in `resize`."""
    time, height, width = grid
    values = positions.reshape(time, height, width, positions.shape[-1])
    values = jnp.einsum("yr,trqc->tyqc", _interpolation(height, target[0], values.dtype), values)
    values = jnp.einsum("xq,tyqc->tyxc", _interpolation(width, target[1], values.dtype), values)
    return values.reshape(time * target[0] * target[1], values.shape[-1])


def resize_time(positions: Float[Array, "n c"], grid: tuple[int, int, int], target: int) -> Float[Array, "m c"]:
    """Resizes each spatial index's positions to another number of time indices. Arguments and result as in `resize`."""
    time, height, width = grid
    values = positions.reshape(time, height * width, positions.shape[-1])
    values = jnp.einsum("ut,tsc->usc", _interpolation(time, target, values.dtype), values)
    return values.reshape(target * height * width, values.shape[-1])


def tile(positions: Float[Array, "n c"], grid: tuple[int, int, int], target: int) -> Float[Array, "m c"]:
    """Repeats positions over time; time index i uses i mod time. float[n c] of `grid` to [target·height·width c].

    Source: Arnab et al. 2021, section 3.4, "positional embeddings".
    """
    time, height, width = grid
    values = positions.reshape(time, height * width, positions.shape[-1])
    return values[np.arange(target) % time].reshape(target * height * width, values.shape[-1])


def _interpolation(size: int, target: int, dtype: jnp.dtype) -> Float[Array, "target size"]:
    return jnp.asarray(reference.interpolation(size, target), dtype)
