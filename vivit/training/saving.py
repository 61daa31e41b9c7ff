"""Saves and restores checkpoints of a training run: the whole state and the loader's position.

Orbax writes the files, atomically and in the background. This module adds two checks: a run resumes only with the
options it began with, and the restored arrays equal the written ones. For that a checksum over the bits of every array
is saved with them.
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

MAX_LETTERS = 200  # of the library's error messages, in ours

_log = logging.getLogger("vivit.training")


class Restored(NamedTuple):
    """The state to resume from, and the loader's position."""

    state: TrainState
    position: dict[str, Any]  # of the loader


class Checkpoints:
    """The checkpoints of one run in a folder, of which the newest `keep` remain.

    choices: what must stay the same when the run resumes, as JSON data by name (loop.run_identity). Raises ValueError
    if the folder is a file.
    """

    def __init__(self, folder: Path, choices: dict[str, Any], *, keep: int = 3) -> None:
        if keep < 1:
            raise ValueError(f"keep is {keep}: it must be at least 1")
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"{folder} is a file: it must be a folder, or not be there")
        self._folder, self._choices, self._given_folder = folder.absolute(), choices, folder
        self._options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            cleanup_tmp_directories=True,
            # otherwise a thread fails to create the folder, and the others wait 20 minutes for it
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
        )
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def save(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Starts to write a checkpoint in the background. The state may be changed as soon as this returns.

        Raises OSError, naming the folder, if this or the previous checkpoint could not be written.
        """
        more = {"choices": self._choices, "position": position, "sums": _sums(state)}
        state = jax.tree.map(jnp.copy, state)  # the next update donates the arrays' memory
        args = ocp.args.Composite(state=ocp.args.StandardSave(state), more=ocp.args.JsonSave(more))
        self._attempt(lambda: self._manager.save(step, args=args, force=True))

    def wait(self) -> None:
        """Waits until all checkpoints are written. Raises OSError as `save` does."""
        self._attempt(self._manager.wait_until_finished)

    def rescue(self, step: int, state: TrainState, position: dict[str, Any]) -> None:
        """Writes a checkpoint unless it exists, and waits for it. Raises OSError as `save` does.

        Earlier failures are ignored. A new manager is used, because the library remembers failures and files that were
        since removed.
        """
        with contextlib.suppress(Exception):  # errors of earlier checkpoints
            self._manager.close()
        if self.latest() != step:
            self._attempt(self._reopen)
            self.save(step, state, position)
            self.wait()

    def _reopen(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._manager = ocp.CheckpointManager(self._folder, options=self._options)

    def latest(self) -> int | None:
        """Returns the newest step in the folder, with a checkpoint complete or not; None if there is none."""
        steps = (int(path.name) for path in self._folder.glob("*") if path.name.isdigit())
        return max(steps, default=None)

    def restore(self, like: TrainState) -> Restored | None:
        """Returns the newest readable checkpoint, or None if there is none. Broken ones are renamed, with a warning.

        like: a state with the shapes and devices that the restored state is to have. Raises ValueError if the run's
        options have changed, or if every checkpoint is broken.
        """
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            try:
                return self._read(step, like)
            except ChangedRunError:
                raise
            except Exception as error:  # a damaged file can fail anywhere in the libraries
                reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
                _log.warning(
                    "the checkpoint of step %d is broken, and renamed to broken-%d: %s",
                    step,
                    step,
                    reason[:MAX_LETTERS],
                )
                self._set_aside(step)
        if steps:
            raise ValueError(f"{self._folder} has no readable checkpoint: those of steps {steps} are all broken")
        return None

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type | None, *_: object) -> None:
        """Waits for the writes and closes the manager.

        Raises OSError as `save` does, unless another exception is raised.
        """
        try:
            self._attempt(self._manager.close)
        except OSError:
            if kind is None:
                raise

    def _read(self, step: int, like: TrainState) -> Restored:
        shapes = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        more = self._read_item(step, more=ocp.args.JsonRestore())
        self._check_choices(more["choices"])
        state = self._read_item(step, state=ocp.args.StandardRestore(shapes))
        if _sums(state) != more["sums"]:
            raise ValueError("its arrays differ from those that were written")
        return Restored(state, more["position"])

    def _read_item(self, step: int, **item: Any) -> Any:
        """Returns the one item of a checkpoint that is named by the keyword."""
        (name,) = item
        return self._manager.restore(step, args=ocp.args.Composite(**item))[name]

    def _set_aside(self, step: int) -> None:
        aside = self._folder / f"broken-{step}"
        if jax.process_index() == 0:
            shutil.rmtree(aside, ignore_errors=True)
            (self._folder / str(step)).rename(aside)
        self._manager.reload()

    def _check_choices(self, before: dict[str, Any]) -> None:
        changed = [name for name in {**before, **self._choices} if before.get(name) != self._choices.get(name)]
        if changed:
            differences = "; ".join(
                f"{name} was {before.get(name)!r} and is {self._choices.get(name)!r}" for name in changed
            )
            raise ChangedRunError(
                f"{self._folder} is of another run: {differences}; name another folder, or restore the options"
            )

    def _attempt(self, work) -> None:
        try:
            work()
        except Exception as error:  # of the background thread, or the library's wrapper of it
            known = (one.strerror for one in _causes(error) if isinstance(one, OSError))
            reason = next(filter(None, known), " ".join(str(error).split()) or type(error).__name__)
            if (number := re.search(r"os_error_code='(\d+)'", reason)) is not None:  # of TensorStore
                reason = os.strerror(int(number[1]))
            if reason.startswith("NOT_FOUND"):  # also of TensorStore
                reason = "it was removed while the run needed it"
            raise OSError(
                f"a checkpoint in {self._given_folder} could not be written: {reason[:MAX_LETTERS]}"
            ) from error


def silence_library_logs() -> None:
    """Silences Orbax's log output about failed writes, so that a command prints its own one-line error alone.

    Orbax logs a traceback for each of its threads, and the futures of its event loops complain when they are destroyed.
    For programs, not for library users: this changes global state.
    """
    logging.getLogger("absl").setLevel(logging.CRITICAL)
    before = sys.unraisablehook

    def hook(found: Any) -> None:
        if str(found.exc_value) != "Event loop is closed":
            before(found)

    sys.unraisablehook = hook


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yields an exception and those that it was raised from."""
    one: BaseException | None = error
    while one is not None:
        yield one
        one = one.__cause__ or one.__context__


class ChangedRunError(ValueError):
    """The checkpoints belong to a run with other options."""


def _sums(state: TrainState) -> list[int]:
    """Returns a checksum of every array: its bits as 32-bit words, summed modulo 2³². It is independent of sharding."""
    return [int(total) for total in jax.device_get(_bit_sums(jax.tree.leaves(state)))]


@jax.jit
def _bit_sums(leaves: list[jax.Array]) -> list[jax.Array]:
    return [jax.lax.bitcast_convert_type(leaf, jnp.uint32).sum(dtype=jnp.uint32) for leaf in leaves]
