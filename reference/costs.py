"""Multiply-adds of one clip, counted from the model's equations.

Counts matrix products only: elementwise operations are less than one percent. The paper's "FLOPs" are multiply-adds.
Source: Arnab et al. 2021, section 3.3 (complexities) and table 2.
"""

from vivit.reference.config import Config


def multiply_adds(config: Config) -> int:
    """Returns the multiply-adds of one clip from patches to logits."""
    time, height, width = config.grid
    t, s, c = time, height * width, config.channels
    pixels = config.tubelet[0] * config.tubelet[1] * config.tubelet[2] * 3
    features = config.representation or c
    total = t * s * pixels * c + features * sum(config.classes)
    if config.representation is not None:
        total += c * features
    return total + _ENCODERS[config.model](config, t, s)


def _projections(tokens: int, c: int) -> int:
    """Projections to query, key, value and out: 4 n c²."""
    return 4 * tokens * c**2


def _mlp(tokens: int, c: int, f: int) -> int:
    """The two dense layers: 2 n c f."""
    return 2 * tokens * c * f


def _attend(rows: int, n: int, c: int) -> int:
    """Q Kᵀ and W V for `rows` sequences of n tokens: 2 n² c each."""
    return 2 * rows * n**2 * c


def _plain(config: Config, rows: int, n: int) -> int:
    """Layers of full attention within each of `rows` sequences of n tokens."""
    c = config.channels
    return config.layers * (_projections(rows * n, c) + _attend(rows, n, c) + _mlp(rows * n, c, config.hidden))


def _spatio_temporal(config: Config, t: int, s: int) -> int:
    return _plain(config, 1, t * s + config.class_token)


def _factorised_encoder(config: Config, t: int, s: int) -> int:
    spatial = _plain(config, t, s + config.class_token)
    return spatial + (_plain(config.temporal, 1, t + config.class_token) if config.temporal_layers else 0)


def _factorised_self_attention(config: Config, t: int, s: int) -> int:
    c = config.channels
    layer = 2 * _projections(t * s, c) + _attend(t, s, c) + _attend(s, t, c) + _mlp(t * s, c, config.hidden)
    return config.layers * layer


def _factorised_dot_product(config: Config, t: int, s: int) -> int:
    c = config.channels
    halves = (_attend(t, s, c) + _attend(s, t, c)) // 2
    return config.layers * (_projections(t * s, c) + halves + _mlp(t * s, c, config.hidden))


_ENCODERS = {
    "spatio_temporal": _spatio_temporal,
    "factorised_encoder": _factorised_encoder,
    "factorised_self_attention": _factorised_self_attention,
    "factorised_dot_product": _factorised_dot_product,
}
