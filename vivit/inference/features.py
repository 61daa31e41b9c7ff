"""What a model makes of a video before it names it: stages of clips that slide over it, with time stamps.

Long videos pass through: clips are decoded while others are computed, and what was computed is on the disk.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from vivit import compiled
from vivit.data.opening import Limits
from vivit.inference.ahead import prefetched
from vivit.inference.archive import growing
from vivit.inference.batches import BATCH, NotFinite, computed
from vivit.inference.finite import not_finite
from vivit.inference.videos import called, seekable
from vivit.inference.windows import Window, check_sliding, sliding
from vivit.memory import check_model
from vivit.model import Model
from vivit.reference.config import Config
from vivit.reference.params import Params
from vivit.reference.values import MOST, is_count, quoted
from vivit.writing import check_place, write_file

FRAMES, LAST_TOKENS = "frames", "last_tokens"  # what every model has beside the stages of capture=
USUAL = ("prelogits", FRAMES)
LAST_STAGE = "encoder/norm"


class Features(NamedTuple):
    """total: how many clips there will be. clips: of each its window and float32 arrays by stage, no batch axis."""

    total: int
    clips: Iterator[tuple[Window, dict[str, np.ndarray]]]


def features(
    model: Model,
    video: str | Path | np.ndarray,
    *,
    stages: Sequence[str] = USUAL,
    stride: int | None = None,
    hop: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
) -> Features:
    """Stages of clips that slide over a video.

    video, stride, hop, limits: as windows.sliding's. stages: those of vivit.forward's capture=, such as "prelogits"
    [r], "features" [c], "logits" [v], "tokens" [t s c] (as embedded), "encoder/3/out"; and of every model "frames"
    [t c], a representation of each time index (model 2's own; else the mean of its last tokens), and "last_tokens"
    [t s c], after the last layer norm (in model 2 the spatial encoder's), without class tokens.
    batch: clips at once. dtype: "float32" or "bfloat16", of the matmuls' operands.
    Raises ValueError, naming the stage or the video, for what there is not, does not fit or is not finite.
    """
    names = _checked(model, stages, stride, hop, batch, limits)
    found = sliding(model, video, stride=stride, hop=hop, limits=limits)
    size = min(batch, found.total)

    def run(pixels: np.ndarray) -> dict[str, jax.Array]:
        return _stages(model.params, model.preprocessed(pixels), config=model.config, names=names, dtype=dtype)

    def clips() -> Iterator[tuple[Window, dict[str, np.ndarray]]]:
        for window, arrays in computed(run, prefetched(found.clips, count=2 * size), size):
            if isinstance(arrays, NotFinite):
                raise not_finite(model, arrays.clip, called(video), dtype)
            yield window, arrays

    return Features(found.total, clips())


def write_features(
    model: Model,
    videos: Sequence[str],
    path: str | Path,
    *,
    inputs: Iterable[str | Path] = (),
    stages: Sequence[str] = USUAL,
    stride: int | None = None,
    hop: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, ValueError]:
    """Writes the features of videos to one npz file, and tells, by name, why a video is not in it.

    Arguments as `features`. The file holds, for m clips: videos, their names; video: int32[m], which of them; index:
    int64[m frames], numbers of frames; seconds: float64[m frames]; and every stage by its name, float32[m …].
    path: must end in .npz; "-": standard output. inputs: what is read beside the videos; the file must be none of all.
    progress: is called with (clips done, clips of the videos begun). If no video can be used nothing is written.
    """
    _checked(model, stages, stride, hop, batch, limits)
    inputs = [*videos, *inputs]
    check_output(path, inputs)
    broken: dict[str, ValueError] = {}
    used: list[str] = []
    done = total = 0
    with growing(path) as archive:
        for name in videos:
            before = archive.count
            try:
                with seekable(name) as file:
                    found = features(
                        model, file, stages=stages, stride=stride, hop=hop, batch=batch, dtype=dtype, limits=limits
                    )
                    total += found.total
                    for window, arrays in found.clips:
                        about = dict(video=np.array(len(used), np.int32), index=window.indices, seconds=window.stamps)
                        archive.append({**about, **arrays})
                        done += 1
                        if progress is not None:
                            progress(done, total)
            except ValueError as error:
                archive.shorten(before)
                broken[name] = error
            else:
                used.append(name)
        if used:
            write_file(path, partial(archive.pack, whole={"videos": np.array(used)}), inputs=inputs)
    return broken


def check_output(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raises ValueError unless features can be written there. inputs: what is read."""
    check_place(path, suffixes=(".npz",), inputs=inputs, piped="bytes")


def _checked(
    model: Model, stages: Sequence[str], stride: int | None, hop: int | None, batch: int, limits: Limits | None
) -> tuple[str, ...]:
    """The names of the stages, each once. Raises ValueError if the model does not have one, or for what is below 1."""
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise ValueError(f"stages is {quoted(stages)}: it must be a list of names, such as ['prelogits']")
    names = tuple(dict.fromkeys(stages))
    known = tuple(dict.fromkeys([*compiled.stage_shapes(model.config), FRAMES, LAST_TOKENS]))
    compiled.check_stages(names, known)
    if not names:
        raise ValueError("stages is (): there must be at least one")
    if not is_count(batch):
        raise ValueError(f"batch is {quoted(batch)}: it must be at least 1, and at most {MOST}")
    check_model(model.config, (limits or Limits()).memory, clips=batch)
    check_sliding(stride, hop)
    return names


@partial(jax.jit, static_argnames=("config", "names", "dtype"))
def _stages(
    params: Params, video: np.ndarray, *, config: Config, names: tuple[str, ...], dtype: str | None
) -> dict[str, jax.Array]:
    own = config.model == "factorised_encoder"
    needed = {LAST_STAGE if name == LAST_TOKENS or (name == FRAMES and not own) else name for name in names}
    found = dict(compiled.stages(params, video, config=config, names=tuple(sorted(needed)), dtype=dtype))
    if LAST_STAGE in needed:
        time, height, width = config.grid
        tokens = found[LAST_STAGE][..., int(config.class_token) :, :]
        b, *_, c = tokens.shape
        tokens = tokens.reshape(b, time, height * width, c)
        found[LAST_TOKENS] = tokens
        found.setdefault(FRAMES, tokens.mean(2))
    return {name: found[name] for name in names}
