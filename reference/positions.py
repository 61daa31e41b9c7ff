"""Position embeddings: learned, sinusoidal in two forms, and resizing of learned ones to another grid.

A grid is (time, height, width) in tokens. A position table is [n c] with n = time · height · width, in that order.
"""

import numpy as np

from vivit.reference.config import Config


def table(
    learned: np.ndarray | None, config: Config, grid: tuple[int, int, int], config_grid: tuple[int, int, int]
) -> np.ndarray | None:
    """Returns the positions [n c] that one encoder adds, the class token's first if there is one, or None.

    learned: the encoder's parameter [n c] for config_grid, which is resized if the video's grid differs.
    """
    if learned is not None:
        if config.class_token:
            return np.concatenate([learned[:1], resize(learned[1:], config_grid, grid)])
        return resize(learned, config_grid, grid)
    if config.positions == "none":
        return None
    time, height, width = grid
    if config.positions == "sinusoidal_1d":
        return sinusoidal_1d(config.class_token + time * height * width, config.channels)
    class_position = np.zeros((int(config.class_token), config.channels))  # the class token has no position
    return np.concatenate([class_position, sinusoidal_3d(grid, config.channels)])


def sinusoidal_1d(n: int, channels: int) -> np.ndarray:
    """sin(position · ω) in even channels, cos(position · ω) in odd ones, with ω = 10000^(−2i/c) for channel pair i.

    Source: Vaswani et al. 2017, section 3.5. Returns float[n c]. Raises ValueError if channels is odd.
    """
    if channels % 2:
        raise ValueError(f"channels is {channels}: sinusoidal_1d positions need a multiple of 2")
    angles = np.outer(np.arange(n), 10000.0 ** (-np.arange(0, channels, 2) / channels))
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(n, channels)


def sinusoidal_3d(grid: tuple[int, int, int], channels: int) -> np.ndarray:
    """Concatenates sin z, cos z, sin x, cos x, sin y, cos y, a sixth of the channels each (z time, y height, x width).

    Source: the published code, after Beyer et al. 2022; ω = 10000^(−i/(c/6)). Returns float[n c].
    Raises ValueError if channels is not divisible by 6.
    """
    if channels % 6:
        raise ValueError(f"channels is {channels}: sinusoidal_3d positions need a multiple of 6")
    frequencies = 10000.0 ** (-np.arange(channels // 6) / (channels // 6))
    z, y, x = (np.outer(axis.ravel(), frequencies) for axis in np.indices(grid))
    return np.concatenate([np.sin(z), np.cos(z), np.sin(x), np.cos(x), np.sin(y), np.cos(y)], axis=-1)


def tile(positions: np.ndarray, grid: tuple[int, int, int], target: int) -> np.ndarray:
    """Repeats the positions of an image (grid time 1) or a shorter clip over time: time index i uses i mod time.

    Source: Arnab et al. 2021, section 3.4, "positional embeddings". positions: float[n c] of `grid`.
    Returns float[target·height·width c], for any target.
    Differs from the source: the published code returns too few when target is not a multiple of the grid's time.
    """
    time, height, width = grid
    values = positions.reshape(time, height * width, -1)
    return values[np.arange(target) % time].reshape(target * height * width, -1)


def resize(positions: np.ndarray, grid: tuple[int, int, int], target: tuple[int, int, int]) -> np.ndarray:
    """Interpolates learned positions linearly from one grid to another: first over space, then over time.

    positions: float[n c] of `grid`. Returns float[n c] of `target`. An axis of unchanged size keeps its values.
    """
    return resize_time(resize_space(positions, grid, target[1:]), (grid[0], *target[1:]), target[0])


def resize_space(positions: np.ndarray, grid: tuple[int, int, int], target: tuple[int, int]) -> np.ndarray:
    """Resizes each time index's positions to another height and width. Arguments and result as in `resize`."""
    time, height, width = grid
    values = positions.reshape(time, height, width, -1)
    values = np.einsum("yr,trqc->tyqc", interpolation(height, target[0]), values)
    values = np.einsum("xq,tyqc->tyxc", interpolation(width, target[1]), values)
    return values.reshape(time * target[0] * target[1], -1)


def resize_time(positions: np.ndarray, grid: tuple[int, int, int], target: int) -> np.ndarray:
    """Resizes each spatial index's positions to another number of time indices. Arguments and result as in `resize`."""
    time, height, width = grid
    values = np.einsum("ut,tsc->usc", interpolation(time, target), positions.reshape(time, height * width, -1))
    return values.reshape(target * height * width, -1)


def interpolation(size: int, target: int) -> np.ndarray:
    """Returns the matrix [target size] of linear interpolation between cell centres, with the border values extended.

    Point i of the target is at (i + ½) · size / target − ½ of the source. Rows sum to one; size = target is identity.
    """
    points = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
    distance = np.abs(points[:, np.newaxis] - np.arange(size))
    return np.maximum(0.0, 1.0 - distance)
