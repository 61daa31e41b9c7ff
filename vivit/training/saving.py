"""Checkpoints of a training run: the whole state and the loader's position, written in the background, whole or not.

Orbax writes them; what is added here is that a run goes on only with the choices it began with, and that what is read
is what was written: every array's sum over its bits is kept beside it.
"""

import contextlib
import logging
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from vivit.training.step import TrainState

MOST_LETTERS = 200  # of what the library says

_log = logging.getLogger("vivit.training")


class Restored(NamedTuple):
    """What a run goes on from."""

    state: TrainState
    position: dict[str, Any]  # the loader's


class Checkpoints:
    """The checkpoints of one run in a folder, the newest `keep` of them.

    choices: what a run must not change, as JSON data by name. Raises ValueError if the folder is a file.
    """

    def __init__(self, folder: Path, choices: dict[str, Any], *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: it must be at least 1")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: it must be a folder, or not be there")
        self._folder, self._choices, self._shown = folder.absolute(), choices, folder
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            # else a folder that cannot be made is found by a thread for which others wait twenty minutes
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Begins to write; the state may be changed as soon as this returns.

        Raises OSError, naming the folder, if this or the checkpoint before it could not be written.
        """
        more = {"choices": self._choices, "position": position, "sums": _sums(state)}
        state = jax.tree.map(jnp.copy, state)  # the next update gives the arrays' memory away
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), more=ocp.args.JsonSave(more))
        self._attempt(lambda: self._manager.save(step, args=args, force=True))

    def wait(self) -> None:
        """Returns when all is written. Raises OSError as save does."""
        self._attempt(self._manager.wait_until_finished)

    def rescue(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Writes a state unless it is there, whatever became of the checkpoints before it. Raises OSError as save does.

        The library remembers what failed and what was removed from outside, so it begins anew.
        """
        with contextlib.suppress(Exception):  # what did not succeed before
            self._manager.close()
        if self.latest() != step:
            self._attempt(self._begin_anew)
            self.save(step, state, position)
            self.wait()

    def _begin_anew(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def latest(self) -> int | None:
        """The newest step that there is a checkpoint of, whole or not; asked of the disk, whatever became of it."""
        steps = (int(path.name) for path in self._folder.glob("*") if path.name.isdigit())
        return max(steps, default=None)

    def restore(self, like: TrainState) -> Restored | None:
        """The newest checkpoint that can be read; None if there is none. Broken ones are put aside with a warning.

        like: a state of the same shapes on the devices that it is to be on. Raises ValueError if the run's choices
        were others, or if every checkpoint is broken.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._read(step, like)
            except ChangedRunError:
                raise
            except Exception as error:  # a damaged file can fail anywhere below
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                _log.warning("the checkpoint of step %d is broken and put aside: %s", step, reason[:MOST_LETTERS])
                self._put_aside(step)
        if steps:
            raise ValueError(f"{self._folder} has no checkpoint that can be read: of steps {steps} all are broken")
        return None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Waits and lets go. Raises OSError as save does, unless something else went wrong before."""
        try:
            self._attempt(self._manager.close)
        except OSError:
            if kind is None:
                raise

    def _read(self, step: int, like: TrainState) -> Restored:
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        more = self._part(step, more=ocp.args.JsonRestore())
        self._check_choices(more["choices"])
        state = self._part(step, state=ocp.args.StandardRestore(shapes))
        if _sums(state) != more["sums"]:
            raise ValueError("its arrays are not those that were written")
        return Restored(state, more["position"])

    def _part(self, step: int, **wanted: Any) -> Any:
        """The one part of a checkpoint that is wanted."""
        (name,) = wanted
        return self._manager.restore(step, args=ocp.args.Composite(**wanted))[name]

    def _put_aside(self, step: int) -> None:
        aside = self._folder / f"broken-{step}"
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            (self._folder / str(step)).rename(aside)
        self._manager.reload()

    def _check_choices(self, before: dict[str, Any]) -> None:
        changed = [name for name in {**before, **self._choices} if before.get(name) != self._choices.get(name)]
        if changed:
            told = "; ".join(f"{name} was {before.get(name)!r} and is {self._choices.get(name)!r}" for name in changed)
            raise ChangedRunError(f"{self._folder} is of another run: {told}; name another folder, or what it was")

    def _attempt(self, work) -> None:
        try:
            work()
        except Exception as error:  # the background thread's own, or the library's around it
            known = (one.strerror for one in _causes(error) if isinstance(one, OSError))
            reason = next(filter(None, known), " ".join(str(error).split()) or type(error).__name__)
            if (number := re.search(r"os_error_code='(\d+)'", reason)) is not None:  # TensorStore's
                reason = os.strerror(int(number[1]))
            if reason.startswith("NOT_FOUND"):  # TensorStore's too
                reason = "it was removed while the run needed it"
            raise OSError(f"a checkpoint in {self._shown} could not be written: {reason[:MOST_LETTERS]}") from error


def quiet() -> None:
    """Nothing but our errors is said of checkpoints that cannot be written: for a program, not for a library's user.

    Orbax logs a traceback for each of its threads, and its event loops' futures complain when they are gone.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            before(found)

    sys.unraisablehook = hook


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and those that it was raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


class ChangedRunError(ValueError):
    """The checkpoints are of a run with other choices."""


def _sums(state: TrainState) -> list[int]:
    """For every array the sum of its bits as 32-bit words, modulo 2³²: exact however it is split over devices."""
    return [int(total) for total in jax.device_get(_bit_sums(jax.tree.leaves(state)))]


@jax.jit
def _bit_sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jax.lax.bitcast_convert_type(leaf, jnp.uint32).sum(dtype=jnp.uint32) for leaf in leaves]
