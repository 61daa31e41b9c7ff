"""Runs a stream of clips through a model in batches of one size. The next batch is decoded during the computation."""

import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np

BATCH = 4  # clips: larger batches take more memory, and a single clip keeps all cores of a CPU busy

Key = TypeVar("Key")
Clip = tuple[np.ndarray, ...]  # [frames height width 3], and further arguments of the model


class NotFinite(NamedTuple):
    """A clip [frames height width 3] whose result has NaN or infinity."""

    clip: np.ndarray


class _Batch(NamedTuple):
    """A batch before the model. entries: (key, its row in `arrays` or None). arrays: empty if no entry has a clip."""

    entries: list[tuple[Any, int | None]]
    arrays: Clip


def map_batched(
    run: Callable[..., Any], clips: Iterable[tuple[Key, Clip | None]], batch: int
) -> Iterator[tuple[Key, Any]]:
    """Yields (key, result of `run` for the key's clip) in order. The result of a key without a clip is None.

    clips: pairs of a key and a clip's arrays. run: function from these arrays, with a leading b each, to a tree of
    arrays with a leading b. The last batch is padded with its last clip, so that one program serves all batches; a
    single batch is not padded. The result of a clip is NotFinite if it has NaN or infinity.
    """
    running: tuple[_Batch, Any] | None = None
    for filled in _batches(clips, batch):
        result = run(*filled.arrays) if filled.arrays else None
        if running is not None:
            yield from _rows(*running)
        running = filled, result
    if running is not None:
        yield from _rows(*running)


def balanced_batch_size(clips: int, most: int) -> int:
    """Returns the batch size, at most `most`, that minimises the padding of the last batch. clips: at least 1."""
    return math.ceil(clips / math.ceil(clips / most))


def padded(array: np.ndarray, batch: int) -> np.ndarray:
    """Pads [b …] to [batch …] by repeating the last row. batch: at least b."""
    missing = batch - len(array)
    return array if not missing else np.concatenate([array, np.repeat(array[-1:], missing, axis=0)])


def _batches(clips: Iterable[tuple[Any, Clip | None]], batch: int) -> Iterator[_Batch]:
    entries: list[tuple[Any, int | None]] = []
    rows: list[Clip] = []
    only = True
    for key, clip in clips:
        if clip is None:
            entries.append((key, None))
            continue
        if rows and clip[0].dtype != rows[0][0].dtype:
            yield _stacked(entries, rows, batch)
            entries, rows, only = [], [], False
        entries.append((key, len(rows)))
        rows.append(clip)
        if len(rows) == batch:
            yield _stacked(entries, rows, batch)
            entries, rows, only = [], [], False
    if entries:
        yield _stacked(entries, rows, len(rows) if only else batch)


def _stacked(entries: list[tuple[Any, int | None]], rows: list[Clip], batch: int) -> _Batch:
    return _Batch(entries, tuple(padded(np.stack(column), batch) for column in zip(*rows, strict=True)))


def _rows(batch: _Batch, result: Any) -> Iterator[tuple[Any, Any]]:
    arrays = jax.tree.map(np.asarray, result)
    for key, index in batch.entries:
        if index is None:
            yield key, None
            continue
        row = jax.tree.map(lambda array, index=index: array[index], arrays)
        finite = all(np.isfinite(array).all() for array in jax.tree.leaves(row))
        yield key, row if finite else NotFinite(batch.arrays[0][index])
