"""The four models of the paper, one function each, and `forward` from a video to logits; as in reference/models.py."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Float32, Int, Key, Shaped

from vivit import tubelet
from vivit.backend import backend
from vivit.dropout import Rates
from vivit.dropout import split as dropout_keys
from vivit.encoder import Dropped, RunOptions, encode
from vivit.layers import FIRST_TOKEN, dense, layer_config, pool
from vivit.ops import XLA, Ops
from vivit.positions import table
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import Drops
from vivit.reference.params import Dense, Params, check
from vivit.reference.tubelet import check_frames_valid, check_video

Grid = tuple[int, int, int]


class Clip(NamedTuple):
    """The models' input: the tokens of a batch of clips, before positions are added."""

    tokens: Float32[Array, "b t s c"]
    valid: Bool[Array, "b t"] | None  # False for the padding of shorter clips; None: no padding
    grid: Grid  # (time, height, width) in tokens


class Run(NamedTuple):
    """What is the same for every encoder of one forward. dropped: by the encoder's name."""

    options: RunOptions
    dropped: dict[str, Dropped]
    capture: dict | None

    def record(self, encoder: str, stages: dict[str, Array]) -> None:
        """Captures the stages of an encoder."""
        for stage, value in stages.items():
            record(self.capture, f"{encoder}/{stage}", value)


def forward(
    params: Params,
    video: jax.Array | np.ndarray,
    config: Config,
    *,
    rng: Key[Array, "..."] | None = None,
    frames_valid: jax.Array | np.ndarray | None = None,
    resize: bool = False,
    dtype: str | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    rescale_depth: bool = False,
    remat: str = "none",
    unroll: bool = False,
    attention: str | Ops = "auto",
    drops: Drops | None = None,
    capture: dict | None = None,
) -> Float[Array, "b v"]:
    """Returns the logits of a batch of clips. Its parts are jitted, once per shape; the whole can be jitted too.

    Source: Arnab et al. 2021, section 3. video: [b frames height width colors], or patches [b t s p] from `cut`; uint8
    (scaled to −1…1), float32 or bfloat16 (already preprocessed). Returns float[b v], the heads' logits concatenated, in
    the video's dtype (float32 for uint8).

    rng: a random key for the batch, or keys [b], one per clip; a clip's dropout then depends on its own key only. None:
    no dropout, and the result is deterministic.
    frames_valid: int[b], number of real frames in each clip, at least 1; the rest is padding and does not affect the
    result.
    resize: allow a video size that is not the config's, and resize the positions.
    dtype: "float32" or "bfloat16", of the operands of the layers' matmuls; None: the video's, float32 for uint8.
    dropout, attention_dropout, stochastic_depth, rescale_depth: see vivit.dropout.Rates; used only with rng.
    remat: what the backward pass recomputes instead of keeping it: "none"; "fast", what is cheap; "lean", all but the
    tokens that enter each layer. unroll: compile every layer separately.
    attention: "auto": the Pallas kernels on a TPU, cuDNN's on a GPU that has them, else XLA; "pallas": the kernels on
    every device, in Pallas's interpreter where there is no TPU; "xla": never the kernels; or Ops, such as
    vivit.pallas_ops.PALLAS to compile for a TPU on another machine. Depends on JAX's default device. "xla" supports
    every kind of differentiation; the kernels support reverse mode, once, and raise TypeError otherwise.
    drops: dropout multipliers to use instead of rng, as in the reference.
    capture: a dict that receives every stage by name, in order, one entry per layer; inside jit, return it with the
    logits. XLA then computes the stages, unless Ops are given: kernels do not return attention weights.

    Raises ValueError if params, video, frames_valid or an option do not fit.
    """
    video, frames_valid, grid, dtype = checked(params, video, config, frames_valid, resize, dtype)
    ops = backend(attention)
    if capture is not None and isinstance(attention, str):
        ops = XLA
    rates = Rates(
        dropout=dropout,
        attention_dropout=attention_dropout,
        stochastic_depth=stochastic_depth,
        rescale_depth=rescale_depth,
    )
    keys: dict[str, jax.Array] = {}
    if rng is not None and rates != Rates(rescale_depth=rescale_depth):
        keys = dict(zip(("encoder", "temporal_encoder"), dropout_keys(rng, 2), strict=True))
    options = RunOptions(ops=ops, dtype=dtype, rates=rates, remat=remat, unroll=unroll, capturing=capture is not None)
    dropped = {name: Dropped(keys.get(name), given) for name, given in (drops or Drops())._asdict().items()}
    run = Run(options, dropped, capture)
    pixels, counts = video, frames_valid
    if video.ndim == 5:
        pixels, counts = tubelet.select_frames(video, config.sampled_frames, frames_valid)
    valid = None
    if counts is not None:
        starts = jnp.arange(grid[0], dtype=jnp.int32) * config.tubelet[0]
        valid = starts[jnp.newaxis] < counts[:, jnp.newaxis]
    clip = Clip(ops.embed(pixels, params.embedding), valid, grid)
    record(capture, "tokens", clip.tokens)
    features = MODELS[config.model](params, clip, config, run)
    record(capture, "features", features)
    prelogits, logits = classify(features, params.representation, params.head)
    record(capture, "prelogits", prelogits)
    record(capture, "logits", logits)
    return logits.astype(video.dtype if video.dtype != jnp.uint8 else jnp.float32)


