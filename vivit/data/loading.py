"""Batches of clips: in which order, decoded in parallel, on every host its share, resumable.

The clips of step n depend on the seed and n alone: not on how many threads decode, nor on what was loaded before. Grain
gives the order of training; clips.py makes the clips. Threads, not processes: FFmpeg works without
Python's lock, and nothing has to be copied between processes.
"""

import logging
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from itertools import count
from typing import Any, Literal, get_args

import numpy as np

from vivit.data.clips import BrokenVideoError, Clips, Pixels, evaluation_clips, training_clip
from vivit.data.sources import Dataset, label_vector
from vivit.inference.ahead import check_threads, mapped
from vivit.reference.values import quoted

Broken = Literal["skip", "fail"]
ATTEMPTS = 32  # examples that are tried in place of a broken one before training gives up

_log = logging.getLogger("vivit.data")


@dataclass(frozen=True, kw_only=True, eq=False)
class Batch:
    """Clips side by side; an index of −1 marks what only fills the last batch up.

    video: uint8[b frames height width 3]. frames_valid: int32[b], the frames that are no padding. labels: float32[b v],
    head after head. index: int64[b], the example's number in the dataset. view: int32[b], temporal view · crops + crop.
    """

    video: np.ndarray
    frames_valid: np.ndarray
    labels: np.ndarray
    index: np.ndarray
    view: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Share:
    """Which part of the batches this host loads: number `host` of `hosts`. batch: clips of this host's batches."""

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
    """The clips of one example, or none, and the videos found broken on the way: pairs of path and reason."""

    index: int
    clips: Clips | None
    broken: tuple[tuple[str, str], ...]


def training_batches(
    dataset: Dataset, pixels: Pixels, share: Share, *, seed: int = 0, threads: int = 2, broken: Broken = "fail"
) -> "Loader":
    """Batches for ever: random clips of the examples in random order, all of them once an epoch over all hosts.

    broken: "fail" stops at the first video that cannot be used, or in which a clip meets damaged frames; "skip" takes
    other examples in the place of what cannot be used, drawn by the seed, and shows what is damaged as well as it can
    be, with a warning. Raises ValueError that names the argument; the loader raises BrokenVideoError.
    """
    import grain  # here, so that evaluating needs no extra

    _check(dataset, threads, broken)
    pixels = replace(pixels, refuse_damaged=broken == "fail")
    positions = grain.MapDataset.range(len(dataset.examples)).seed(seed).shuffle().repeat()
    record = partial(_training_record, dataset, pixels, seed, broken)
    records: Any = positions.map_with_index(record)[share.host :: share.hosts]
    return Loader(records.__getitem__, dataset, pixels, share.batch, views=1, threads=threads, steps=None)


