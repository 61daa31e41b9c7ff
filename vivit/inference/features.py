"""Extracts features: intermediate stages of the model for clips that slide over a video, with their times.

Videos may be long: one batch of clips is in memory, and `write_features` appends its results to files.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from vivit import jitted
from vivit.files.atomic import check_writable, write_file
from vivit.files.npz_writer import open_npz
from vivit.inference.batches import BATCH, NotFinite, map_batched, padded
from vivit.jitted import not_finite
from vivit.memory import check_memory, check_model
from vivit.model_data import ModelData, clip_spec
from vivit.notebook import progress_bar
from vivit.reference.config import COLORS, Config
from vivit.reference.params import Params
from vivit.reference.values import check_count, one_line, quoted
from vivit.video.container import Limits
from vivit.video.inputs import seekable, video_name
from vivit.video.prefetch import prefetch
from vivit.video.sampling import Sampling
from vivit.video.sliding import ClipFrames, check_clip_stride, sliding_clips

FRAMES, LAST_TOKENS = "frames", "last_tokens"  # available for every model, besides the stages of capture=
DEFAULT_STAGES = ("prelogits", FRAMES)
LAST_STAGE = "encoder/norm"


class FeatureStream(NamedTuple):
    """total: the number of clips. clips: pairs of a clip's frames and its stages, float32 without a batch axis."""

    total: int
    clips: Iterator[tuple[ClipFrames, dict[str, np.ndarray]]]


def features(
    model: ModelData,
    video: str | Path | np.ndarray,
    *,
    stages: Sequence[str] = DEFAULT_STAGES,
    stride: int | None = None,
    clip_stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
) -> dict[str, np.ndarray]:
    """Returns stages of m clips of a video, float32[m …] by name, with "index" and "seconds" of the clips' frames.

    index: int64[m frames], frame numbers. seconds: float64[m frames]; frame numbers if video is an array.
    video: a file (not a pipe), or frames as in `classify`. stages: names of vivit.forward's capture=, such as
    "prelogits" [r], "features" [c], "logits" [v], "tokens" [t s c] (embedded) and "encoder/3/out". Every model also has
    "last_tokens" [t s c], the tokens after the last layer norm (model 2: of the spatial encoder) without class token,
    and "frames" [t c], a representation of every time index (model 2: its own; otherwise the mean of last_tokens).
    stride: frames from one sampled frame to the next; None: the model's for a file, 1 for an array. clip_stride: frames
    from one clip to the next; None: clips are adjacent. batch: clips per batch. dtype: of the operands of matrix
    products, "float32" or "bfloat16". limits: on the resources that a file may use.
    Raises ValueError, naming the stage or the video, if the model has no such stage, the video cannot be read, or a
    result is not finite. Use stream_features for a long video.
    """
    options: dict[str, Any] = dict(stages=stages, stride=stride, clip_stride=clip_stride, batch=batch, dtype=dtype)
    stream = stream_features(model, video, **options, limits=limits)
    rows, show = [], progress_bar("clips")
    for clip, arrays in stream.clips:
        rows.append(dict(index=clip.indices, seconds=clip.stamps, **arrays))
        show(len(rows), stream.total)
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def stream_features(
    model: ModelData,
    video: str | Path | np.ndarray,
    *,
    stages: Sequence[str] = DEFAULT_STAGES,
    stride: int | None = None,
    clip_stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
) -> FeatureStream:
    """Returns a stream of the clips of `features`, which keeps one batch in memory. Arguments and errors as there."""
    names = _checked(model, stages, stride, clip_stride, batch, limits)
    spec = clip_spec(model, video, stride=stride, limits=limits, threads=0)
    sliding = sliding_clips(spec, video, clip_stride=clip_stride)
    size = min(batch, sliding.total)

    def run(pixels: np.ndarray) -> dict[str, jax.Array]:
        return _stages(model.params, model.preprocessed(pixels), config=model.config, names=names, dtype=dtype)

    def clips() -> Iterator[tuple[ClipFrames, dict[str, np.ndarray]]]:
        decoded = ((clip, (pixels,)) for clip, pixels in prefetch(sliding.clips, count=2 * size))
        for clip, arrays in map_batched(run, decoded, size):
            if isinstance(arrays, NotFinite):
                raise not_finite(model, arrays.clip, video_name(video), dtype)
            yield clip, arrays

    return FeatureStream(sliding.total, clips())


