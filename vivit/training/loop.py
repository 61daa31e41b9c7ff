"""A training run from its first update to its last: data in, checkpoints and metrics out, killed and resumed at will.

What one update does is step.py's; what is kept is saving.py's; what a run chooses is recipe.py's and run.py's.
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

from vivit.checkpoints.report import Report
from vivit.checkpoints.save import save
from vivit.data.cache import Cache
from vivit.data.clips import BrokenVideoError
from vivit.data.directions import check_flips
from vivit.data.loading import Batch, Loader, Share, training_batches
from vivit.data.mixing import mixup, smooth
from vivit.data.sources import Dataset
from vivit.model import Model
from vivit.training import sharding
from vivit.training.best import SCORES, Best, best_of
from vivit.training.inputs import augmentation, training_pixels
from vivit.training.lock import locked
from vivit.training.logs import METRICS, TENSORBOARD, Logs
from vivit.training.recipe import Recipe, Steps, steps_of
from vivit.training.run import Run
from vivit.training.saving import Checkpoints
from vivit.training.step import Examples, TrainState, init_state, make_step
from vivit.training.stopping import Told, ToldToStop, told_to_stop

CHECKPOINTS, LAST, BEST = "checkpoints", "model", "best"  # folders of a run
MOST_PATHS, MOST_LETTERS = 4, 500  # of a batch, of an error, in a message

_log = logging.getLogger("vivit.training")


class DivergedError(ValueError):
    """The loss, its gradient or the weights are not finite any more."""


class InterruptedRunError(RuntimeError):
    """A signal came; the state has been saved. number: of the signal."""

    def __init__(self, told: str, number: int) -> None:
        super().__init__(told)
        self.number = number


class StoppedRunError(ValueError):
    """Something outside of the run failed, such as a disk or a video; what was whole has been saved."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known before the first update of a run, or of what is left of it.

    begin: updates done before. bytes: of each device's memory that an update takes, as the compiler says; where it says
    nothing (compiled is False), those of state and batch alone.
    """

    steps: Steps
    begin: int
    bytes: int
    compiled: bool


@dataclass(frozen=True, kw_only=True)
class Progress:
    """What is told after every update.

    figures: those of step.make_step, with clips_per_second, seconds, and waiting, the part of the time in which the
    step waited for its batch. validation: empty unless it was just done. best: the step of the best validation so far,
    0: there is none. broken: videos left out so far.
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

    It has the weights of the last update (their running average, if there is one).
    If run.folder holds checkpoints of this very run it goes on from the newest that is whole, and what follows is bit
    for bit what would have followed. validate: from a model and a step to figures that are logged with it. show, plan:
    are called after every update, and once before the first.
    Raises ValueError if choices, data and model do not fit together or another process works in the folder, and
    DivergedError with the step and the newest checkpoint if the loss, its gradient or weights that are to be saved are
    not finite. After any other fault the newest whole state is saved, and its error says where: InterruptedRunError
    after SIGTERM, SIGINT or SIGHUP, StoppedRunError for what is bad in data, disk or memory.
    """
    config = model.config
    if dataset.classes != config.classes:
        raise ValueError(f"classes is {config.classes}: the data have {dataset.classes}")
    if run.patience is not None and validate is None:
        raise ValueError(f"patience is {run.patience}: it needs a validation, and there is none")
    _check_folder(run.folder)
    if (warning := check_flips(augmentation(recipe), [name for names in dataset.names for name in names])) is not None:
        _log.warning("%s", warning)
    pictures = dict(resize=recipe.resize, crop=(recipe.crop, recipe.crop), stride=recipe.stride)
    model = replace(model, preprocessing=replace(model.preprocessing, **pictures))  # what it learns, it is to be given
    steps = steps_of(recipe, len(dataset.examples))
    mesh = None
    if (run.mesh or (jax.device_count(), 1, 1)) != (1, 1, 1):
        mesh = sharding.make_mesh(*(run.mesh or (jax.device_count(), 1, 1)))
    step = make_step(config, recipe, steps, mixup=mixup, smooth=smooth, mesh=mesh)
    with _loader(dataset, recipe, run, model, mesh) as loader, locked(run.folder), told_to_stop() as told:
        state = init_state(model.params, config, recipe, steps)
        if mesh is not None:
            state = sharding.place_state(state, config, mesh)
        with Checkpoints(run.folder / CHECKPOINTS, choices(model, dataset, recipe), keep=run.keep) as checkpoints:
            restored = checkpoints.restore(state)
            if restored is not None:
                state = restored.state
                loader.restore(restored.position)
            saved = None if restored is None else int(state.step)
            whole = _Whole(int(state.step), state, loader.state(), saved)
            course = _Course(model, dataset, recipe, run, steps, loader, checkpoints, told, validate, show, plan)
            try:
                course.go(whole, step, mesh)
                finished = trained(model, whole.state)
                if jax.process_index() == 0:
                    save(run.folder / LAST, finished)
                return finished
            except DivergedError:
                raise
            except Exception as error:
                raise _ended(error, whole, steps, run.folder, checkpoints) from error


@dataclass
class _Whole:
    """The newest state that can be saved, the updates that it has seen and the loader's position after them."""

    step: int
    state: TrainState
    position: dict[str, Any]
    saved: int | None = None  # the newest step that is known to be on the disk


