"""Test problems for the attention cores under dropout, which vivit.conformance does not try, and small blocks."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accuracy import assert_as_accurate
from hypothesis import strategies as st
from strategies import normal, seeds

from vivit import attention as xla
from vivit.audit import baseline
from vivit.conformance.quickly import QUICKLY
from vivit.dropout import all_weights, weights_shape
from vivit.kernels.attention import BlockSizes
from vivit.numerics.hash_dropout import Dropout
from vivit.reference import attention as reference
from vivit.reference import gradients

# windows cut over the grid, sequences above 8 in blocks, keys in several
SMALL_BLOCKS = BlockSizes(
    longest=8, windows=1, positions=8, queries=16, queries_backward=16, keys=128, keys_backward=128
)


class Problem(NamedTuple):
    """A test problem: sizes, a seed, the scale of the scores, and the rates of masked keys and dropped weights."""

    shape: tuple[int, int, int, int, int]  # b t s heads d
    seed: int = 0
    scale: float = 1.0  # 100 gives scores of ±1e4
    masked: float = 0.0
    dropped: float = 0.0

    def arrays(self, core):
        """(qkv, cotangent of out, heads, {mask, dropout}) in the core's shapes, NumPy."""
        b, t, s, heads, d = self.shape
        generator = np.random.default_rng(self.seed)
        qkv = self.scale * normal(self.seed, b, t, s, 3 * heads * d)
        out = normal(self.seed + 1, b, t, s, heads * d)
        mask = generator.random((b, t, s)) >= self.masked
        if core == "joint":
            qkv, out, mask = (part.reshape(b, t * s, *part.shape[3:]) for part in (qkv, out, mask))
        per_axis = heads // 2 if core == "factorised_dot_product" else heads

        def multiplier(*shape):
            return np.float32((generator.random(shape) >= self.dropped) / (1 - self.dropped))

        over_time, over_space = multiplier(b, s, per_axis, t, t), multiplier(b, t, per_axis, s, s)
        dropout = {
            "joint": multiplier(b, heads, t * s, t * s),
            "spatial": over_space,
            "temporal": over_time,
            "factorised_dot_product": (over_time, over_space),
        }[core]
        return qkv, out, heads, {"mask": mask, "dropout": dropout}

    def drawn(self, core):
        """As arrays, but dropout is a `Dropout` as the kernels draw it, or None where nothing is dropped."""
        qkv, out, heads, options = self.arrays(core)
        if self.dropped == 0.0:
            return qkv, out, heads, options | {"dropout": None}
        numbers = np.random.default_rng(self.seed + 2).integers(-(2**31), 2**31, (self.shape[0], heads, 2))
        return qkv, out, heads, options | {"dropout": Dropout(jnp.asarray(numbers, jnp.int32), self.dropped)}


def problems(shapes, scales=(1.0, 100.0)):
    """Problems with these sizes [(b, t, s, heads, d)] and dropout: unmasked, masked, with small and large scores."""
    return st.builds(
        Problem,
        st.sampled_from(shapes),
        seeds,
        st.sampled_from(scales),
        st.sampled_from((0.0, 0.3, 1.0)),
        st.just(0.25),
    )


@cache
def compiled(function, heads, keywords):
    """Returns (qkv, cotangent, {mask, dropout}) → (core(qkv), cotangent of qkv), compiled once per shape."""
    production = function.__module__ == xla.__name__

    @partial(jax.jit, compiler_options=None if production else QUICKLY)
    def both(qkv, out, options):
        value, pull = jax.vjp(lambda qkv: function(qkv, heads, **options, **dict(keywords)), qkv)
        return value, *pull(out)

    return both


def value_and_gradient(module, core, dtype, qkv, out, heads, options, **keywords):
    """Returns (core(qkv), cotangent of qkv) in the dtype. keywords: further static arguments of the core."""
    both = compiled(getattr(module, core), heads, tuple(keywords.items()))
    results = both(jnp.asarray(qkv, dtype), jnp.asarray(out, dtype), jax.tree.map(jnp.asarray, options))
    assert all(result.dtype == dtype for result in results)
    return results


def expectation(core, qkv, out, heads, options):
    """(core(qkv), cotangent of qkv) by the reference, float64; dropout may be a `Dropout`."""
    if isinstance(options["dropout"], Dropout):
        draw = jax.jit(partial(all_weights, shape=weights_shape(core, qkv.shape[:-1], heads)), compiler_options=QUICKLY)
        options = options | {"dropout": draw(options["dropout"])}
    return (
        getattr(reference, core)(qkv, heads, **options),
        getattr(gradients, f"{core}_vjp")(qkv, out, heads, **options),
    )


def assert_accurate(module, core, dtype, qkv, out, heads, options, **keywords):
    """Asserts that values and gradients of module's core are as accurate as the baseline's, against the oracle."""
    actual = value_and_gradient(module, core, dtype, qkv, out, heads, options, **keywords)
    yardstick = value_and_gradient(baseline, core, dtype, qkv, out, heads, options)
    exact = [np.float64(values) for values in (qkv, out)]
    expected = expectation(core, *exact, heads, options)
    split = [*reference.split(exact[0], heads), exact[1].reshape(*out.shape[:-1], heads, -1)]
    query, key, value, cotangent = (part.reshape(-1, *part.shape[-2:]) for part in split)
    root = np.sqrt(query.shape[-1])
    condition = max(1.0, np.abs(np.einsum("qhd,khd->hqk", query, key)).max() / root)
    # the scores' cotangent is a difference of two numbers as large as this: of weights near 0 and 1 nothing is left
    weights_cotangent = np.abs(np.einsum("qhd,khd->hqk", cotangent, value)).max()
    terms = 2 * weights_cotangent * max(np.abs(query).max(), np.abs(key).max()) / root
    values, slopes = zip(actual, yardstick, expected, strict=True)
    assert_as_accurate(*values, dtype, "value", depth=1, condition=condition)
    assert_as_accurate(*slopes, dtype, "gradient", depth=2, condition=condition, terms=terms)
