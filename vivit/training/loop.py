"""A training run from its first update to its last: data in, checkpoints and metrics out, killed and resumed at will.

What one update does is step.py's; what is kept is saving.py's; what a run chooses is recipe.py's.
"""

import hashlib
import json
import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vivit.checkpoints.report import Report
from vivit.data.cache import Cache
from vivit.data.directions import check_flips
from vivit.data.loading import Batch, Broken, Loader, Share, training_batches
from vivit.data.mixing import mixup, smooth
from vivit.data.sources import Dataset
from vivit.model import Model
from vivit.training import sharding
from vivit.training.inputs import augmentation, training_pixels
from vivit.training.logs import Logs
from vivit.training.recipe import Recipe, Steps, steps_of
from vivit.training.saving import Checkpoints
from vivit.training.step import Examples, TrainState, init_state, make_step

MOST_PATHS = 4  # of a batch, in a message

_log = logging.getLogger("vivit.training")


@dataclass(frozen=True, kw_only=True)
class Run:
    """Where and on what a training runs: nothing here changes what is learned, so that it may change on a resume.

    folder: receives checkpoints/, metrics.jsonl, TensorBoard's files and, at the end, model/. save_every, log_every:
    steps. keep: checkpoints. validate_every: steps; None: after each epoch and at the end. mesh: devices along data,
    sequence and model, (1, 1, 1): the first alone; None: all along data. threads: that decode. broken: "fail" or
    "skip" videos that cannot be used; what is damaged fails or is used as it is (loading.training_batches).
    cache: a folder for decoded frames. Raises ValueError, naming the field and the requirement.
    """

    folder: Path
    save_every: int = 500
    log_every: int = 10
    keep: int = 3
    validate_every: int | None = None
    mesh: tuple[int, int, int] | None = None
    threads: int = 2
    broken: Broken = "fail"
    cache: Path | None = None

    def __post_init__(self) -> None:
        for name in ("save_every", "log_every", "keep", "threads", "validate_every"):
            value = getattr(self, name)
            if not (name == "validate_every" and value is None) and (type(value) is not int or value < 1):
                raise ValueError(f"{name} is {value!r}: it must be a positive integer")


class DivergedError(ValueError):
    """The loss, its gradient or the weights are not finite any more."""


class InterruptedRunError(RuntimeError):
    """SIGTERM came; the state has been saved."""


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is told after every update.

    figures: those of step.make_step, with clips_per_second, seconds, and waiting, the part of the time in which the
    step waited for its batch. validation: empty unless it was just done. broken: videos left out so far.
    """

    step: int
    steps: Steps
    figures: dict[str, float]
    validation: dict[str, float]
    broken: int


Validate = Callable[[Model, int], dict[str, float]]


def train(
    model: Model,
    dataset: Dataset,
    recipe: Recipe,
    run: Run,
    *,
    validate: Validate | None = None,
    show: Callable[[Progress], None] = lambda progress: None,
) -> Model:
    """Trains a model and returns it with the weights of the last update (their running average, if there is one).

    If run.folder holds checkpoints of this very run it goes on from the newest that is whole, and what follows is bit
    for bit what would have followed. validate: from a model and a step to figures that are logged with it.
    Raises ValueError if choices, data and model do not fit together, DivergedError with the step and the newest
    checkpoint if the loss, its gradient or weights that are to be saved are not finite, BrokenVideoError, OSError if a
    checkpoint cannot be written, and InterruptedRunError after SIGTERM, when the state has been saved.
    """
    config = model.config
    if dataset.classes != config.classes:
        raise ValueError(f"classes is {config.classes}: the data have {dataset.classes}")
    if (warning := check_flips(augmentation(recipe), [name for names in dataset.names for name in names])) is not None:
        _log.warning("%s", warning)
    pictures = dict(resize=recipe.resize, crop=(recipe.crop, recipe.crop), stride=recipe.stride)
    model = replace(model, preprocessing=replace(model.preprocessing, **pictures))  # what it learns, it is to be given
    steps = steps_of(recipe, len(dataset.examples))
    mesh = None
    if (run.mesh or (jax.device_count(), 1, 1)) != (1, 1, 1):
        mesh = sharding.make_mesh(*(run.mesh or (jax.device_count(), 1, 1)))
    state = init_state(model.params, config, recipe, steps)
    if mesh is not None:
        state = sharding.place_state(state, config, mesh)
    step = make_step(config, recipe, steps, mixup=mixup, smooth=smooth, mesh=mesh)
    with (
        _loader(dataset, recipe, run, model, mesh) as loader,
        Checkpoints(run.folder / "checkpoints", choices(model, dataset, recipe), keep=run.keep) as checkpoints,
        _told_to_stop() as told,
    ):
        restored = checkpoints.restore(state)
        if restored is not None:
            state = restored.state
            loader.restore(restored.position)
        with _logs(run, int(state.step)) as write:
            done, watch = int(state.step), _Watch(recipe.batch_size)
            coming = next(loader) if done < steps.total else None
            while coming is not None:
                batch, position = coming, loader.state()
                state, metrics = step(state, _examples(batch, model, recipe, mesh))
                done += 1
                coming = watch.while_it_runs(loader, metrics) if done < steps.total else None
                figures = watch.finish(metrics)
                _check_figures(figures, done, batch, dataset, checkpoints)
                last = done == steps.total
                if done % run.log_every == 0 or last:
                    write(done, figures, "train")
                validation = {}
                if validate is not None and (last or done % _validate_every(run, recipe, dataset) == 0):
                    validation = validate(trained(model, state), done)
                    write(done, validation, "validation")
                show(
                    Progress(step=done, steps=steps, figures=figures, validation=validation, broken=len(loader.broken))
                )
                stop = _any(told) if done % run.log_every == 0 or jax.process_count() == 1 else False
                if done % run.save_every == 0 or last or stop:
                    if not _finite(state):
                        raise _diverged(f"weights are not finite after step {done}: they must be", checkpoints)
                    checkpoints.save(done, state, position)
                if stop and not last:
                    checkpoints.wait()
                    raise InterruptedRunError(f"told to stop: saved at step {done} of {steps.total} in {run.folder}")
    return trained(model, state)


def trained(model: Model, state: TrainState) -> Model:
    """The model with a state's weights: their running average, if there is one."""
    params = state.params if state.ema is None else state.ema
    if jax.process_count() > 1:
        params = multihost_utils.process_allgather(params, tiled=True)
    # a copy on one device of this process: the next update gives the state's memory away
    params = jax.device_put(jax.tree.map(np.array, params), jax.local_devices()[0])
    return replace(model, params=params, report=Report(notes=(f"trained for {int(state.step)} steps",)))