def evaluation_batches(
    dataset: Dataset,
    pixels: Pixels,
    share: Share,
    *,
    views: int = 1,
    crops: int = 1,
    threads: int = 2,
    broken: Broken = "fail",
) -> "Loader":
    """Every example once, in order: `views` clips spread evenly in time, each cut `crops` times along the longer side.

    All hosts get equally many batches; an index of −1 fills them up and stands in the place of a video skipped.
    broken: "fail" stops at the first video that cannot be used. The transform is not applied.
    Raises ValueError that names the argument; the loader raises BrokenVideoError.
    """
    _check(dataset, threads, broken)
    for name, value in (("views", views), ("crops", crops)):
        if value < 1:
            raise ValueError(f"{name} is {value}: it must be at least 1")
    each = -(-len(dataset.examples) // share.hosts)  # records of a host
    pixels = replace(pixels, transform=None)

    def record(number: int) -> _Record:
        return _evaluation_record(dataset, pixels, views, crops, broken, share.host + number * share.hosts)

    steps = -(-each * views * crops // share.batch)
    return Loader(record, dataset, pixels, share.batch, views=views * crops, threads=threads, steps=steps, records=each)


class Loader:
    """An iterator of `Batch`. steps: how many there are, None: no end. broken: reason by path of the videos left out.

    state() and restore(state) are its position: after a restore comes what came after the state.
    """

    def __init__(
        self,
        record: Callable[[int], _Record],
        dataset: Dataset,
        pixels: Pixels,
        batch: int,
        *,
        views: int,
        threads: int,
        steps: int | None,
        records: int | None = None,
    ) -> None:
        """record: from a number to the clips of an example, in any thread. records: how many there are."""
        self.steps = steps
        self.broken: dict[str, str] = {}
        self._dataset, self._pixels, self._batch, self._views = dataset, pixels, batch, views
        # so far ahead that a batch is decoded while another is used
        self._ahead = max(threads, -(-2 * batch // views))
        self._record, self._count, self._threads = record, records, threads
        self._step = 0
        self._clips = self._clips_from(0)

    def __iter__(self) -> "Loader":
        return self

    def __enter__(self) -> "Loader":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __next__(self) -> Batch:
        if self.steps is not None and self._step >= self.steps:
            raise StopIteration
        sampling, pixels = self._pixels.sampling, self._pixels
        batch = Batch(
            video=np.zeros((self._batch, sampling.frames, pixels.height, pixels.width, 3), np.uint8),
            frames_valid=np.full(self._batch, sampling.frames, np.int32),
            labels=np.zeros((self._batch, sum(self._dataset.classes)), np.float32),
            index=np.full(self._batch, -1, np.int64),
            view=np.zeros(self._batch, np.int32),
        )
        for row, (record, view) in zip(range(self._batch), self._clips, strict=False):
            batch.view[row] = view
            if record.clips is not None:
                batch.video[row] = record.clips.video[view]
                batch.frames_valid[row] = record.clips.frames_valid[view]
                batch.labels[row] = label_vector(self._dataset, self._dataset.examples[record.index])
                batch.index[row] = record.index
        self._step += 1
        return batch

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep: plain numbers and strings."""
        return {"step": self._step, "batch": self._batch, "views": self._views, "broken": dict(self.broken)}

    def restore(self, state: dict[str, Any]) -> None:
        """Goes to the position of a state. Raises ValueError if it is of batches or views of another size."""
        for name, value in (("batch", self._batch), ("views", self._views)):
            if state.get(name) != value:
                raise ValueError(f"{name} is {state.get(name)} in the state: it must be {value}, as it was when saved")
        self._step, self.broken = int(state["step"]), dict(state["broken"])
        self._clips.close()
        self._clips = self._clips_from(self._step * self._batch)

    def close(self) -> None:
        """Stops the threads; what they are decoding is finished and dropped."""
        self._clips.close()

    def _clips_from(self, position: int) -> Generator[tuple[_Record, int], None, None]:
        """Pairs of a record and one of its views, from the clip of this number on."""
        number, used = divmod(position, self._views)
        numbers = count(number) if self._count is None else range(number, self._count)
        with closing(mapped(self._record, numbers, threads=self._threads, ahead=self._ahead)) as records:
            for record in records:
                for path, reason in record.broken:
                    if path not in self.broken:
                        self.broken[path] = reason
                        _log.warning("left out, %d so far: %s", len(self.broken), reason)
                yield from ((record, view) for view in range(used, self._views))
                used = 0


def _training_record(dataset: Dataset, pixels: Pixels, seed: int, broken: Broken, position: int, index: int) -> _Record:
    """The clip at a position of the shuffled, endless order, or the first that can be used in its place."""
    failures = []
    for attempt in range(ATTEMPTS):
        if attempt:
            index = int(np.random.default_rng((seed, position, attempt)).integers(len(dataset.examples)))
        generator = np.random.default_rng((seed, position, attempt, int(index)))
        try:
            return _Record(int(index), training_clip(pixels, dataset.examples[index], generator), tuple(failures))
        except BrokenVideoError as error:
            if broken == "fail":
                raise
            failures.append((error.path, str(error)))
    raise ValueError(f"{ATTEMPTS} videos one after the other cannot be used, the last: {failures[-1][1]}")


def _evaluation_record(dataset: Dataset, pixels: Pixels, views: int, crops: int, broken: Broken, index: int) -> _Record:
    if index >= len(dataset.examples):
        return _Record(-1, None, ())
    try:
        return _Record(int(index), evaluation_clips(pixels, dataset.examples[index], views, crops), ())
    except BrokenVideoError as error:
        if broken == "fail":
            raise
        return _Record(-1, None, ((error.path, str(error)),))


def _check(dataset: Dataset, threads: int, broken: Broken) -> None:
    if not dataset.examples:
        raise ValueError("the dataset has no example: it must have at least one")
    check_threads(threads)
    if broken not in get_args(Broken):
        raise ValueError(f"broken is {quoted(broken)}: it must be one of {', '.join(get_args(Broken))}")