@dataclass(frozen=True)
class _Course:
    """The updates one after the other, and what belongs to each.

    What can fail in one process alone of a cluster is kept until all of them agree to end, since all save together.
    """

    model: Model
    dataset: Dataset
    recipe: Recipe
    run: Run
    steps: Steps
    loader: Loader
    checkpoints: Checkpoints
    told: Told
    validate: Validate | None
    show: Callable[[Progress], None]
    plan: Callable[[Plan], None]

    def go(self, whole: _Whole, step: Callable[..., Any], mesh: jax.sharding.Mesh | None) -> None:
        """From `whole` to the last update, or to where patience ends. Everything is written when it returns."""
        total, begin, watch = self.steps.total, whole.step, _Watch(self.recipe.batch_size)
        with _logs(self.run, begin) as write:
            best = best_of(self.run.folder)
            fault, _ = self._validated(whole, best, write)  # if the run had ended before that was done
            coming = self._fetched() if whole.step < total and self._patient(best) else None
            while (batch := self._agreed(fault or coming)) is not None:
                position, examples = self.loader.state(), _examples(batch, self.model, self.recipe, mesh)
                if whole.step == begin:
                    self.plan(_planned(step, whole.state, examples, self.steps, begin))
                watch.begin()
                state, metrics = step(whole.state, examples)
                if whole.step + 1 < total:
                    with watch.waiting(metrics):
                        coming = self._fetched()
                else:
                    coming = None
                figures = watch.finish(metrics)
                _check_figures(figures, whole.step + 1, batch, self.dataset, self.checkpoints)
                whole.step, whole.state, whole.position = whole.step + 1, state, position
                fault, validation = self._logged(whole, figures, write), {}
                if fault is None and not isinstance(coming, Exception):
                    fault, validation = self._validated(whole, best, write)
                    coming = coming if self._patient(best) else None
                if fault is None and (whole.step % self.run.save_every == 0 or coming is None):
                    fault = self._saved(whole)
                told = Progress(
                    step=whole.step,
                    steps=self.steps,
                    figures=figures,
                    validation=validation,
                    best=best.step,
                    broken=len(self.loader.broken),
                )
                fault = fault or _fault_of(lambda told=told: self.show(told))
            self.checkpoints.wait()
            whole.saved = whole.step

    def _fetched(self) -> Batch | Exception:
        """The next batch, or why there is none."""
        try:
            with self.told.at_once(jax.process_count() == 1):
                return next(self.loader)
        except Exception as error:
            return error

    def _agreed(self, coming: Batch | Exception | None) -> Batch | None:
        """The batch, or None after the last, if no process has to end."""
        fault, number = isinstance(coming, Exception), self.told.number
        if jax.process_count() > 1:
            both = multihost_utils.process_allgather(np.array([fault, number])).reshape(-1, 2).max(axis=0)
            fault, number = bool(both[0]), int(both[1])
        if isinstance(coming, Exception):
            raise coming
        if fault:
            raise ValueError("another process of this cluster ended, whose message says why")
        if number and coming is not None:
            raise ToldToStop(number)
        return coming

    def _logged(self, whole: _Whole, figures: dict[str, float], write: Callable[..., None]) -> Exception | None:
        due = whole.step % self.run.log_every == 0 or whole.step == self.steps.total
        return _fault_of(lambda: write(whole.step, figures, "train")) if due else None

    def _validated(
        self, whole: _Whole, best: Best, write: Callable[..., None]
    ) -> tuple[Exception | None, dict[str, float]]:
        """The figures of a validation that is due and not done: logged, and the model is kept if it is the best."""
        every = self.run.validate_every or max(1, round(len(self.dataset.examples) / self.recipe.batch_size))
        due = whole.step > 0 and (whole.step == self.steps.total or whole.step % every == 0)
        validate = self.validate
        if validate is None or not due or whole.step == best.last:
            return None, {}
        model, figures = trained(self.model, whole.state), {}

        def work() -> None:
            with self.told.at_once(jax.process_count() == 1):
                figures.update(validate(model, whole.step))
            if self.run.patience is not None and not figures.keys() & set(SCORES):
                raise ValueError(f"patience needs one of {', '.join(SCORES)}: the validation has {', '.join(figures)}")
            write(whole.step, figures, "validation")
            better = best.better(whole.step, figures) or (best.step > 0 and not (self.run.folder / BEST).exists())
            if better and jax.process_index() == 0:
                save(self.run.folder / BEST, model)

        return _fault_of(work), figures

    def _patient(self, best: Best) -> bool:
        return self.run.patience is None or best.worse < self.run.patience

    def _saved(self, whole: _Whole) -> Exception | None:
        """Begins to save. Returns a fault if the folder was removed: the run must not go on beside another in it."""
        gone = [name for name in (CHECKPOINTS, METRICS) if not (self.run.folder / name).exists()]
        if gone and jax.process_index() == 0:
            return ValueError(f"{self.run.folder / gone[0]} was removed while the run needed it")
        if not _finite(whole.state):
            raise _diverged(f"weights are not finite after step {whole.step}: they must be", self.checkpoints)
        self.checkpoints.save(whole.step, whole.state, whole.position)
        return None