@jax.jit
def classify(
    features: Float32[Array, "b c"], representation: Dense | None, head: Dense | None
) -> tuple[Float32[Array, "b r"], Float32[Array, "b v"]]:
    """Returns (prelogits [b c] or [b r], logits [b v]), float32; without a head the prelogits twice."""
    if representation is not None:
        features = jnp.tanh(dense(features, representation, jnp.float32))
    return features, features if head is None else dense(features, head, jnp.float32)


def spatio_temporal(params: Params, clip: Clip, config: Config, run: Run) -> Float32[Array, "b c"]:
    """Model 1: all tokens of the clip attend to each other. Source: Arnab et al. 2021, section 3.3. Returns [b c]."""
    b, t, s, c = clip.tokens.shape
    mask = None if clip.valid is None else _with_class_token(jnp.repeat(clip.valid, s, axis=1), config)
    tokens, stages = encode(
        clip.tokens.reshape(b, t * s, c),
        params.encoder,
        table(params.encoder.positions, config, clip.grid, config.grid),
        mask,
        run.dropped["encoder"],
        layer=layer_config(config, run.options.dtype),
        attend=run.options.ops.joint,
        options=run.options,
        only_first=config.pooling in FIRST_TOKEN,
    )
    run.record("encoder", stages)
    return pool(tokens, config.pooling, mask)


def factorised_encoder(params: Params, clip: Clip, config: Config, run: Run) -> Float32[Array, "b c"]:
    """Model 2: a spatial encoder over the tokens of each time index, then a temporal encoder over the pooled results.

    Without a temporal encoder (temporal_layers=0) the pooled results are averaged: the paper's baseline.
    Source: Arnab et al. 2021, section 3.3 and table 2. Returns [b c].
    """
    time, height, width = clip.grid
    tokens, stages = encode(
        clip.tokens,
        params.encoder,
        table(params.encoder.positions, config, (1, height, width), (1, *config.grid[1:])),
        None,
        run.dropped["encoder"],
        layer=layer_config(config, run.options.dtype),
        attend=run.options.ops.spatial,
        options=run.options,
        sequence_axes=2,
        only_first=config.pooling in FIRST_TOKEN,
    )
    run.record("encoder", stages)
    frames = pool(tokens, config.pooling)  # [b t c]
    record(run.capture, "frames", frames)
    if params.temporal_encoder is None:
        return pool(frames, "mean", clip.valid)
    mask = None if clip.valid is None else _with_class_token(clip.valid, config)
    tokens, stages = encode(
        frames,
        params.temporal_encoder,
        table(params.temporal_encoder.positions, config, (time, 1, 1), (config.grid[0], 1, 1)),
        mask,
        run.dropped["temporal_encoder"],
        layer=layer_config(config.temporal, run.options.dtype),
        attend=run.options.ops.joint,
        options=run.options,
        only_first=config.pooling in FIRST_TOKEN,
    )
    run.record("temporal_encoder", stages)
    return pool(tokens, config.pooling, mask)


