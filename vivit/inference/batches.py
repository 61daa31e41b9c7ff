"""A stream of clips through a model: in batches of one size, each decoded while the one before it is computed."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

BATCH = 4  # clips at once: more take more memory, and one keeps all cores of a CPU busy

Key = TypeVar("Key")


class NotFinite(NamedTuple):
    """A clip [frames height width 3] of which the model made numbers that are not finite."""

    clip: np.ndarray


class _Batch(NamedTuple):
    """entries: pairs of a key and its row in `pixels`, or None. pixels: None if no entry has a clip."""

    entries: list[tuple[Any, int | None]]
    pixels: np.ndarray | None


def computed(
    run: Callable[[np.ndarray], Any], clips: Iterable[tuple[Key, np.ndarray | None]], batch: int
) -> Iterator[tuple[Key, Any]]:
    """Pairs of a key and what `run` makes of its clip, in order; a key without a clip passes with None.

    run: from [b frames height width 3] to a tree of arrays with a leading b. The last batch is filled up, so that
    one program serves all; if it is the only one it is as small as it can be. In the place of a row that is not finite
    stands NotFinite.
    """
    running: tuple[_Batch, Any] | None = None
    for filled in _batches(clips, batch):
        result = None if filled.pixels is None else run(filled.pixels)
        if running is not None:
            yield from _rows(*running)
        running = filled, result
    if running is not None:
        yield from _rows(*running)


def evenly(clips: int, most: int) -> int:
    """The size of batches, at most `most`, that leaves as little to be filled up as can be. clips: at least 1."""
    return math.ceil(clips / math.ceil(clips / most))


def _batches(clips: Iterable[tuple[Any, np.ndarray | None]], batch: int) -> Iterator[_Batch]:
    entries: list[tuple[Any, int | None]] = []
    pixels: np.ndarray | None = None
    used, first = 0, True
    for key, clip in clips:
        if pixels is not None and clip is not None and clip.dtype != pixels.dtype:
            yield _Batch(entries, pixels)
            entries, pixels, used, first = [], None, 0, False
        if clip is None:
            entries.append((key, None))
            continue
        if pixels is None:
            pixels = np.zeros((batch, *clip.shape), clip.dtype)
        pixels[used] = clip
        entries.append((key, used))
        used += 1
        if used == batch:
            yield _Batch(entries, pixels)
            entries, pixels, used, first = [], None, 0, False
    if entries:
        yield _Batch(entries, pixels[:used] if first and pixels is not None else pixels)


def _rows(batch: _Batch, result: Any) -> Iterator[tuple[Any, Any]]:
    arrays = jax.tree.map(np.asarray, result)
    for key, place in batch.entries:
        if place is None or batch.pixels is None:
            yield key, None
            continue
        row = jax.tree.map(lambda array, place=place: array[place], arrays)
        finite = all(np.isfinite(array).all() for array in jax.tree.leaves(row))
        yield key, row if finite else NotFinite(batch.pixels[place])