def choices(model: Model, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """What a run must not change between its parts, as JSON data: model, recipe, preprocessing and examples."""
    listed = "\n".join(repr(example) for example in dataset.examples)
    return json.loads(
        json.dumps(
            {
                **{f"config.{name}": value for name, value in asdict(model.config).items()},
                **{f"recipe.{name}": value for name, value in asdict(recipe).items()},
                **{f"preprocessing.{name}": value for name, value in asdict(model.preprocessing).items()},
                "examples": len(dataset.examples),
                "examples' digest": hashlib.sha256(listed.encode()).hexdigest()[:16],
                "labels": [list(names) for names in dataset.names],
            }
        )
    )


def _loader(dataset: Dataset, recipe: Recipe, run: Run, model: Model, mesh: jax.sharding.Mesh | None) -> Loader:
    """This process's rows of every batch."""
    pixels = training_pixels(recipe, model.config, None if run.cache is None else Cache(run.cache))
    rows = slice(0, recipe.batch_size) if mesh is None else sharding.rows(recipe.batch_size, mesh)
    size = rows.stop - rows.start
    share = Share(batch=size, host=rows.start // size, hosts=recipe.batch_size // size)
    return training_batches(dataset, pixels, share, seed=recipe.seed, threads=run.threads, broken=run.broken)


@contextmanager
def _logs(run: Run, step: int) -> Iterator[Callable[..., None]]:
    """Logs.write of the first process; the others' figures are the same, and are not written twice."""
    if jax.process_index() > 0:
        yield lambda *_: None
        return
    with Logs(run.folder, step) as logs:
        yield logs.write


def _examples(batch: Batch, model: Model, recipe: Recipe, mesh: jax.sharding.Mesh | None) -> Examples:
    video = np.asarray(model.preprocessed(batch.video))
    examples = Examples(video, batch.labels, batch.frames_valid if recipe.short == "pad" else None)
    return examples if mesh is None else sharding.place_examples(examples, mesh)


class _Watch:
    """How long steps take, and how much of that the device may have waited for the next batch."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self._start, self._waited = time.perf_counter(), 0.0

    def while_it_runs(self, loader: Loader, metrics: dict[str, jax.Array]) -> Batch:
        """The next batch, fetched while the device works; if that was done first, it may have waited all the time."""
        start = time.perf_counter()
        batch = next(loader)
        done = metrics["loss"].is_ready()  # pyright: ignore[reportAttributeAccessIssue]
        self._waited = time.perf_counter() - start if done else 0.0
        return batch

    def finish(self, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """The step's figures, when it is done."""
        figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
        end = time.perf_counter()
        seconds, self._start = end - self._start, end
        return figures | {
            "clips_per_second": self._batch_size / seconds,
            "waiting": self._waited / seconds,
            "seconds": seconds,
        }


def _diverged(told: str, checkpoints: Checkpoints) -> DivergedError:
    """What is not finite and where, and which checkpoint there is to go on from."""
    checkpoints.wait()
    latest = checkpoints.latest()
    kept = "no checkpoint was written before" if latest is None else f"the checkpoint of step {latest} is whole"
    return DivergedError(f"{told}; {kept}")


def _check_figures(
    figures: dict[str, float], done: int, batch: Batch, dataset: Dataset, checkpoints: Checkpoints
) -> None:
    """Raises DivergedError if the loss or the gradient of this step is not finite."""
    if np.isfinite(figures["loss"]) and np.isfinite(figures["gradient_norm"]):
        return
    paths = [dataset.examples[index].path for index in batch.index if index >= 0]
    told = ", ".join(paths[:MOST_PATHS]) + (f" and {len(paths) - MOST_PATHS} more" if len(paths) > MOST_PATHS else "")
    raise _diverged(
        f"loss is {figures['loss']:g} and gradient_norm {figures['gradient_norm']:g} at step {done}: they must be "
        f"finite; its examples are {told}",
        checkpoints,
    )


@jax.jit
def _finite(state: TrainState) -> jax.Array:
    """Whether every number of a state is."""
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()


def _validate_every(run: Run, recipe: Recipe, dataset: Dataset) -> int:
    return run.validate_every or max(1, round(len(dataset.examples) / recipe.batch_size))


@contextmanager
def _told_to_stop() -> Iterator[threading.Event]:
    """An event that SIGTERM sets, while it lasts; signals are only heard in a program's main thread."""
    told = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield told
        return
    before = signal.signal(signal.SIGTERM, lambda *_: told.set())
    try:
        yield told
    finally:
        signal.signal(signal.SIGTERM, before)


def _any(told: threading.Event) -> bool:
    """Whether any process was told to stop; all must agree, since all save together."""
    if jax.process_count() == 1:
        return told.is_set()
    return bool(multihost_utils.process_allgather(np.array(told.is_set())).any())
