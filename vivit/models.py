"""The four models of the paper, one function each, and `forward` from a video to logits; as in reference/models.py."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from vivit import tubelet
from vivit.backend import backend
from vivit.dropout import Rates
from vivit.dropout import split as dropout_keys
from vivit.encoder import RunOptions, encode
from vivit.layers import FIRST, dense, layer_config, pool
from vivit.ops import XLA, Op, Ops
from vivit.positions import table
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import Drops
from vivit.reference.params import Dense, Encoder, Params, check
from vivit.reference.tubelet import check_frames_valid, check_video

Grid = tuple[int, int, int]


class Clip(NamedTuple):
    """What the models look at: the tokens of a batch of clips, before positions."""

    tokens: jax.Array  # float32[b t s c]
    valid: jax.Array | None  # bool[b t], False for the padding of shorter clips; None: no padding
    grid: Grid  # (time, height, width) in tokens


class Run(NamedTuple):
    """How the encoders of one forward are run."""

    ops: Ops
    dtype: str  # of the operands of the layers' matmuls
    options: RunOptions
    keys: dict[str, jax.Array]  # by the encoder's name, where what is dropped is drawn
    drops: Drops
    capture: dict | None

    def encode(
        self,
        tokens: jax.Array,
        params: Encoder,
        config: Config,
        positions: jax.Array | None,
        attend: Op | None,
        *,
        mask: jax.Array | None = None,
        sequences: int = 1,
        name: str = "encoder",
        only_first: bool = False,
    ) -> jax.Array:
        """encoder.encode with all that is the same for every encoder of the model."""
        return encode(
            tokens,
            params,
            layer_config(config, self.dtype),
            positions,
            attend,
            ops=self.ops,
            mask=mask,
            sequences=sequences,
            options=self.options,
            key=self.keys.get(name),
            drops=getattr(self.drops, name),
            capture=self.capture,
            name=name,
            only_first=only_first,
        )


def forward(
    params: Params,
    video: jax.Array | np.ndarray,
    config: Config,
    *,
    rng: jax.Array | None = None,
    frames_valid: jax.Array | np.ndarray | None = None,
    resize: bool = False,
    dtype: str | None = None,
    dropout: float = 0.0,
    attention_dropout: float = 0.0,
    stochastic_depth: float = 0.0,
    rescale_depth: bool = False,
    remat: bool = False,
    unroll: bool = False,
    attention: str | Ops = "auto",
    drops: Drops | None = None,
    capture: dict | None = None,
) -> jax.Array:
    """The logits of a batch of clips. Its parts are compiled once for each shape and kind; it can be jitted as a whole.

    Source: Arnab et al. 2021, section 3. video: [b frames height width colors], or its patches [b t s p] as tubelet.cut
    makes them on the host; uint8 (scaled to −1…1), float32 or bfloat16 (already preprocessed). Returns float[b v], the
    heads' logits one after the other, in the video's dtype (float32 for uint8).

    rng: a random key, or keys [b], one a clip, on which alone depends what that clip drops; without it nothing is
    dropped and the result is deterministic.
    frames_valid: int[b], how many frames of each clip are real, at least 1; the rest is padding and changes nothing.
    resize: lets positions follow a video whose size is not the config's.
    dtype: "float32" or "bfloat16", of the operands of the blocks' matmuls; None: the video's, float32 for uint8.
    dropout, attention_dropout, stochastic_depth, rescale_depth: see vivit.dropout.Rates; they act only with rng.
    remat: recompute each layer's activations in the backward pass. unroll: compile every layer by itself.
    attention: "auto": the Pallas kernels on a TPU, else XLA; "pallas": kernels everywhere, off a TPU in Pallas's
    interpreter; "xla": never kernels; or Ops, such as vivit.pallas_ops.PALLAS for a program that is compiled for a TPU
    elsewhere. Decided once, by JAX's default device. With "xla" every derivative works; kernels are differentiated in
    reverse mode, once, and raise TypeError otherwise.
    drops: what is dropped, given instead of drawn from rng, as the reference takes it; kernels draw their own.
    capture: a dict that receives every stage by name, in order, layers apart; inside jit return it with the logits.
    Stages are computed by XLA, unless Ops are given: kernels keep no attention weights.

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
    run = Run(ops, dtype, RunOptions(rates=rates, remat=remat, unroll=unroll), keys, drops or Drops(), capture)
    pixels, counts = video, frames_valid
    if video.ndim == 5:
        pixels, counts = tubelet.take_frames(video, config.sampled_frames, frames_valid)
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
def classify(features: jax.Array, representation: Dense | None, head: Dense | None) -> tuple[jax.Array, jax.Array]:
    """(prelogits [b c] or [b r], logits [b v]), float32; without a head the prelogits twice."""
    if representation is not None:
        features = jnp.tanh(dense(features, representation, jnp.float32))
    return features, features if head is None else dense(features, head, jnp.float32)


