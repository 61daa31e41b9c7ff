"""Runs a training: reads batches, updates the model, writes checkpoints and metrics, resumes after a kill.

step.py has a single update, saving.py the checkpoints, recipe.py and run.py the options.
"""

import hashlib
import json
import logging
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

from vivit.checkpoints.save import save
from vivit.data.augmentation import check_flips
from vivit.data.clips import BrokenVideoError
from vivit.data.loading import Batch, Loader, Share, training_batches
from vivit.data.mixing import mixup, smooth
from vivit.data.sources import Dataset
from vivit.model_data import Report
from vivit.pretrained import Model
from vivit.training import sharding
from vivit.training.lock import locked
from vivit.training.logs import METRICS, TENSORBOARD, Logs
from vivit.training.recipe import Recipe, Steps, schedule_steps
from vivit.training.run import Run
from vivit.training.saving import Checkpoints
from vivit.training.step import Examples, TrainState, init_state, make_step
from vivit.training.stopping import StopListener, StopSignalReceived, listen_for_stop_signals
from vivit.training.transforms import augmentation, train_transform, training_spec
from vivit.training.validation import SCORES, Best, read_best
from vivit.video.cache import Cache

CHECKPOINTS, LAST, BEST = "checkpoints", "model", "best"  # folders in a run's folder
MAX_PATHS, MAX_LETTERS = 4, 500  # limits of a message: paths of a batch, characters of an error

_log = logging.getLogger("vivit.training")


class DivergedError(ValueError):
    """The loss, its gradient or the weights are no longer finite."""


class InterruptedRunError(RuntimeError):
    """A signal ended the run; the state has been saved. number: of the signal."""

    def __init__(self, message: str, number: int) -> None:
        super().__init__(message)
        self.number = number


class StoppedRunError(ValueError):
    """An external fault ended the run, such as a full disk; the newest complete state has been saved."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known of a run before its first update, or before the first after a resume.

    begin: number of updates already done. bytes: memory of one update per device, as the compiler reports it; if the
    compiler reports nothing (compiled is False), the memory of state and batch alone.
    """

    steps: Steps
    begin: int
    bytes: int
    compiled: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    """The state of a run after an update.

    figures: the metrics of step.make_step, and clips_per_second, seconds, and waiting, the fraction of the time that
    the step waited for its batch. validation: empty unless this update was followed by a validation. best: the step of
    the best validation so far, 0 if there is none. broken: number of videos left out so far.
    """

    step: int
    steps: Steps
    figures: dict[str, float]
    validation: dict[str, float]
    best: int
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
    plan: Callable[[Plan], None] = lambda plan: None,
) -> Model:
    """Trains a model, writes it to run.folder/model and returns it.

    The returned model has the weights of the last update, or their running average if the recipe has one. If run.folder
    holds checkpoints of the same run, training resumes from the newest complete one, and the result is bit for bit that
    of an uninterrupted run.

    validate: maps a model and a step to figures, which are logged with the step. show: called after every update. plan:
    called once, before the first update.

    Raises ValueError if options, data and model disagree or another process uses the folder. Raises DivergedError with
    the step and the newest checkpoint if the loss, its gradient or weights to be saved are not finite. After any other
    fault the newest complete state is saved, and the error says where: InterruptedRunError after SIGTERM, SIGINT or
    SIGHUP, StoppedRunError for faults in data, disk or memory.
    """
    config = model.config
    if dataset.classes != config.classes:
        raise ValueError(f"classes is {config.classes}: the data have {dataset.classes}")
    if run.patience is not None and validate is None:
        raise ValueError(f"patience is {run.patience}: it requires a validation, but validate is None")
    _check_folder(run.folder)
    if (warning := check_flips(augmentation(recipe), [name for names in dataset.names for name in names])) is not None:
        _log.warning("%s", warning)
    sizes = dict(resize=recipe.resize, crop=(recipe.crop, recipe.crop), stride=recipe.stride)
    # inference must use the training's sizes and stride
    model = replace(model, preprocessing=replace(model.preprocessing, **sizes))
    steps = schedule_steps(recipe, len(dataset.examples))
    mesh = None
    if (run.mesh or (jax.device_count(), 1, 1)) != (1, 1, 1):
        mesh = sharding.make_mesh(*(run.mesh or (jax.device_count(), 1, 1)))
    step = make_step(config, recipe, steps, mixup=mixup, smooth=smooth, mesh=mesh)
    with _loader(dataset, recipe, run, model, mesh) as loader, locked(run.folder), listen_for_stop_signals() as signals:
        state = init_state(model.params, config, recipe, steps)
        if mesh is not None:
            state = sharding.shard_state(state, config, mesh)
        with Checkpoints(run.folder / CHECKPOINTS, run_identity(model, dataset, recipe), keep=run.keep) as checkpoints:
            restored = checkpoints.restore(state)
            if restored is not None:
                state = restored.state
                loader.restore(restored.position)
            saved = None if restored is None else int(state.step)
            snapshot = _Snapshot(int(state.step), state, loader.state(), saved)
            run_loop = _RunLoop(model, dataset, recipe, run, steps, loader, checkpoints, signals, validate, show, plan)
            try:
                run_loop.go(snapshot, step, mesh)
                finished = trained_model(model, snapshot.state)
                if jax.process_index() == 0:
                    save(finished, run.folder / LAST)
                return finished
            except DivergedError:
                raise
            except Exception as error:
                raise _final_error(error, snapshot, steps, run.folder, checkpoints) from error


