"""The puzzles in JAX: Pallas kernels, which run in Pallas's interpreter, and dropout by a hash."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from vivit.conformance.quickly import QUICKLY
from vivit.numerics.hash_dropout import keep
from vivit.puzzles.array_puzzles import EQUALITY, LARGE
from vivit.puzzles.puzzle import Axes, Call, Trial, against, joined, of_kit
from vivit.reference import layers
from vivit.reference.params import Dense, LayerNorm

JAX: dict[str, Any] = {"compiler_options": QUICKLY}
KERNEL = JAX | {"kernel": True}
TILED = KERNEL | {"grid": True}
FEW_HEADS: Axes = {"b": (1, 2, 3), "t": (2, 3, 4), "s": (3, 4, 5), "heads": (1, 2, 3), "d": (5, 6, 7)}  # unrolled
LANES: Axes = {"b": (1,), "t": (1,), "s": (3, 5, 6, 7), "heads": (2,), "d": (64,)}
BLOCK = 4  # rows


def norm_dense(
    tokens: np.ndarray, scale: np.ndarray, bias: np.ndarray, kernel: np.ndarray, dense_bias: np.ndarray, epsilon: float
) -> np.ndarray:
    """LN(z) W + b, float[n f]."""
    return layers.dense(layers.layer_norm(tokens, LayerNorm(scale, bias), epsilon), Dense(kernel, dense_bias))


def hash_dropout(first: np.ndarray, second: np.ndarray, counter: np.ndarray, rate: float) -> np.ndarray:
    """The multipliers that production draws."""
    return np.asarray(keep((jnp.asarray(first), jnp.asarray(second)), jnp.asarray(counter), rate))


def _rows(trial: Trial) -> list[Any]:
    blocks, k = trial.sizes
    return [*trial.values((BLOCK * blocks, k)), BLOCK]


def _norm_dense(trial: Trial) -> list[Any]:
    blocks, c, f = trial.sizes
    return [*trial.values((BLOCK * blocks, c), (c,), (c,), (c, f), (f,)), 1e-6]


def _hash(trial: Trial) -> list[Any]:
    q, k = trial.sizes
    generator = np.random.default_rng(trial.seed)
    first, second = generator.integers(-(2**31), 2**31, (2, 1, 1), dtype=np.int32)
    return [first, second, np.arange(q * k, dtype=np.int32).reshape(q, k), float(generator.choice((0.1, 0.3, 0.6)))]


def _unmasked(call: Call) -> Callable[..., np.ndarray]:
    return lambda qkv, heads, *, mask: joined(call, qkv, heads, mask)


PUZZLES = (
    against(
        lambda scores, block: layers.softmax(scores),
        _rows,
        {"blocks": (2, 3), "k": (5, 6, 7)},
        scales=(1.0, 100.0),
        condition=lambda scores, block: max(1.0, float(np.abs(scores).max())),
        name="tiled_softmax",
        number=15,
        points=2,
        ours="vivit.kernels.softmax_av.attend",
        rules=TILED,
    ),
    of_kit(
        "spatial",
        (EQUALITY, LARGE),
        FEW_HEADS,
        name="spatial_kernel",
        number=16,
        points=3,
        ours="vivit.kernels.spatial.forward",
        rules=TILED,
    ),
    of_kit(
        "spatial",
        ("masks", "rows without a key"),
        FEW_HEADS,
        name="masked_kernel",
        number=17,
        points=3,
        ours="vivit.kernels.spatial.forward",
        rules=TILED,
        adapt=_unmasked,
    ),
    of_kit(
        "joint",
        (EQUALITY,),
        LANES,
        name="two_heads",
        number=18,
        points=3,
        ours="vivit.kernels.softmax_av.attend",
        rules=KERNEL | {"without": 64},
    ),
    of_kit(
        "spatial_vjp",
        (EQUALITY,),
        FEW_HEADS,
        name="spatial_kernel_vjp",
        number=19,
        points=4,
        ours="vivit.kernels.spatial.backward",
        rules=TILED,
    ),
    against(
        hash_dropout,
        _hash,
        {"q": (1, 2, 3), "k": (2, 3, 4, 5)},
        name="hash_dropout",
        number=20,
        points=2,
        ours="vivit.numerics.hash_dropout.keep",
        rules=JAX,
    ),
    against(
        norm_dense,
        _norm_dense,
        {"blocks": (2, 3), "c": (5, 6, 7), "f": (3, 4, 8)},
        name="norm_dense",
        number=21,
        points=3,
        ours="vivit.kernels.dense.norm_dense",
        rules=KERNEL,
    ),
)