def _fault_of(work: Callable[[], None]) -> Exception | None:
    """What it raises."""
    try:
        work()
    except Exception as error:
        return error
    return None


def _ended(error: Exception, whole: _Whole, steps: Steps, folder: Path, checkpoints: Checkpoints) -> Exception:
    """Saves what is whole. Returns what to raise: one line that says what happened and where to go on from."""
    what = " ".join(str(error).split())[:MOST_LETTERS] or type(error).__name__
    kept = _rescued(what, whole, steps, folder, checkpoints)
    if isinstance(error, BrokenVideoError):
        what += "; --broken skip leaves such videos out"
    if isinstance(error, ToldToStop):
        return InterruptedRunError(f"{what}; {kept}", error.number)
    if isinstance(error, (ValueError, OSError, MemoryError, jax.errors.JaxRuntimeError)):
        return StoppedRunError(f"{what}; {kept}")
    error.add_note(kept)  # a mistake of the program
    return error


def _rescued(what: str, whole: _Whole, steps: Steps, folder: Path, checkpoints: Checkpoints) -> str:
    """Saves a state if it can be, and says what there is to go on from. what: was said already."""
    lost, why = any(leaf.is_deleted() for leaf in jax.tree.leaves(whole.state)), ""  # an update that failed took it
    try:
        if whole.saved != whole.step and whole.step and not lost and _finite(whole.state):
            checkpoints.rescue(whole.step, whole.state, whole.position)
            whole.saved = whole.step
    except OSError as failed:
        why = "" if str(failed) in what else f"; {failed}"
    if whole.saved is not None and whole.saved == whole.step:
        return f"saved at step {whole.step} of {steps.total}: the same command goes on from there, in {folder}"
    latest = checkpoints.latest()
    if latest is None:
        return f"no checkpoint was written in {folder}{why}"
    return f"the checkpoint of step {latest} is whole: the same command goes on from there, in {folder}{why}"


def _planned(step: Callable[..., Any], state: TrainState, examples: Examples, steps: Steps, begin: int) -> Plan:
    """What an update takes. It is compiled here, and not once more when it is called."""
    found = step.lower(state, examples).compile().memory_analysis()  # pyright: ignore[reportFunctionMemberAccess]
    if found is not None:
        bytes = found.argument_size_in_bytes + found.output_size_in_bytes - found.alias_size_in_bytes
        return Plan(steps=steps, begin=begin, bytes=bytes + found.temp_size_in_bytes, compiled=True)
    leaves = [jax.numpy.asarray(leaf) for leaf in jax.tree.leaves((state, examples))]
    parts = sum(leaf.addressable_shards[0].data.nbytes for leaf in leaves)
    return Plan(steps=steps, begin=begin, bytes=parts, compiled=False)


def _check_folder(folder: Path) -> None:
    """Raises ValueError if something in the run's folder, or the folder, is not what it will have to be."""
    for name in ("", CHECKPOINTS, TENSORBOARD, LAST, BEST):
        if (folder / name).exists() and not (folder / name).is_dir():
            raise ValueError(f"{folder / name} is a file: it must be a folder of a run, or not be there")
    if (folder / METRICS).exists() and not (folder / METRICS).is_file():
        raise ValueError(f"{folder / METRICS} is a folder: it must be a file of a run, or not be there")


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
        self.begin()

    def begin(self) -> None:
        """What happens before, such as compiling and validating, is no part of a step."""
        self._start, self._waited = time.perf_counter(), 0.0

    @contextmanager
    def waiting(self, metrics: dict[str, jax.Array]) -> Iterator[None]:
        """The next batch is fetched in here; if the device was done first, it may have waited all the time."""
        start = time.perf_counter()
        yield
        done = metrics["loss"].is_ready()  # pyright: ignore[reportAttributeAccessIssue]
        self._waited = time.perf_counter() - start if done else 0.0

    def finish(self, metrics: dict[str, jax.Array]) -> dict[str, float]:
        """The step's figures, when it is done."""
        figures = {name: float(value) for name, value in jax.device_get(metrics).items()}
        seconds = time.perf_counter() - self._start
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