def factorised(params: Params, clip: Clip, config: Config, run: Run) -> Float32[Array, "b c"]:
    """Models 3 and 4, whose tokens keep both axes. There is no class token.

    Model 3, factorised self-attention: each layer attends over one axis, then over the other. Model 4, factorised
    dot-product attention: in each layer half of the heads attend over time, half over space.
    Source: Arnab et al. 2021, section 3.3. Returns [b c].
    """
    b, t, s, c = clip.tokens.shape
    positions = table(params.encoder.positions, config, clip.grid, config.grid)
    mask = None if clip.valid is None else jnp.broadcast_to(clip.valid[:, :, jnp.newaxis], (b, t, s))
    tokens, stages = encode(
        clip.tokens,
        params.encoder,
        None if positions is None else positions.reshape(t, s, c),
        mask,
        run.dropped["encoder"],
        layer=layer_config(config, run.options.dtype),
        attend=run.options.ops.factorised_dot_product if config.model == "factorised_dot_product" else None,
        options=run.options,
    )
    run.record("encoder", stages)
    return pool(tokens.reshape(b, t * s, c), config.pooling, None if mask is None else mask.reshape(b, t * s))


MODELS = {
    "spatio_temporal": spatio_temporal,
    "factorised_encoder": factorised_encoder,
    "factorised_self_attention": factorised,
    "factorised_dot_product": factorised,
}


def _with_class_token(mask: Bool[Array, "b n"], config: Config) -> Bool[Array, "b m"]:
    """Prepends the class token, which always counts, to the mask bool[b n]."""
    if not config.class_token:
        return mask
    return jnp.concatenate([jnp.ones((mask.shape[0], 1), bool), mask], axis=1)


def checked(
    params: Params, video: Any, config: Config, frames_valid: Any, resize: bool, dtype: Any
) -> tuple[jax.Array, jax.Array | None, Grid, str]:
    """Returns `forward`'s arguments as arrays: (video, frames_valid, token grid, dtype of the layers' matmuls).

    Raises ValueError, naming the value and the requirement, if an argument does not fit.
    """
    check(params, config)
    video = _as_video(video)
    frames = video.shape
    if video.ndim == 4:
        tubelet.check_patches(video.shape, config)
        grid = config.grid
        frames = (video.shape[0], grid[0] * config.tubelet[0])
    else:
        grid = check_video(video.shape, video.dtype.name, config, resize=resize)
    if frames_valid is not None:
        frames_valid = _as_frames_valid(frames_valid, frames)
    return video, frames_valid, grid, _compute_dtype(dtype, video.dtype)


def _as_video(video: Any) -> Shaped[Array, "b ..."]:
    if not hasattr(video, "dtype"):
        raise ValueError(f"video is a {type(video).__name__}: it must be an array [b frames height width colors]")
    name = np.dtype(video.dtype).name
    if name not in ("uint8", "float32", "bfloat16"):
        raise ValueError(f"video has dtype {name}: it must be uint8 (0 to 255), float32 or bfloat16")
    return jnp.asarray(video)


def _as_frames_valid(frames_valid: Any, shape: tuple[int, ...]) -> Int[Array, " b"]:
    if isinstance(frames_valid, Tracer):
        if frames_valid.shape != shape[:1] or not jnp.issubdtype(frames_valid.dtype, jnp.integer):
            raise ValueError(f"frames_valid is {frames_valid.aval}: it must be int[b] with b = {shape[0]}")
        return frames_valid
    check_frames_valid(np.asarray(frames_valid), shape)
    return jnp.asarray(frames_valid, jnp.int32)


def _compute_dtype(dtype: Any, video_dtype: Any) -> str:
    if dtype is None:
        return "bfloat16" if video_dtype == jnp.bfloat16 else "float32"
    name = np.dtype(dtype).name
    if name not in ("float32", "bfloat16"):
        raise ValueError(f"dtype is {name}: it must be float32 or bfloat16")
    return name
