"""The four models of the paper, one function each, and `forward` from a video to logits.

This is the oracle: float64 NumPy code that follows the paper's equations and is not optimised for speed.
"""

from functools import partial
from typing import NamedTuple

import numpy as np

from vivit.reference import attention, encoder, tubelet
from vivit.reference.attention import record
from vivit.reference.config import Config
from vivit.reference.dropout import Drops
from vivit.reference.layers import dense, pool
from vivit.reference.params import Dense, Params, check, convert
from vivit.reference.positions import table

Grid = tuple[int, int, int]


class Clip(NamedTuple):
    """The models' input: the tokens of a batch of clips, before positions are added."""

    tokens: np.ndarray  # [b t s c]
    valid: np.ndarray | None  # bool[b t], False for the padding of shorter clips; None: no padding
    grid: Grid  # (time, height, width) in tokens


def forward(
    params: Params,
    video: np.ndarray,
    config: Config,
    *,
    frames_valid: np.ndarray | None = None,
    resize: bool = False,
    drops: Drops | None = None,
    capture: dict | None = None,
) -> np.ndarray:
    """Returns the logits of a batch of clips.

    Source: Arnab et al. 2021, section 3. video: [b frames height width colors], uint8 (scaled to −1…1) or float.
    frames_valid: int[b], number of real frames in each clip; the rest is padding and does not affect the result.
    resize: allow a video size that is not the config's, and resize the positions. drops: dropout multipliers.
    capture: a dict that receives every stage by name, in order. Returns float64[b v], the heads' logits concatenated.
    Raises ValueError if params, video or frames_valid do not fit the config.
    """
    check(params, config)
    params = convert(params, lambda _, leaf: np.asarray(leaf, np.float64))
    video = np.asarray(video)
    grid = tubelet.check_video(video.shape, video.dtype.name, config, resize=resize)
    clip = tokenise(params.embedding, video, config, grid, frames_valid)
    record(capture, "tokens", clip.tokens)
    features = MODELS[config.model](params, clip, config, drops or Drops(), capture)
    record(capture, "features", features)
    if params.representation is not None:
        features = np.tanh(dense(features, params.representation))
    record(capture, "prelogits", features)
    logits = features if params.head is None else dense(features, params.head)
    record(capture, "logits", logits)
    return logits


def tokenise(
    params: Dense, video: np.ndarray, config: Config, grid: Grid, frames_valid: np.ndarray | None = None
) -> Clip:
    """Selects frames, cuts tubelets and embeds them. A time index is valid if it contains at least one real frame."""
    valid = None
    pixels = tubelet.pixels(video)
    counts = np.full(len(video), video.shape[1]) if frames_valid is None else np.asarray(frames_valid)
    tubelet.check_frames_valid(counts, video.shape)
    pixels, counts = tubelet.select_frames(pixels, config.sampled_frames, counts)
    if frames_valid is not None:
        valid = np.arange(grid[0]) * config.tubelet[0] < counts[:, np.newaxis]
    return Clip(tubelet.embed(pixels, params), valid, grid)


def spatio_temporal(params: Params, clip: Clip, config: Config, drops: Drops, capture: dict | None) -> np.ndarray:
    """Model 1: all tokens of the clip attend to each other. Source: Arnab et al. 2021, section 3.3. Returns [b c]."""
    b, t, s, c = clip.tokens.shape
    mask = None if clip.valid is None else _with_class_token(np.repeat(clip.valid, s, axis=1), config)
    tokens = encoder.encode(
        clip.tokens.reshape(b, t * s, c),
        params.encoder,
        config,
        table(params.encoder.positions, config, clip.grid, config.grid),
        partial(encoder.block, config=config, core=attention.joint, mask=mask),
        drops=drops.encoder,
        capture=capture,
    )
    return pool(tokens, config.pooling, mask)


def factorised_encoder(params: Params, clip: Clip, config: Config, drops: Drops, capture: dict | None) -> np.ndarray:
    """Model 2: a spatial encoder over the tokens of each time index, then a temporal encoder over the pooled results.

    Without a temporal encoder (temporal_layers=0) the pooled results are averaged: the paper's baseline.
    Source: Arnab et al. 2021, section 3.3 and table 2. Returns [b c].
    """
    time, height, width = clip.grid
    tokens = encoder.encode(
        clip.tokens,
        params.encoder,
        config,
        table(params.encoder.positions, config, (1, height, width), (1, *config.grid[1:])),
        partial(encoder.block, config=config, core=attention.spatial),
        drops=drops.encoder,
        capture=capture,
    )
    frames = pool(tokens, config.pooling)  # [b t c]
    record(capture, "frames", frames)
    if params.temporal_encoder is None:
        return pool(frames, "mean", clip.valid)
    mask = None if clip.valid is None else _with_class_token(clip.valid, config)
    temporal = config.temporal
    tokens = encoder.encode(
        frames,
        params.temporal_encoder,
        temporal,
        table(params.temporal_encoder.positions, config, (time, 1, 1), (config.grid[0], 1, 1)),
        partial(encoder.block, config=temporal, core=attention.joint, mask=mask),
        drops=drops.temporal_encoder,
        capture=capture,
        name="temporal_encoder",
    )
    return pool(tokens, config.pooling, mask)


def factorised_self_attention(
    params: Params, clip: Clip, config: Config, drops: Drops, capture: dict | None
) -> np.ndarray:
    """Model 3: each layer attends over one axis, then over the other. Source: section 3.3. Returns [b c]."""
    return _factorised(encoder.factorised_block, params, clip, config, drops, capture)


def factorised_dot_product(
    params: Params, clip: Clip, config: Config, drops: Drops, capture: dict | None
) -> np.ndarray:
    """Model 4: in each layer half the heads attend over time, half over space. Source: section 3.3. Returns [b c]."""
    block = partial(encoder.block, core=attention.factorised_dot_product)
    return _factorised(block, params, clip, config, drops, capture)


def _factorised(block, params: Params, clip: Clip, config: Config, drops: Drops, capture: dict | None) -> np.ndarray:
    """Models 3 and 4, which differ in the block only. Tokens keep both axes; there is no class token."""
    b, t, s, c = clip.tokens.shape
    positions = table(params.encoder.positions, config, clip.grid, config.grid)
    mask = None if clip.valid is None else np.broadcast_to(clip.valid[:, :, np.newaxis], (b, t, s))
    tokens = encoder.encode(
        clip.tokens,
        params.encoder,
        config,
        None if positions is None else positions.reshape(t, s, c),
        partial(block, config=config, mask=mask),
        drops=drops.encoder,
        capture=capture,
    )
    return pool(tokens.reshape(b, t * s, c), config.pooling, None if mask is None else mask.reshape(b, t * s))


MODELS = {
    "spatio_temporal": spatio_temporal,
    "factorised_encoder": factorised_encoder,
    "factorised_self_attention": factorised_self_attention,
    "factorised_dot_product": factorised_dot_product,
}


def _with_class_token(mask: np.ndarray, config: Config) -> np.ndarray:
    """Prepends the class token, which always counts, to the mask bool[b n]."""
    if not config.class_token:
        return mask
    return np.concatenate([np.ones((len(mask), 1), bool), mask], axis=1)
