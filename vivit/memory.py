"""Computes the least memory that a request needs, and rejects it before allocation if it exceeds the limit.

Only arrays that must exist are counted, and none that a compiler may avoid, so that no feasible request is rejected.
"""

import math
import os
from contextlib import suppress
from pathlib import Path

from vivit.reference.config import COLORS, Config
from vivit.reference.params import parameters

GB = 10**9
MAX_DEFAULT_LIMIT = 16 * GB
FLOAT = 4  # bytes
NAMES = 4096  # bytes of a layer's names in a checkpoint of any format
GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def default_limit() -> int:
    """Returns MAX_DEFAULT_LIMIT, or the memory of this machine if that is less, in bytes."""
    sizes = [MAX_DEFAULT_LIMIT]
    with suppress(AttributeError, ValueError, OSError):  # not known on every system
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in GROUPS:
        with suppress(ValueError, OSError):  # "max" is no number
            sizes.append(int(Path(file).read_text()))
    return min(size for size in sizes if size > 0)


def check_memory(what: str, needed: int, limit: int) -> None:
    """Raises ValueError if more bytes are needed than the limit allows."""
    if needed > limit:
        raise ValueError(
            f"{what} would take {needed / GB:,.1f} GB of memory or more: the limit is {limit / GB:,.1f} GB; "
            "--memory GB raises it, in Python limits=vivit.Limits(memory=bytes)"
        )


def check_model(config: Config, limit: int, *, clips: int = 1, copies: int = 1) -> None:
    """Raises ValueError if a model with a batch of clips exceeds the limit. copies: of the weights, with gradients."""
    shown = f"{config.frames} frames of {config.height}x{config.width}"
    check_memory(
        f"a model of {parameters(config):,} parameters with {clips:,} {'clip' if clips == 1 else 'clips'} of {shown}",
        copies * _model(config) + _clips(config, clips),
        limit,
    )


def check_views(frames: int, height: int, width: int, views: tuple[int, int], limit: int) -> None:
    """Raises ValueError if the pixels of the views of one video exceed the limit."""
    shown = f"{frames} frames of {height}x{width}"
    needed = math.prod(views) * frames * height * width * COLORS
    check_memory(f"views of {views[0]}x{views[1]}, each {shown},", needed, limit)


def _model(config: Config) -> int:
    layers = config.layers + (config.temporal_layers if config.model == "factorised_encoder" else 0)
    return FLOAT * parameters(config) + NAMES * layers


def _pixels(config: Config) -> int:
    return config.frames * config.height * config.width * COLORS


def _clips(config: Config, count: int) -> int:
    """Returns the bytes of pixels (uint8 and float), of a layer's activations, and of the scores of one head."""
    time, height, width = config.grid
    space = height * width
    tokens = time * space * (FLOAT * (5 * config.channels + config.hidden))
    longest = time * space if config.model == "spatio_temporal" else max(time, space)
    scores = 2 * FLOAT * longest**2  # and their exponentials
    return count * ((1 + FLOAT) * _pixels(config) + tokens) + scores