def spatio_temporal(params: Params, clip: Clip, config: Config, run: Run) -> jax.Array:
    """Model 1: all tokens of the clip attend to one another. Source: Arnab et al. 2021, section 3.3. Returns [b c]."""
    b, t, s, c = clip.tokens.shape
    mask = None if clip.valid is None else _with_class_token(jnp.repeat(clip.valid, s, axis=1), config)
    tokens = run.encode(
        clip.tokens.reshape(b, t * s, c),
        params.encoder,
        config,
        table(params.encoder.positions, config, clip.grid, config.grid),
        run.ops.joint,
        mask=mask,
        only_first=config.pooling in FIRST,
    )
    return pool(tokens, config.pooling, mask)


def factorised_encoder(params: Params, clip: Clip, config: Config, run: Run) -> jax.Array:
    """Model 2: an encoder over the tokens of each time index, then one over the indices' representations.

    Without a temporal encoder (temporal_layers=0) the representations are averaged: the paper's baseline.
    Source: Arnab et al. 2021, section 3.3 and table 2. Returns [b c].
    """
    time, height, width = clip.grid
    tokens = run.encode(
        clip.tokens,
        params.encoder,
        config,
        table(params.encoder.positions, config, (1, height, width), (1, *config.grid[1:])),
        run.ops.spatial,
        sequences=2,
        only_first=config.pooling in FIRST,
    )
    frames = pool(tokens, config.pooling)  # [b t c]
    record(run.capture, "frames", frames)
    if params.temporal_encoder is None:
        return pool(frames, "mean", clip.valid)
    mask = None if clip.valid is None else _with_class_token(clip.valid, config)
    tokens = run.encode(
        frames,
        params.temporal_encoder,
        config.temporal,
        table(params.temporal_encoder.positions, config, (time, 1, 1), (config.grid[0], 1, 1)),
        run.ops.joint,
        mask=mask,
        name="temporal_encoder",
        only_first=config.pooling in FIRST,
    )
    return pool(tokens, config.pooling, mask)


def factorised_self_attention(params: Params, clip: Clip, config: Config, run: Run) -> jax.Array:
    """Model 3: in every layer attention over one axis, then over the other. Source: section 3.3. Returns [b c]."""
    return _factorised(None, params, clip, config, run)


def factorised_dot_product(params: Params, clip: Clip, config: Config, run: Run) -> jax.Array:
    """Model 4: in every layer half the heads attend over time, half over space. Source: section 3.3. Returns [b c]."""
    return _factorised(run.ops.factorised_dot_product, params, clip, config, run)


def _factorised(attend: Op | None, params: Params, clip: Clip, config: Config, run: Run) -> jax.Array:
    """Models 3 and 4 share all but the attention: tokens keep their two axes, and there is no class token."""
    b, t, s, c = clip.tokens.shape
    positions = table(params.encoder.positions, config, clip.grid, config.grid)
    mask = None if clip.valid is None else jnp.broadcast_to(clip.valid[:, :, jnp.newaxis], (b, t, s))
    tokens = run.encode(
        clip.tokens,
        params.encoder,
        config,
        None if positions is None else positions.reshape(t, s, c),
        attend,
        mask=mask,
    )
    return pool(tokens.reshape(b, t * s, c), config.pooling, None if mask is None else mask.reshape(b, t * s))


MODELS = {
    "spatio_temporal": spatio_temporal,
    "factorised_encoder": factorised_encoder,
    "factorised_self_attention": factorised_self_attention,
    "factorised_dot_product": factorised_dot_product,
}


def _with_class_token(mask: jax.Array, config: Config) -> jax.Array:
    """The mask bool[b n] with a place for the class token, which always counts, before the others."""
    if not config.class_token:
        return mask
    return jnp.concatenate([jnp.ones((mask.shape[0], 1), bool), mask], axis=1)


def checked(
    params: Params, video: Any, config: Config, frames_valid: Any, resize: bool, dtype: Any
) -> tuple[jax.Array, jax.Array | None, Grid, str]:
    """What `forward` was given, as arrays that fit: (video, frames_valid, token grid, dtype of the blocks' matmuls).

    Raises ValueError, naming the value and what was required, for whatever does not fit.
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


def _as_video(video: Any) -> jax.Array:
    if not hasattr(video, "dtype"):
        raise ValueError(f"video is a {type(video).__name__}: it must be an array [b frames height width colors]")
    name = np.dtype(video.dtype).name
    if name not in ("uint8", "float32", "bfloat16"):
        raise ValueError(f"video has dtype {name}: it must be uint8 (0 to 255), float32 or bfloat16")
    return jnp.asarray(video)


def _as_frames_valid(frames_valid: Any, shape: tuple[int, ...]) -> jax.Array:
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
