"""How much memory a request takes at the least, computed before any of it is taken; what needs too much is refused.

Arrays are counted that must exist, and none that a compiler may save: so nothing is refused that would have fitted.
"""

import math
import os
from contextlib import suppress
from pathlib import Path

from vivit.reference.config import COLORS, Config
from vivit.reference.params import parameters

GB = 10**9
LARGEST_LIMIT = 16 * GB  # unless the user says otherwise
FLOAT = 4  # bytes
NAMES = 4096  # bytes of a layer's names, in whatever format
GROUPS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def usual_limit() -> int:
    """Bytes: LARGEST_LIMIT, or what this machine has if that is less."""
    found = [LARGEST_LIMIT]
    with suppress(AttributeError, ValueError, OSError):  # not every system tells
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for file in GROUPS:
        with suppress(ValueError, OSError):  # "max" is no number
            found.append(int(Path(file).read_text()))
    return min(size for size in found if size > 0)


def check_memory(what: str, needed: int, limit: int) -> None:
    """Raises ValueError if more bytes are needed than the limit allows."""
    if needed > limit:
        raise ValueError(
            f"{what} would take {needed / GB:,.1f} GB of memory or more: the limit is {limit / GB:,.1f} GB; "
            "--memory GB raises it, in Python limits=vivit.Limits(memory=bytes)"
        )


def check_model(config: Config, limit: int, *, clips: int = 1, copies: int = 1) -> None:
    """Raises ValueError if a model and so many clips that go through it at once are too large.

    copies: of the weights, such as their gradients.
    """
    shown = f"{config.frames} frames of {config.height}x{config.width}"
    check_memory(
        f"a model of {parameters(config):,} parameters with {clips:,} {'clip' if clips == 1 else 'clips'} of {shown}",
        copies * _model(config) + _clips(config, clips),
        limit,
    )


def check_views(config: Config, views: tuple[int, int], limit: int) -> None:
    """Raises ValueError if the pixels of so many clips and crops of one video are too large."""
    count = math.prod(views)
    shown = f"{config.frames} frames of {config.height}x{config.width}"
    check_memory(f"views of {views[0]}x{views[1]}, each {shown},", count * _pixels(config), limit)


def _model(config: Config) -> int:
    layers = config.layers + (config.temporal_layers if config.model == "factorised_encoder" else 0)
    return FLOAT * parameters(config) + NAMES * layers


def _pixels(config: Config) -> int:
    return config.frames * config.height * config.width * COLORS


def _clips(config: Config, count: int) -> int:
    """Pixels as bytes and as floats; what a layer holds: tokens, query, key and value, the MLP; one head's scores."""
    time, height, width = config.grid
    space = height * width
    tokens = time * space * (FLOAT * (5 * config.channels + config.hidden))
    longest = time * space if config.model == "spatio_temporal" else max(time, space)
    scores = 2 * FLOAT * longest**2  # and their exponentials
    return count * ((1 + FLOAT) * _pixels(config) + tokens) + scores
