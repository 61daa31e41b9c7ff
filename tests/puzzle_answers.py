"""Answers to the puzzles, as a student writes them, and three typical mistakes in each: a text and what replaces it."""

from typing import NamedTuple


class Answer(NamedTuple):
    """The body of a right answer, and its mistakes. code: all of the file below the template's imports."""

    code: str
    mistakes: tuple[tuple[str, str], ...]


SPLIT = """
def split(qkv, heads):
    *tokens, fused = qkv.shape
    return [part.reshape(*tokens, heads, fused // 3 // heads) for part in np.split(qkv, 3, axis=-1)]


def weights_of(scores):
    exponentials = np.exp(scores - scores.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def attend(query, key, value):
    return weights_of(query @ key.swapaxes(-1, -2) / query.shape[-1] ** 0.5) @ value
"""
SPATIAL = (
    SPLIT
    + """
def spatial(qkv, heads):
    query, key, value = (part.transpose(0, 1, 3, 2, 4) for part in split(qkv, heads))
    out = attend(query, key, value).transpose(0, 1, 3, 2, 4)
    return out.reshape(*qkv.shape[:-1], -1)
"""
)
TEMPORAL = (
    SPLIT
    + """
def temporal(qkv, heads):
    query, key, value = (part.transpose(0, 2, 3, 1, 4) for part in split(qkv, heads))
    out = attend(query, key, value).transpose(0, 3, 1, 2, 4)
    return out.reshape(*qkv.shape[:-1], -1)
"""
)
KERNEL = """
def _kernel(qkv, out, *, heads):
    d = qkv.shape[3] // 3 // heads
    for h in range(heads):
        query, key, value = (qkv[0, 0, :, (i * heads + h) * d : (i * heads + h + 1) * d] for i in range(3))
        scores = query @ key.T / d**0.5
        weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
        out[0, 0, :, h * d : (h + 1) * d] = weights @ value / weights.sum(axis=1, keepdims=True)


def spatial_kernel(qkv, heads):
    b, t, s, fused = qkv.shape

    def block(channels):
        return pl.BlockSpec((1, 1, s, channels), lambda i, j: (i, j, 0, 0))

    return pl.pallas_call(
        functools.partial(_kernel, heads=heads),
        grid=(b, t),
        in_specs=[block(fused)],
        out_specs=block(fused // 3),
        out_shape=jax.ShapeDtypeStruct((b, t, s, fused // 3), qkv.dtype),
        interpret=True,
    )(qkv)
"""
MASKED = KERNEL.replace("def _kernel(qkv, out", "def _kernel(qkv, mask, out").replace(
    "spatial_kernel(qkv, heads)", "masked_kernel(qkv, heads, mask)"
).replace(
    "        weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))\n",
    "        seen = mask[0, 0] != 0\n"
    "        scores = jnp.where(seen, scores, -1e30)\n"
    "        weights = jnp.where(seen, jnp.exp(scores - scores.max(axis=1, keepdims=True)), 0.0)\n",
).replace(
    "weights @ value / weights.sum(axis=1, keepdims=True)",
    "weights @ value / jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-30)",
).replace(
    "in_specs=[block(fused)]", "in_specs=[block(fused), pl.BlockSpec((1, 1, 1, s), lambda i, j: (i, j, 0, 0))]"
).replace(")(qkv)", ")(qkv, mask[:, :, None].astype(jnp.int32))")  # fmt: skip
BACKWARD = """
def _kernel(qkv, cotangent, out, *, heads):
    d = qkv.shape[3] // 3 // heads
    for h in range(heads):
        lanes = [slice((i * heads + h) * d, (i * heads + h + 1) * d) for i in range(3)]
        query, key, value = (qkv[0, 0, :, part] for part in lanes)
        of_out = cotangent[0, 0, :, h * d : (h + 1) * d]
        scores = query @ key.T / d**0.5
        weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
        weights = weights / weights.sum(axis=1, keepdims=True)
        of_weights = of_out @ value.T
        of_scores = weights * (of_weights - (of_weights * weights).sum(axis=1, keepdims=True))
        out[0, 0, :, lanes[0]] = of_scores @ key / d**0.5
        out[0, 0, :, lanes[1]] = of_scores.T @ query / d**0.5
        out[0, 0, :, lanes[2]] = weights.T @ of_out


def spatial_kernel_vjp(qkv, out_cotangent, heads):
    b, t, s, fused = qkv.shape

    def block(channels):
        return pl.BlockSpec((1, 1, s, channels), lambda i, j: (i, j, 0, 0))

    return pl.pallas_call(
        functools.partial(_kernel, heads=heads),
        grid=(b, t),
        in_specs=[block(fused), block(fused // 3)],
        out_specs=block(fused),
        out_shape=jax.ShapeDtypeStruct(qkv.shape, qkv.dtype),
        interpret=True,
    )(qkv, out_cotangent)
"""
TWO_HEADS = """
def _kernel(qkv, out):
    query, key, value = (qkv[0, :, 128 * i : 128 * (i + 1)] for i in range(3))
    first = jax.lax.broadcasted_iota(jnp.int32, (1, 128), 1) < 64
    results = []
    for own in (first, ~first):
        scores = jnp.where(own, query, 0.0) @ key.T / 8.0
        weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
        results.append(weights @ value / weights.sum(axis=1, keepdims=True))
    out[0] = jnp.where(first, *results)


def two_heads(qkv, heads):
    _, n, _ = qkv.shape
    shape = jax.ShapeDtypeStruct((1, n, 128), qkv.dtype)
    return pl.pallas_call(_kernel, out_shape=shape, interpret=True)(qkv)
"""
NORM_DENSE = """
def _kernel(x, scale, bias, kernel, dense_bias, out, *, epsilon):
    mean = x[...].mean(axis=1, keepdims=True)
    variance = ((x[...] - mean) ** 2).mean(axis=1, keepdims=True)
    normal = (x[...] - mean) / jnp.sqrt(variance + epsilon) * scale[...] + bias[...]
    out[...] = normal @ kernel[...] + dense_bias[...]


def norm_dense(tokens, scale, bias, kernel, dense_bias, epsilon):
    (n, c), f = tokens.shape, kernel.shape[1]

    def whole(*shape):
        return pl.BlockSpec(shape, lambda i: (0, 0))

    return pl.pallas_call(
        functools.partial(_kernel, epsilon=epsilon),
        grid=(n // 4,),
        in_specs=[pl.BlockSpec((4, c), lambda i: (i, 0)), whole(1, c), whole(1, c), whole(c, f), whole(1, f)],
        out_specs=pl.BlockSpec((4, f), lambda i: (i, 0)),
        out_shape=jax.ShapeDtypeStruct((n, f), tokens.dtype),
        interpret=True,
    )(tokens, scale[None], bias[None], kernel, dense_bias[None])
"""
HASH = """
FACTORS = (-1640531535, 2146121005, -2073254261)


def shifted(x, by):
    return jax.lax.shift_right_logical(x, jnp.full_like(x, by))


def hash_dropout(first, second, counter, rate):
    x = counter * FACTORS[0] + first
    x = (x ^ shifted(x, 16)) * FACTORS[1]
    x = (x ^ shifted(x, 15)) + second
    x = (x ^ shifted(x, 16)) * FACTORS[2]
    x = x ^ shifted(x, 15)
    return jnp.where(shifted(x, 8) >= round(rate * 2**24), 1 / (1 - rate), 0.0)
"""
NORM_VJP = """
def layer_norm_vjp(x, scale, epsilon, out_cotangent):
    mean = x.mean(axis=-1, keepdims=True)
    deviation = np.sqrt(((x - mean) ** 2).mean(axis=-1, keepdims=True) + epsilon)
    normal, g = (x - mean) / deviation, out_cotangent * scale
    return (g - g.mean(axis=-1, keepdims=True) - normal * (g * normal).mean(axis=-1, keepdims=True)) / deviation
"""
VJP = (
    SPLIT
    + """
def attention_vjp(qkv, out_cotangent, heads):
    first = (0, 1, 3, 2, 4)
    query, key, value = (part.transpose(first) for part in split(qkv, heads))
    out = out_cotangent.reshape(*qkv.shape[:3], heads, -1).transpose(first)
    scale = query.shape[-1] ** -0.5
    weights = weights_of(query @ key.swapaxes(-1, -2) * scale)
    of_weights = out @ value.swapaxes(-1, -2)
    of_scores = weights * (of_weights - (of_weights * weights).sum(axis=-1, keepdims=True))
    found = of_scores @ key * scale, of_scores.swapaxes(-1, -2) @ query * scale, weights.swapaxes(-1, -2) @ out
    return np.concatenate([part.transpose(first).reshape(*qkv.shape[:3], -1) for part in found], axis=-1)
"""
)
MASKED_ATTENTION = (
    SPLIT
    + """
def masked_attention(qkv, heads, mask):
    c = qkv.shape[-1] // 3
    read = np.where(mask[..., None], qkv, 0.0)
    qkv = np.concatenate([np.nan_to_num(qkv[..., :c]), read[..., c:]], axis=-1)
    query, key, value = (part.transpose(0, 2, 1, 3) for part in split(qkv, heads))
    scores = query @ key.swapaxes(-1, -2) / query.shape[-1] ** 0.5
    weights = np.where(mask[:, None, None], weights_of(np.where(mask[:, None, None], scores, -1e30)), 0.0)
    return (weights @ value).transpose(0, 2, 1, 3).reshape(*mask.shape, c)
"""
)
ONLINE = """
def online_softmax(out, total, largest, query, key, value):
    scores = query @ key.T / query.shape[1] ** 0.5
    new = np.maximum(largest, scores.max(axis=1, keepdims=True))
    weights, old = np.exp(scores - new), np.exp(largest - new)
    return out * old + weights @ value, total * old + weights.sum(axis=1, keepdims=True), new
"""
TILED = """
def _kernel(scores_ref, out_ref):
    scores = scores_ref[...]
    weights = jnp.exp(scores - scores.max(axis=1, keepdims=True))
    out_ref[...] = weights / weights.sum(axis=1, keepdims=True)


def tiled_softmax(scores, block):
    n, k = scores.shape
    rows = pl.BlockSpec((block, k), lambda i: (i, 0))
    shape = jax.ShapeDtypeStruct((n, k), scores.dtype)
    return pl.pallas_call(
        _kernel, grid=(n // block,), in_specs=[rows], out_specs=rows, out_shape=shape, interpret=True
    )(scores)
"""
FRAMES = """
def frame_indices(frames, sampled_frames):
    if sampled_frames >= frames:
        return np.arange(frames)
    numbers = [round(Fraction(k * frames, sampled_frames + 1)) for k in range(1, sampled_frames + 1)]
    return np.minimum(numbers, frames - 1)
"""
TUBELETS = """
def tubelet_embed(video, kernel, bias):
    (b, frames, height, width, _), (t, h, w, _, c) = video.shape, kernel.shape
    cut = video.reshape(b, frames // t, t, height // h, h, width // w, w, 3).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    return cut.reshape(b, frames // t, -1, t * h * w * 3) @ kernel.reshape(-1, c) + bias
"""
POSITIONS = """
def sinusoidal_positions(n, channels):
    angles = np.outer(np.arange(n), 10000.0 ** (-np.arange(0, channels, 2) / channels))
    return np.stack([np.sin(angles), np.cos(angles)], axis=-1).reshape(n, channels)
"""
MASKS = """
def attention_masks(t, s):
    time, position = np.divmod(np.arange(t * s), s)
    return time[:, None] == time, position[:, None] == position
"""
ROLLOUT = """
def rollout(weights):
    result = np.eye(weights.shape[-1])
    for layer in weights:
        result = (layer.mean(axis=0) + np.eye(weights.shape[-1])) / 2 @ result
    return result
"""
HALVES = (
    SPLIT
    + SPATIAL
    + TEMPORAL
    + """
def factorised_dot_product(qkv, heads):
    *tokens, fused = qkv.shape
    parts = qkv.reshape(*tokens, 3, 2, fused // 6)
    first, second = (parts[..., i, :].reshape(*tokens, fused // 2) for i in range(2))
    return np.concatenate([temporal(first, heads // 2), spatial(second, heads // 2)], axis=-1)
"""
)
BREAK_ONLINE = """
def break_online_softmax():
    return np.ones((1, 1)), np.array([[0.0], [0.0], [0.0], [1.0]]), np.ones((4, 1))
"""
BREAK_NORM = """
def break_layer_norm():
    return np.array([[10000.0, 10001.0]])
"""
KILL_FRAMES = """
def kill_frame_indices(frame_indices):
    assert list(frame_indices(8, 3)) == [2, 4, 6]
    assert list(frame_indices(5, 1)) == [2]
"""
KILL_SOFTMAX = """
def kill_softmax(softmax):
    scores = np.array([0.0, 1.0, 1000.0])
    assert np.abs(softmax(scores) - [0.0, 0.0, 1.0]).max() < 1e-5
    assert np.abs(softmax(scores[:2]) - [0.26894142, 0.73105858]).max() < 1e-5
"""
NO_SCALE = (" / query.shape[-1] ** 0.5", "")