@dataclass
class _Snapshot:
    """The newest state that can be saved, its number of updates and the loader's position after them."""

    step: int
    state: TrainState
    position: dict[str, Any]
    saved: int | None = None  # the newest step that is known to be on disk


@dataclass(frozen=True)
class _RunLoop:
    """Runs the updates in order, with logging, validation and checkpoints.

    All processes of a cluster save together. So a fault in one process is kept until all processes have agreed to stop.
    """

    model: Model
    dataset: Dataset
    recipe: Recipe
    run: Run
    steps: Steps
    loader: Loader
    checkpoints: Checkpoints
    signals: StopListener
    validate: Validate | None
    show: Callable[[Progress], None]
    plan: Callable[[Plan], None]

    def go(self, snapshot: _Snapshot, step: Callable[..., Any], mesh: jax.sharding.Mesh | None) -> None:
        """Trains from `snapshot` to the last update, or until patience ends the run.

        Returns when all files are written.
        """
        total, begin, watch = self.steps.total, snapshot.step, _StepTimer(self.recipe.batch_size)
        with _logs(self.run, begin) as write:
            best = read_best(self.run.folder)
            fault, _ = self._validate_if_due(snapshot, best, write)  # the run may have ended before this validation
            next_batch = self._fetch() if snapshot.step < total and self._has_patience(best) else None
            while (batch := self._agree(fault or next_batch)) is not None:
                position, examples = self.loader.state(), _examples(batch, self.model, self.recipe, mesh)
                if snapshot.step == begin:
                    self.plan(_plan(step, snapshot.state, examples, self.steps, begin))
                watch.begin()
                state, metrics = step(snapshot.state, examples)
                if snapshot.step + 1 < total:
                    with watch.waiting(metrics):
                        next_batch = self._fetch()
                else:
                    next_batch = None
                figures = watch.finish(metrics)
                _check_figures(figures, snapshot.step + 1, batch, self.dataset, self.checkpoints)
                snapshot.step, snapshot.state, snapshot.position = snapshot.step + 1, state, position
                fault, validation = self._log_metrics(snapshot, figures, write), {}
                if fault is None and not isinstance(next_batch, Exception):
                    fault, validation = self._validate_if_due(snapshot, best, write)
                    next_batch = next_batch if self._has_patience(best) else None
                if fault is None and (snapshot.step % self.run.save_every == 0 or next_batch is None):
                    fault = self._save(snapshot)
                progress = Progress(
                    step=snapshot.step,
                    steps=self.steps,
                    figures=figures,
                    validation=validation,
                    best=best.step,
                    broken=len(self.loader.broken),
                )
                fault = fault or _error_of(lambda progress=progress: self.show(progress))
            self.checkpoints.wait()
            snapshot.saved = snapshot.step

    def _fetch(self) -> Batch | Exception:
        """Returns the next batch, or the exception that prevents it."""
        try:
            with self.signals.interruptible(jax.process_count() == 1):
                return next(self.loader)
        except Exception as error:
            return error

    def _agree(self, next_batch: Batch | Exception | None) -> Batch | None:
        """Returns the batch, or None after the last one.

        Raises in all processes if one has a fault or received a signal.
        """
        fault, number = isinstance(next_batch, Exception), self.signals.number
        if jax.process_count() > 1:
            both = multihost_utils.process_allgather(np.array([fault, number])).reshape(-1, 2).max(axis=0)
            fault, number = bool(both[0]), int(both[1])
        if isinstance(next_batch, Exception):
            raise next_batch
        if fault:
            raise ValueError("another process of this cluster failed: see its error message")
        if number and next_batch is not None:
            raise StopSignalReceived(number)
        return next_batch

    def _log_metrics(
        self, snapshot: _Snapshot, figures: dict[str, float], write: Callable[..., None]
    ) -> Exception | None:
        """Logs the figures of an update if they are due. Returns the exception if that fails."""
        due = snapshot.step % self.run.log_every == 0 or snapshot.step == self.steps.total
        return _error_of(lambda: write(snapshot.step, figures, "train")) if due else None

    def _validate_if_due(
        self, snapshot: _Snapshot, best: Best, write: Callable[..., None]
    ) -> tuple[Exception | None, dict[str, float]]:
        """Validates if that is due and not yet done: logs the figures, and saves the model if it is the best so far."""
        every = self.run.validate_every or max(1, round(len(self.dataset.examples) / self.recipe.batch_size))
        due = snapshot.step > 0 and (snapshot.step == self.steps.total or snapshot.step % every == 0)
        validate = self.validate
        if validate is None or not due or snapshot.step == best.last:
            return None, {}
        model, figures = trained_model(self.model, snapshot.state), {}

        def work() -> None:
            with self.signals.interruptible(jax.process_count() == 1):
                figures.update(validate(model, snapshot.step))
            if self.run.patience is not None and not figures.keys() & set(SCORES):
                raise ValueError(f"patience needs one of {', '.join(SCORES)}: the validation has {', '.join(figures)}")
            write(snapshot.step, figures, "validation")
            better = best.update(snapshot.step, figures) or (best.step > 0 and not (self.run.folder / BEST).exists())
            if better and jax.process_index() == 0:
                save(model, self.run.folder / BEST)

        return _error_of(work), figures

    def _has_patience(self, best: Best) -> bool:
        return self.run.patience is None or best.since_best < self.run.patience

    def _save(self, snapshot: _Snapshot) -> Exception | None:
        """Starts to save. Returns a fault if the folder was removed, since another run may now be using its path."""
        gone = [name for name in (CHECKPOINTS, METRICS) if not (self.run.folder / name).exists()]
        if gone and jax.process_index() == 0:
            return ValueError(f"{self.run.folder / gone[0]} was removed while the run needed it")
        if not _finite(snapshot.state):
            raise _diverged(f"weights are not finite after step {snapshot.step}: they must be", self.checkpoints)
        self.checkpoints.save(snapshot.step, snapshot.state, snapshot.position)
        return None