def features_of_videos(
    model: ModelData,
    videos: Iterable[str],
    *,
    stages: Sequence[str] = DEFAULT_STAGES,
    stride: int | None = None,
    clip_stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    threads: int = 1,
    limits: Limits | None = None,
) -> Iterator[dict[str, np.ndarray] | ValueError]:
    """Yields what `features` returns for every video, in order, or a one-line ValueError of a video that has no result.

    videos: names of files, or of what `seekable` copies. The clips of all videos fill batches of one size, and the next
    ones are decoded while the model computes. threads: of the decoder. limits.memory also bounds the features of one
    video. Other arguments as in `features`. Raises ValueError if one of them is invalid.
    """
    names, limits = _checked(model, stages, stride, clip_stride, batch, limits), limits or Limits()
    spec = clip_spec(model, stride=stride, limits=limits, threads=threads)
    bytes_per_clip = 4 * sum(math.prod(shape) for shape in feature_shapes(model, names).values())

    def run(pixels: np.ndarray) -> dict[str, jax.Array]:
        video = model.preprocessed(padded(pixels, batch))
        return _stages(model.params, video, config=model.config, names=names, dtype=dtype)

    def clips() -> Iterator[tuple[tuple[str, ClipFrames | ValueError | None], tuple[np.ndarray] | None]]:
        """The clips of every video, and at its end None or its error."""
        for name in videos:
            try:
                with seekable(name) as file:
                    sliding = sliding_clips(spec, file, clip_stride=clip_stride)
                    check_memory(
                        f"the features of {sliding.total:,} clips of {name}",
                        sliding.total * bytes_per_clip,
                        limits.memory,
                    )
                    for clip, pixels in sliding.clips:
                        yield (name, clip), (pixels,)
            except (ValueError, OSError) as error:
                yield (name, ValueError(one_line(str(error)))), None
            else:
                yield (name, None), None

    rows: list[dict[str, np.ndarray]] = []
    broken: ValueError | None = None
    for (name, clip), arrays in map_batched(run, prefetch(clips(), count=2 * batch), batch):
        if isinstance(arrays, NotFinite):
            broken = broken or not_finite(model, arrays.clip, name, dtype)
        elif isinstance(clip, ClipFrames):
            rows.append(dict(index=clip.indices, seconds=clip.stamps, **arrays))
        else:
            error = clip or broken
            yield error if error is not None else {key: np.stack([row[key] for row in rows]) for key in rows[0]}
            rows, broken = [], None


def feature_shapes(model: ModelData, stages: Sequence[str] = DEFAULT_STAGES) -> dict[str, tuple[int, ...]]:
    """Returns the shapes of stages of one clip by name. Raises ValueError if the model has no such stage."""
    names = _known_stages(model, stages)
    config = model.config
    clip = jax.ShapeDtypeStruct((1, config.frames, config.height, config.width, COLORS), np.uint8)
    shapes = jax.eval_shape(partial(_stages, config=config, names=names, dtype=None), model.params, clip)
    return {name: tuple(shapes[name].shape[1:]) for name in names}