ANSWERS = {
    "frame_indices": Answer(
        FRAMES,
        (
            ("round(Fraction(", "int(Fraction("),
            ("sampled_frames + 1))", "sampled_frames))"),
            ("range(1, ", "range(0, "),
        ),
    ),
    "tubelet_embed": Answer(
        TUBELETS, (("(0, 1, 3, 5, 2, 4, 6, 7)", "(0, 1, 5, 3, 2, 4, 6, 7)"), ("6, 7)", "7, 6)"), (" + bias", ""))
    ),
    "sinusoidal_positions": Answer(
        POSITIONS,
        (
            ("np.sin(angles), np.cos(angles)", "np.cos(angles), np.sin(angles)"),
            ("axis=-1", "axis=1"),
            (
                "stack([np.sin(angles), np.cos(angles)], axis=-1)",
                "concatenate([np.sin(angles), np.cos(angles)], axis=-1)",
            ),
        ),
    ),
    "inflate": Answer(
        "def inflate(image_kernel, time):\n    return np.stack([image_kernel / time] * time)\n",
        ((" / time", ""), ("time] * time)", "time] * time, axis=2)"), ("/ time]", "/ 2]")),
    ),
    "softmax": Answer(
        SPLIT.replace("weights_of", "softmax"),
        (
            (" - scores.max(axis=-1, keepdims=True)", ""),
            ("sum(axis=-1", "sum(axis=-2"),
            ("- scores.max(axis=-1, keepdims=True)", "/ scores.max()"),
        ),
    ),
    "attention_masks": Answer(
        MASKS,
        (
            ("divmod(np.arange(t * s), s)", "divmod(np.arange(t * s), t)"),
            ("time, position =", "position, time ="),
            ("== position", ">= position"),
        ),
    ),
    "spatial": Answer(
        SPATIAL,
        (
            NO_SCALE,
            ("- scores.max(axis=-1, keepdims=True)", ""),
            ("qkv.shape[:-1], -1)", "qkv.shape[:-1], -1)[..., ::-1]"),
        ),
    ),
    "temporal": Answer(TEMPORAL, (NO_SCALE, ("(0, 2, 3, 1, 4)", "(0, 1, 3, 2, 4)"), ("sum(axis=-1", "sum(axis=-2"))),
    "factorised_dot_product": Answer(
        HALVES,
        (
            ("[temporal(first, heads // 2), spatial(second,", "[spatial(first, heads // 2), temporal(second,"),
            ("3, 2, fused // 6)", "2, 3, fused // 6).swapaxes(-2, -3)"),
            NO_SCALE,
        ),
    ),
    "masked_attention": Answer(
        MASKED_ATTENTION,
        (
            ("np.where(mask[..., None], qkv, 0.0)", "qkv"),
            ("mask[:, None, None]", "mask[:, None, :, None]"),
            ("scores, -1e30", "scores, 0.0"),
        ),
    ),
    "layer_norm_vjp": Answer(
        NORM_VJP,
        (
            (" - g.mean(axis=-1, keepdims=True)", ""),
            (" * scale", ""),
            ("mean(axis=-1, keepdims=True)) / deviation", "mean()) / deviation"),
        ),
    ),
    "attention_vjp": Answer(
        VJP,
        (
            (" - (of_weights * weights).sum(axis=-1, keepdims=True)", ""),
            ("weights.swapaxes(-1, -2) @ out", "weights @ out"),
            ("@ query * scale", "@ query"),
        ),
    ),
    "rollout": Answer(
        ROLLOUT,
        (
            ("/ 2 @ result", "@ result"),
            ("in weights:", "in weights[::-1]:"),
            ("mean(axis=0) + np.eye(weights.shape[-1])) / 2", "mean(axis=0))"),
        ),
    ),
    "online_softmax": Answer(
        ONLINE,
        (
            ("out * old", "out"),
            ("total * old", "total"),
            ("np.maximum(largest, scores.max(axis=1, keepdims=True))", "scores.max(axis=1, keepdims=True)"),
        ),
    ),
    "tiled_softmax": Answer(
        TILED,
        (
            (" - scores.max(axis=1, keepdims=True)", ""),
            ("sum(axis=1", "sum(axis=0"),
            ("lambda i: (i, 0)", "lambda i: (0, 0)"),
        ),
    ),
    "spatial_kernel": Answer(
        KERNEL,
        (
            (" / d**0.5", ""),
            ("(i * heads + h) * d : (i * heads + h + 1) * d", "(3 * h + i) * d : (3 * h + i + 1) * d"),
            ("lambda i, j: (i, j, 0, 0)", "lambda i, j: (i, 0, 0, 0)"),
        ),
    ),
    "masked_kernel": Answer(
        MASKED,
        (
            ("jnp.where(seen, jnp.exp", "jnp.where(True, jnp.exp"),
            ("mask[0, 0] != 0", "mask[0, 0] == 0"),
            ("jnp.maximum(weights.sum(axis=1, keepdims=True), 1e-30)", "weights.sum(axis=1, keepdims=True)"),
        ),
    ),
    "two_heads": Answer(
        TWO_HEADS,
        (
            ("jnp.where(own, query, 0.0)", "query"),
            ("(first, ~first)", "(~first, first)"),
            ("jnp.where(own, query, 0.0) @ key.T", "query[:, :64] @ key[:, :64].T"),
        ),
    ),
    "spatial_kernel_vjp": Answer(
        BACKWARD,
        (
            (" - (of_weights * weights).sum(axis=1, keepdims=True)", ""),
            ("of_scores.T @ query", "of_scores @ query"),
            ("@ key / d**0.5", "@ key"),
        ),
    ),
    "hash_dropout": Answer(
        HASH,
        (
            ("1 / (1 - rate), 0.0", "1.0, 0.0"),
            ("shift_right_logical", "shift_right_arithmetic"),
            (">= round", "< round"),
        ),
    ),
    "norm_dense": Answer(
        NORM_DENSE,
        ((" + bias[...]", ""), ("jnp.sqrt(variance + epsilon)", "(variance + epsilon)"), (" - mean) / jnp", ") / jnp")),
    ),
    "break_online_softmax": Answer(
        BREAK_ONLINE,
        (
            ("[0.0], [0.0], [0.0], [1.0]", "[1.0], [0.0], [0.0], [0.0]"),
            ("(1, 1)", "(2, 1)"),
            ("[0.0], [1.0]]), np.ones((4, 1))", "[1.0]]), np.ones((3, 1))"),
        ),
    ),
    "break_layer_norm": Answer(
        BREAK_NORM,
        (
            ("10000.0, 10001.0", "0.0, 1.0"),
            ("10000.0, 10001.0", "10000.0, 10001.0, 10002.0"),
            ("10000.0, 10001.0", "1e30, 2e30"),
        ),
    ),
    "kill_frame_indices": Answer(
        KILL_FRAMES,
        (
            ("    assert list(frame_indices(5, 1)) == [2]\n", ""),
            ("== [2]", "== [3]"),
            ("frame_indices(5, 1)", "frame_indices(5)"),
        ),
    ),
    "kill_softmax": Answer(KILL_SOFTMAX, (("1000.0", "10.0"), ("< 1e-5", "< 1e-12"), ("assert", "return"))),
}