def _error_of(work: Callable[[], None]) -> Exception | None:
    """Calls a function and returns the exception that it raises, or None."""
    try:
        work()
    except Exception as error:
        return error
    return None


def _final_error(
    error: Exception, snapshot: _Snapshot, steps: Steps, folder: Path, checkpoints: Checkpoints
) -> Exception:
    """Saves the newest complete state. Returns the exception to raise, with the fault and the step to resume from."""
    what = " ".join(str(error).split())[:MAX_LETTERS] or type(error).__name__
    resume_note = _rescue(what, snapshot, steps, folder, checkpoints)
    if isinstance(error, BrokenVideoError):
        what += "; --broken skip leaves such videos out"
    if isinstance(error, StopSignalReceived):
        return InterruptedRunError(f"{what}; {resume_note}", error.number)
    if isinstance(error, (ValueError, OSError, MemoryError, jax.errors.JaxRuntimeError)):
        return StoppedRunError(f"{what}; {resume_note}")
    error.add_note(resume_note)  # a bug
    return error


def _rescue(what: str, snapshot: _Snapshot, steps: Steps, folder: Path, checkpoints: Checkpoints) -> str:
    """Saves a state if possible. Returns the part of an error message that names the checkpoint to resume from.

    what: the fault already reported.
    """
    lost = any(leaf.is_deleted() for leaf in jax.tree.leaves(snapshot.state))  # donated to a failed update
    why = ""
    try:
        if snapshot.saved != snapshot.step and snapshot.step and not lost and _finite(snapshot.state):
            checkpoints.rescue(snapshot.step, snapshot.state, snapshot.position)
            snapshot.saved = snapshot.step
    except OSError as failed:
        why = "" if str(failed) in what else f"; {failed}"
    if snapshot.saved is not None and snapshot.saved == snapshot.step:
        return f"saved at step {snapshot.step} of {steps.total}: the same command resumes from there, in {folder}"
    latest = checkpoints.latest()
    if latest is None:
        return f"no checkpoint was written in {folder}{why}"
    return f"the checkpoint of step {latest} is whole: the same command resumes from there, in {folder}{why}"


def _plan(step: Callable[..., Any], state: TrainState, examples: Examples, steps: Steps, begin: int) -> Plan:
    """Returns the memory of an update. The step is compiled here, and not again when it is called."""
    found = step.lower(state, examples).compile().memory_analysis()  # pyright: ignore[reportFunctionMemberAccess]
    if found is not None:
        bytes = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return Plan(steps=steps, begin=begin, bytes=bytes + found.temp_size_in_bytes, compiled=True)
    leaves = [jax.numpy.asarray(leaf) for leaf in jax.tree.leaves((state, examples))]
    parts = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    return Plan(steps=steps, begin=begin, bytes=parts, compiled=False)


