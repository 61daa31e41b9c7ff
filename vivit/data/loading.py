"""Loads batches of training clips: in random order, decoded in parallel, sharded over hosts, resumable.

The clips of step n depend only on the seed and n, not on the number of threads or on earlier steps. Grain shuffles;
clips.py loads the clips. Decoding uses threads, not processes: FFmpeg works without Python's lock, and threads need no
copies.
"""

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, get_args

import grain
import numpy as np

from vivit.data.clips import Broken, BrokenVideoError, TrainingClip, Transform, training_clip
from vivit.data.sources import Dataset, label_vector
from vivit.reference.values import quoted
from vivit.video.prefetch import check_threads, map_in_threads
from vivit.video.spec import ClipSpec

ATTEMPTS = 32  # examples to try for one clip before an error is raised

_log = logging.getLogger("vivit.data")


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """A batch of training clips.

    video: uint8[b frames height width 3]. frames_valid: int32[b], numbers of frames that are not padding. labels:
    float32[b v], heads concatenated. index: int64[b], the examples' indices in the dataset.
    """

    video: np.ndarray
    frames_valid: np.ndarray
    labels: np.ndarray
    index: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Share:
    """The part of every batch that this host loads. host: its index. hosts: their number. batch: clips per host."""

    batch: int
    host: int = 0
    hosts: int = 1

    def __post_init__(self) -> None:
        if self.batch < 1 or self.hosts < 1 or not 0 <= self.host < self.hosts:
            raise ValueError(
                f"batch is {self.batch}, host {self.host} of {self.hosts}: a batch must be positive, hosts count from 0"
            )


@dataclass(frozen=True, eq=False)
class _Record:
    """The clip of an example. broken: (path, reason) of the videos that could not be read before it."""

    index: int
    clip: TrainingClip
    broken: tuple[tuple[str, str], ...]


def training_batches(
    dataset: Dataset,
    spec: ClipSpec,
    share: Share,
    *,
    transform: Transform | None = None,
    seed: int = 0,
    threads: int = 2,
    broken: Broken = "fail",
) -> "Loader":
    """Returns an endless loader of random clips in random order; an epoch has every example once, over all hosts.

    transform: as in clips.training_clip. broken: "fail" stops at the first video that cannot be read or whose clip has
    damaged frames; "skip" replaces an unreadable video by another example, drawn from the seed, and damaged frames by
    the frames before them, with a warning. Raises ValueError that names an invalid argument; the loader raises
    BrokenVideoError.
    """
    if not dataset.examples:
        raise ValueError("the dataset has no example: it must have at least one")
    check_threads(threads)
    if broken not in get_args(Broken):
        raise ValueError(f"broken is {quoted(broken)}: it must be one of {', '.join(get_args(Broken))}")
    spec = replace(spec, refuse_damaged=broken == "fail")
    positions = grain.MapDataset.range(len(dataset.examples)).seed(seed).shuffle().repeat()
    record = partial(_record, dataset, spec, transform, seed, broken)
    records: Any = positions.map_with_index(record)[share.host :: share.hosts]
    return Loader(records.__getitem__, dataset, spec, share.batch, threads=threads)


class Loader:
    """An endless iterator of `Batch`. broken: the errors of the videos left out, by path.

    state() returns the position; after restore(state), the iterator continues from that position.
    """

    def __init__(
        self, record: Callable[[int], _Record], dataset: Dataset, spec: ClipSpec, batch: int, *, threads: int
    ) -> None:
        """record: function from a position in the endless order to the clip there; called in any thread."""
        self.broken: dict[str, str] = {}
        self._record, self._dataset, self._spec, self._batch, self._threads = record, dataset, spec, batch, threads
        self._step = 0
        self._records = self._records_from(0)

    def __iter__(self) -> "Loader":
        return self

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Batch:
        spec = self._spec
        batch = Batch(
            video=np.empty((self._batch, spec.sampling.frames, spec.height, spec.width, 3), np.uint8),
            frames_valid=np.empty(self._batch, np.int32),
            labels=np.empty((self._batch, sum(self._dataset.classes)), np.float32),
            index=np.empty(self._batch, np.int64),
        )
        for row, record in zip(range(self._batch), self._records, strict=False):
            batch.video[row], batch.frames_valid[row] = record.clip
            batch.labels[row] = label_vector(self._dataset, self._dataset.examples[record.index])
            batch.index[row] = record.index
        self._step += 1
        return batch

    def state(self) -> dict[str, Any]:
        """Returns the position for a checkpoint, as JSON data."""
        return {"step": self._step, "batch": self._batch, "broken": dict(self.broken)}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from the position of a state. Raises ValueError if its batch size differs."""
        if state.get("batch") != self._batch:
            raise ValueError(
                f"batch is {state.get('batch')} in the state: it must be {self._batch}, as it was when saved"
            )
        self._step, self.broken = int(state["step"]), dict(state["broken"])
        self._records.close()
        self._records = self._records_from(self._step * self._batch)

    def close(self) -> None:
        """Stops the threads after they finish their current clips."""
        self._records.close()

    def _records_from(self, number: int) -> Generator[_Record, None, None]:
        """Yields the records from this position on. Threads decode two batches ahead."""
        ahead = max(self._threads, 2 * self._batch)
        with closing(map_in_threads(self._record, count(number), threads=self._threads, ahead=ahead)) as records:
            for record in records:
                for path, reason in record.broken:
                    if path not in self.broken:
                        self.broken[path] = reason
                        _log.warning("left out, %d so far: %s", len(self.broken), reason)
                yield record


def _record(
    dataset: Dataset, spec: ClipSpec, transform: Transform | None, seed: int, broken: Broken, position: int, index: int
) -> _Record:
    """Returns the clip at a position of the endless order, or the first readable replacement."""
    failures = []
    for attempt in range(ATTEMPTS):
        if attempt:
            index = int(np.random.default_rng((seed, position, attempt)).integers(len(dataset.examples)))
        generator = np.random.default_rng((seed, position, attempt, int(index)))
        try:
            clip = training_clip(spec, dataset.examples[index], generator, transform)
            return _Record(int(index), clip, tuple(failures))
        except BrokenVideoError as error:
            if broken == "fail":
                raise
            failures.append((error.path, str(error)))
    raise ValueError(f"{ATTEMPTS} videos one after the other cannot be used, the last: {failures[-1][1]}")
