"""Positions for a video's grid, as in reference/positions.py; constant tables and matrices are the reference's own."""

import jax
import jax.numpy as jnp
import numpy as np

from vivit.reference import positions as reference
from vivit.reference.config import Config


def table(
    learned: jax.Array | None, config: Config, grid: tuple[int, int, int], config_grid: tuple[int, int, int]
) -> jax.Array | None:
    """The positions float32[n c] that one encoder adds, the class token's first; None adds nothing.

    learned: that encoder's own [n c] for config_grid, resized when the video's grid is another.
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


def resize(positions: jax.Array, grid: tuple[int, int, int], target: tuple[int, int, int]) -> jax.Array:
    """Learned positions of one grid read off at the points of another. float[n c] of `grid` to [n c] of `target`."""
    return resize_time(resize_space(positions, grid, target[1:]), (grid[0], *target[1:]), target[0])


def resize_space(positions: jax.Array, grid: tuple[int, int, int], target: tuple[int, int]) -> jax.Array:
    """Resizes each time index's table to another height and width. Arguments and result as `resize`."""
    time, height, width = grid
    values = positions.reshape(time, height, width, positions.shape[-1])
    values = jnp.einsum("yr,trqc->tyqc", _interpolation(height, target[0], values.dtype), values)
    values = jnp.einsum("xq,tyqc->tyxc", _interpolation(width, target[1], values.dtype), values)
    return values.reshape(time * target[0] * target[1], values.shape[-1])


def resize_time(positions: jax.Array, grid: tuple[int, int, int], target: int) -> jax.Array:
    """Resizes each place's table to another number of time indices. Arguments and result as `resize`."""
    time, height, width = grid
    values = positions.reshape(time, height * width, positions.shape[-1])
    values = jnp.einsum("ut,tsc->usc", _interpolation(time, target, values.dtype), values)
    return values.reshape(target * height * width, values.shape[-1])


def tile(positions: jax.Array, grid: tuple[int, int, int], target: int) -> jax.Array:
    """Repeats positions over time; time index i takes i mod time. float[n c] of `grid` to [target·height·width c].

    Source: Arnab et al. 2021, section 3.4, "positional embeddings".
    """
    time, height, width = grid
    values = positions.reshape(time, height * width, positions.shape[-1])
    return values[np.arange(target) % time].reshape(target * height * width, values.shape[-1])


def _interpolation(size: int, target: int, dtype: jnp.dtype) -> jax.Array:
    return jnp.asarray(reference.interpolation(size, target), dtype)