def _check_folder(folder: Path) -> None:
    """Raises ValueError if the run's folder, or an entry of it, is a file instead of a folder or vice versa."""
    for name in ("", CHECKPOINTS, TENSORBOARD, LAST, BEST):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise ValueError(f"{folder / name} is a file: it must be a folder of a run, or not be there")
    if (folder / METRICS).exists() and not (folder / METRICS).is_file():
        raise ValueError(f"{folder / METRICS} is a folder: it must be a file of a run, or not be there")


def trained_model(model: Model, state: TrainState) -> Model:
    """Returns the model with the weights of a state, or with their running average if there is one."""
    params = state.params if state.ema is None else state.ema
    if jax.process_count() > 1:
        params = multihost_utils.process_allgather(params, tiled=True)
    # a copy on one device of this process: the next update donates the state's memory
    params = jax.device_put(jax.tree.map(np.array, params), jax.local_devices()[0])
    return replace(model, params=params, report=Report(notes=(f"trained for {int(state.step)} steps",)))


def run_identity(model: Model, dataset: Dataset, recipe: Recipe) -> dict[str, Any]:
    """Returns, as JSON data, what must stay the same when a run resumes: model, recipe, preprocessing and examples."""
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
    """Returns the loader of this process's rows of every batch."""
    spec = training_spec(recipe, model.config, None if run.cache is None else Cache(run.cache))
    rows = slice(0, recipe.batch_size) if mesh is None else sharding.local_rows(recipe.batch_size, mesh)
    size = rows.stop - rows.start
    share = Share(batch=size, host=rows.start // size, hosts=recipe.batch_size // size)
    return training_batches(
        dataset,
        spec,
        share,
        transform=train_transform(recipe, model.config),
        seed=recipe.seed,
        threads=run.threads,
        broken=run.broken,
    )


@contextmanager
def _logs(run: Run, step: int) -> Iterator[Callable[..., None]]:
    """Yields Logs.write in the first process. The other processes have the same figures and write nothing."""
    if jax.process_index() > 0:
        yield lambda *_: None
        return
    with Logs(run.folder, step) as logs:
        yield logs.write


def _examples(batch: Batch, model: Model, recipe: Recipe, mesh: jax.sharding.Mesh | None) -> Examples:
    """Returns a batch as the training step takes it, on the mesh if there is one."""
    video = np.asarray(model.preprocessed(batch.video))
    examples = Examples(video, batch.labels, batch.frames_valid if recipe.short == "pad" else None)
    return examples if mesh is None else sharding.shard_examples(examples, mesh)


class _StepTimer:
    """Measures how long steps take, and how long the device may have waited for the next batch."""

    def __init__(self, batch_size: int) -> None:
        self._batch_size = batch_size
        self.begin()

    def begin(self) -> None:
        """Starts the clock, so that compiling and validating are not counted."""
        self._start, self._waited = time.perf_counter(), 0.0

    @contextmanager
    def waiting(self, metrics: dict[str, jax.Array]) -> Iterator[None]:
        """Times the fetching of the next batch.

        Counts it as waiting if the device finished before the batch arrived.
        """
        start = time.perf_counter()
        yield
        done = metrics["loss"].is_ready()  # pyright: ignore[reportAttributeAccessIssue]
        self._waited = time.perf_counter() - start if done else 0.0

    def finish(self, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """Waits for the step and returns its figures."""
        figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
        seconds = time.perf_counter() - self._start
        return figures | {
            "clips_per_second": self._batch_size / seconds,
            "waiting": self._waited / seconds,
            "seconds": seconds,
        }


def _diverged(fault: str, checkpoints: Checkpoints) -> DivergedError:
    """Returns the error that names what is not finite, and the checkpoint to resume from."""
    checkpoints.wait()
    latest = checkpoints.latest()
    resume_note = "no checkpoint was written before" if latest is None else f"the checkpoint of step {latest} is whole"
    return DivergedError(f"{fault}; {resume_note}")


def _check_figures(
    figures: dict[str, float], done: int, batch: Batch, dataset: Dataset, checkpoints: Checkpoints
) -> None:
    """Raises DivergedError if the loss or the gradient norm of this step is not finite."""
    if np.isfinite(figures["loss"]) and np.isfinite(figures["gradient_norm"]):
        return
    paths = [dataset.examples[index].path for index in batch.index if index >= 0]
    listed = ", ".join(paths[:MAX_PATHS]) + (f" and {len(paths) - MAX_PATHS} more" if len(paths) > MAX_PATHS else "")
    raise _diverged(
        f"loss is {figures['loss']:g} and gradient_norm {figures['gradient_norm']:g} at step {done}: they must be "
        f"finite; its examples are {listed}",
        checkpoints,
    )


@jax.jit
def _finite(state: TrainState) -> jax.Array:
    """Returns whether every number of a state is finite."""
    floats = [leaf for leaf in jax.tree.leaves(state) if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all()