def write_features(
    model: ModelData,
    videos: Sequence[str],
    path: str | Path,
    *,
    inputs: Iterable[str | Path] = (),
    stages: Sequence[str] = DEFAULT_STAGES,
    stride: int | None = None,
    clip_stride: int | None = None,
    batch: int = BATCH,
    dtype: str | None = None,
    limits: Limits | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> dict[str, ValueError]:
    """Writes the features of videos to one npz file. Returns the errors of the videos left out, by name.

    Arguments as in `features`. Arrays of the file, for m clips: "videos", the names of the videos; "video", int32[m],
    the index of each clip's video; "index", int64[m frames], frame numbers; "seconds", float64[m frames]; every stage
    by its name, float32[m …]. path: must end in .npz; "-" is standard output. inputs: further files that are read;
    path must be none of them and none of the videos. progress: called with (clips done, clips of the videos begun);
    None: a notebook shows a bar.
    No file is written if no video can be read.
    """
    _checked(model, stages, stride, clip_stride, batch, limits)
    options: dict[str, Any] = dict(
        stages=stages, stride=stride, clip_stride=clip_stride, batch=batch, dtype=dtype, limits=limits
    )
    inputs = [*videos, *inputs]
    check_output(path, inputs)
    broken: dict[str, ValueError] = {}
    used: list[str] = []
    done = total = 0
    progress = progress or progress_bar("clips")
    with open_npz(path) as writer:
        for name in videos:
            before = writer.count
            try:
                with seekable(name) as file:
                    stream = stream_features(model, file, **options)
                    total += stream.total
                    for clip, arrays in stream.clips:
                        source = dict(video=np.array(len(used), np.int32), index=clip.indices, seconds=clip.stamps)
                        writer.append({**source, **arrays})
                        done += 1
                        progress(done, total)
            except ValueError as error:
                writer.shorten(before)
                broken[name] = error
            else:
                used.append(name)
        if used:
            write_file(path, partial(writer.pack, arrays={"videos": np.array(used)}), inputs=inputs)
    return broken


def check_output(path: str | Path, inputs: Iterable[str | Path]) -> None:
    """Raises ValueError unless features can be written to path. inputs: files that are read."""
    check_writable(path, suffixes=(".npz",), inputs=inputs, piped="bytes")


def _checked(
    model: ModelData,
    stages: Sequence[str],
    stride: int | None,
    clip_stride: int | None,
    batch: int,
    limits: Limits | None,
) -> tuple[str, ...]:
    """Returns the different stages. Raises ValueError if the model lacks one or another argument is invalid."""
    names = _known_stages(model, stages)
    check_count("batch", batch)
    check_model(model.config, (limits or Limits()).memory, clips=batch)
    check_clip_stride(clip_stride)
    Sampling(frames=model.config.frames, stride=1 if stride is None else stride)  # checks the stride
    return names


def _known_stages(model: ModelData, stages: Sequence[str]) -> tuple[str, ...]:
    """Returns the different stages. Raises ValueError if there is none or the model lacks one."""
    if isinstance(stages, str) or not isinstance(stages, Sequence):
        raise ValueError(f"stages is {quoted(stages)}: it must be a list of names, such as ['prelogits']")
    names = tuple(dict.fromkeys(stages))
    known = tuple(dict.fromkeys([*jitted.stage_shapes(model.config), FRAMES, LAST_TOKENS]))
    jitted.check_stages(names, known)
    if not names:
        raise ValueError("stages is (): there must be at least one")
    return names


@partial(jax.jit, static_argnames=("config", "names", "dtype"))
def _stages(
    params: Params, video: np.ndarray, *, config: Config, names: tuple[str, ...], dtype: str | None
) -> dict[str, jax.Array]:
    has_frames = config.model == "factorised_encoder"
    needed = {LAST_STAGE if name == LAST_TOKENS or (name == FRAMES and not has_frames) else name for name in names}
    result = dict(jitted.stages(params, video, config=config, names=tuple(sorted(needed)), dtype=dtype))
    if LAST_STAGE in needed:
        time, height, width = config.grid
        tokens = result[LAST_STAGE][..., int(config.class_token) :, :]
        b, *_, c = tokens.shape
        tokens = tokens.reshape(b, time, height * width, c)
        result[LAST_TOKENS] = tokens
        result.setdefault(FRAMES, tokens.mean(2))
    return {name: result[name] for name in names}
