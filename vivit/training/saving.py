"""Checkpoints of a training run: the whole state and the loader's position, written in the background, whole or not.

Orbax writes them; what is added here is that a run goes on only with the choices it began with, and that what is read
is what was written: every array's sum over its bits is kept beside it.
"""

import logging
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from vivit.training.step import TrainState

_log = logging.getLogger("vivit.training")


class Restored(NamedTuple):
    """What a run goes on from."""

    state: TrainState
    position: dict[str, Any]  # the loader's


class Checkpoints:
    """The checkpoints of one run in a folder, the newest `keep` of them.

    choices: what a run must not change, as JSON data by name. Raises ValueError if the folder's are others.
    """

    def __init__(self, folder: Path, choices: dict[str, Any], *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: it must be at least 1")
        self._folder, self._choices = folder.absolute(), choices
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, enable_async_checkpointing=True)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

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

    def latest(self) -> int | None:
        """The newest step that there is a checkpoint of, whole or not."""
        return self._manager.latest_step()

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
                _log.warning("the checkpoint of step %d is broken and put aside: %s", step, reason[:200])
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
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            older = any(path.name.isdigit() for path in self._folder.iterdir())  # one half written has a longer name
            kept = "older ones are whole" if older else "there is no older one"
            raise OSError(f"a checkpoint in {self._folder} could not be written, {kept}: {reason}") from error


class ChangedRunError(ValueError):
    """The checkpoints are of a run with other choices."""


def _sums(state: TrainState) -> list[int]:
    """For every array the sum of its bits as 32-bit words, modulo 2³²: exact however it is split over devices."""
    return [int(total) for total in jax.device_get(_bit_sums(jax.tree.leaves(state)))]


@jax.jit
def _bit_sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jax.lax.bitcast_convert_type(leaf, jnp.uint32).sum(dtype=jnp.uint32) for leaf in leaves]
