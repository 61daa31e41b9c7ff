"""What an attention core is asked in the tests of XLA's and of the kernels' forms, and how it is compared."""

from functools import cache, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from accuracy import assert_as_accurate
from hypothesis import strategies as st
from quickly import QUICKLY
from strategies import normal, seeds

from vivit import attention as xla
from vivit import baseline
from vivit.reference import attention as reference
from vivit.reference import gradients


class Problem(NamedTuple):
    """What a core is asked: sizes, a seed for the values, the scores' scale, how many keys and weights are dropped."""

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


def problems(shapes):
    """Problems of these sizes [(b, t, s, heads, d)], plain and masked and dropped, with small and with large scores."""
    return st.builds(
        Problem,
        st.sampled_from(shapes),
        seeds,
        st.sampled_from((1.0, 100.0)),
        st.sampled_from((0.0, 0.3, 1.0)),
        st.sampled_from((0.0, 0.25)),
    )


@cache
def compiled(function, heads, keywords):
    """(qkv, cotangent, {mask, dropout}) → (core(qkv), cotangent of qkv), compiled once for each shape."""
    production = function.__module__ == xla.__name__

    @partial(jax.jit, compiler_options=None if production else QUICKLY)
    def both(qkv, out, options):
        value, pull = jax.vjp(lambda qkv: function(qkv, heads, **options, **dict(keywords)), qkv)
        return value, *pull(out)

    return both


def value_and_gradient(module, core, dtype, qkv, out, heads, options, **keywords):
    """(core(qkv), cotangent of qkv) in the dtype; keywords: more static arguments of the core."""
    both = compiled(getattr(module, core), heads, tuple(keywords.items()))
    results = both(jnp.asarray(qkv, dtype), jnp.asarray(out, dtype), jax.tree.map(jnp.asarray, options))
    assert all(result.dtype == dtype for result in results)
    return results


def assert_accurate(module, core, dtype, qkv, out, heads, options, **keywords):
    """Values and gradients of module's core are as accurate as the plain formulation's, against the oracle."""
    actual = value_and_gradient(module, core, dtype, qkv, out, heads, options, **keywords)
    yardstick = value_and_gradient(baseline, core, dtype, qkv, out, heads, options)
    exact = [np.float64(values) for values in (qkv, out)]
    expected = (
        getattr(reference, core)(exact[0], heads, **options),
        getattr(gradients, f"{core}_vjp")(*exact, heads, **options),
    )
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
