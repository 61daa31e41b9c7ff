"""A model's ops on a mesh: what every device does with its part of the tokens and of the weights.

Each operation of a layer is one jax.shard_map, so that Pallas kernels run in it and every collective is written here:

* FSDP: weights are all-gathered before use over the axes that they are kept over; gradients are reduce-scattered. Each
  device of the "model" axis gets the query, key and value of its own heads, by an all-to-all.
* Tensor parallelism: over "model" each device computes its heads and its part of the hidden layer, and the branches are
  summed.
* Sequence parallelism: over "sequence" tokens are split by time (sequence_parallel.py). Model 2's temporal encoder, one
  token a frame, is computed by all devices of the axis alike.

Dropout is drawn for the whole batch and then split, so results are those of one device but for rounding.
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vivit.layers import LayerConfig
from vivit.numerics.hash_dropout import Dropout
from vivit.ops import Op, Ops
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, MlpDrops
from vivit.reference.params import Dense, LayerNorm, Leaf, Mlp, Params, convert, leaves
from vivit.training import sequence_parallel
from vivit.training.sequence_parallel import own_part
from vivit.training.sharding import check_mesh, leaf_spec

WHOLE = PartitionSpec()


@lru_cache
def sharded(ops: Ops, mesh: Mesh, config: Config) -> Ops:
    """The ops for a mesh of sharding.AXES, on global arrays: for `forward(…, attention=sharded(ops, mesh, config))`.

    Parameters are kept as sharding.specs says, with replicated ends (replicate_outer); examples are split over "data".
    Stages cannot be captured. Raises ValueError if the model's work does not divide by the mesh.
    """
    check_mesh(config, mesh)
    return _Sharded(ops, mesh, config).ops()


def replicate_outer(params: Params, mesh: Mesh) -> Params:
    """The parameters with all that is not of a layer replicated: how the ends of a model use them.

    Otherwise the compiler would split what they are added to as they are kept.
    """
    outer = iter(["/blocks/" not in path for path, _ in leaves(params)])
    return convert(params, lambda leaf: _constrained(leaf, mesh, WHOLE) if next(outer) else leaf)


def _constrained(x: jax.Array, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


class _Sharded:
    """The operations of `sharded`."""

    def __init__(self, ops: Ops, mesh: Mesh, config: Config) -> None:
        self.one, self.mesh = ops, mesh  # one device's
        self.sequence, self.model = mesh.shape["sequence"], mesh.shape["model"]
        self.halves = (
            2 if config.model == "factorised_dot_product" else 1
        )  # runs of heads of which each device has some
        self.joint_split = config.model == "spatio_temporal" and self.sequence > 1
        time, height, width = config.grid
        self.joint_tokens = time * height * width + config.class_token

    def ops(self) -> Ops:
        one, parts = self.one, self.sequence
        joint, spatial, temporal, factorised = one.joint, one.spatial, one.temporal, one.factorised_dot_product
        if parts > 1:
            spatial = partial(sequence_parallel.spatial, one.spatial, parts)
            temporal = partial(sequence_parallel.temporal, one.temporal, parts)
            factorised = partial(sequence_parallel.factorised_dot_product, one.temporal, one.spatial, parts)
        if self.joint_split:
            joint = partial(sequence_parallel.joint, one.joint, self.joint_tokens, parts)
        return one._replace(
            embed=self.embed,
            norm_dense=self.norm_dense,
            joint=partial(self.attend, joint),
            spatial=partial(self.attend, spatial),
            temporal=partial(self.attend, temporal),
            factorised_dot_product=partial(self.attend, factorised),
            residual_dense=self.residual_dense,
            residual_mlp=self.residual_mlp,
            multiple=parts if self.joint_split else 1,
        )

    def embed(self, video: jax.Array, params: Dense) -> jax.Array:
        tokens = self.one.embed(_constrained(video, self.mesh, PartitionSpec("data")), params)
        by_time = "sequence" if tokens.shape[1] % self.sequence == 0 else None
        return _constrained(tokens, self.mesh, PartitionSpec("data", by_time))

    def norm_dense(
        self, tokens: jax.Array, norm: LayerNorm, params: Dense, layer: LayerConfig
    ) -> tuple[jax.Array, jax.Array]:
        """qkv: each device's heads of query, key and value side by side, over "model"."""
        spec = self.tokens_spec(tokens.ndim)
        kernel = self.kept(params.kernel, "c", "3c")

        def body(tokens: jax.Array, norm: LayerNorm, params: Dense) -> tuple[jax.Array, jax.Array]:
            return self.one.norm_dense(tokens, norm, self.own_heads(params, _names(kernel[0])), layer)

        specs = spec, LayerNorm(WHOLE, WHOLE), Dense(kernel, WHOLE)
        return self.map(body, specs, (PartitionSpec(*spec[:-1], "model"), spec))(tokens, norm, params)

    def attend(self, attend: Op, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any, capture: Any = None):
        if capture is not None:
            raise ValueError("capture is given: it must be None where the model is split over devices")
        spec = PartitionSpec(*self.tokens_spec(qkv.ndim)[:-1], "model")

        def body(qkv: jax.Array, mask: Any, dropout: Any) -> jax.Array:
            return attend(qkv, heads // self.model, mask=mask, dropout=self.own_seeds(dropout))

        data = PartitionSpec("data")
        specs = spec, None if mask is None else data, jax.tree.map(lambda _: data, dropout)
        return self.map(body, specs, spec)(qkv, mask, dropout)

    def residual_dense(
        self, tokens: jax.Array, x: jax.Array, params: Dense, drops: AttentionDrops, layer: LayerConfig
    ) -> jax.Array:
        drops = _filled(drops._replace(weights=None), tokens)
        spec = self.tokens_spec(tokens.ndim)
        kernel = self.kept(params.kernel, "c", "c")

        def body(tokens: jax.Array, x: jax.Array, params: Dense, drops: AttentionDrops) -> jax.Array:
            own = self.own_rows(params, _names(kernel[1]))
            return self.summed(tokens, lambda tokens: self.one.residual_dense(tokens, x, own, drops, layer))

        by_model = PartitionSpec(*spec[:-1], "model")
        specs = spec, by_model, Dense(kernel, WHOLE), _drops_specs(drops, spec)
        return self.map(body, specs, spec)(tokens, x, params, drops)

    def residual_mlp(
        self, tokens: jax.Array, norm: LayerNorm, params: Mlp, drops: MlpDrops, layer: LayerConfig
    ) -> jax.Array:
        drops = _filled(drops, tokens)
        spec = self.tokens_spec(tokens.ndim)
        hidden_kernel, out_kernel = self.kept(params.hidden.kernel, "c", "f"), self.kept(params.out.kernel, "f", "c")
        stored = Mlp(hidden=Dense(hidden_kernel, self.kept(params.hidden.bias, "f")), out=Dense(out_kernel, WHOLE))

        def body(tokens: jax.Array, norm: LayerNorm, params: Mlp, drops: MlpDrops) -> jax.Array:
            hidden, out = params
            hidden = Dense(_gathered(hidden.kernel, 0, _names(hidden_kernel[0])), hidden.bias)
            out = Dense(_gathered(out.kernel, 1, _names(out_kernel[1])), self.counted_once(out.bias))
            own = Mlp(hidden, out)
            return self.summed(tokens, lambda tokens: self.one.residual_mlp(tokens, norm, own, drops, layer))

        specs = spec, LayerNorm(WHOLE, WHOLE), stored, _drops_specs(drops, spec)
        return self.map(body, specs, spec)(tokens, norm, params, drops)

    def map(self, body: Any, in_specs: Any, out_specs: Any) -> Any:
        # kernels do not say over which axes their results vary
        return jax.shard_map(body, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def tokens_spec(self, ndim: int) -> PartitionSpec:
        """Of tokens [b t s c], or [b n c]."""
        if ndim == 4:
            return PartitionSpec("data", "sequence", None, None)
        return PartitionSpec("data", "sequence" if self.joint_split else None, None)

    def kept(self, leaf: jax.Array, *axes: str) -> PartitionSpec:
        """How a layer's parameter is kept (sharding.py)."""
        return leaf_spec(Leaf(leaf.shape, axes), self.mesh)

    def own_heads(self, params: Dense, names: tuple[str, ...]) -> Dense:
        """This device's heads of query, key and value: kernel [c 3c/m].

        names: mesh axes that the kernel's rows are kept over: exchanged over "model" for heads, then gathered.
        """
        m, runs = self.model, 3 * self.halves
        rows, fused = params.kernel.shape
        width = fused // runs // m  # of this device's heads in one run
        kernel = _exchanged(params.kernel.reshape(rows, runs, m, width), 2, 0, names).reshape(-1, runs * width)
        bias = own_part(params.bias.reshape(runs, m, width), 1, "model", m).reshape(runs * width)
        return Dense(_gathered(kernel, 0, _but_model(names)), bias)

    def own_rows(self, params: Dense, names: tuple[str, ...]) -> Dense:
        """The projection back from this device's heads: kernel [c/m c]. names: of its columns, as own_heads's."""
        m, runs = self.model, self.halves
        c, columns = params.kernel.shape
        width = c // runs // m
        kernel = _exchanged(params.kernel.reshape(runs, m, width, columns), 1, 3, names).reshape(runs * width, -1)
        return Dense(_gathered(kernel, 1, _but_model(names)), self.counted_once(params.bias))

    def own_seeds(self, dropout: Dropout | None) -> Dropout | None:
        """Of this device's heads."""
        if dropout is None:
            return None
        b, h, _ = dropout.seeds.shape
        m, runs = self.model, self.halves
        seeds = own_part(dropout.seeds.reshape(b, runs, m, h // runs // m, 2), 2, "model", m)
        return Dropout(seeds.reshape(b, h // m, 2), dropout.rate)

    def summed(self, tokens: jax.Array, residual: Op) -> jax.Array:
        """z + Σ over "model" of the branch: each device's residual has its part of it."""
        if self.model == 1:
            return residual(tokens)
        return tokens + jax.lax.psum(residual(tokens) - tokens, "model")

    def counted_once(self, bias: jax.Array) -> jax.Array:
        """The bias of a sum over "model": the first device's."""
        return bias if self.model == 1 else jnp.where(jax.lax.axis_index("model") == 0, bias, jnp.zeros_like(bias))


def _filled(drops: Any, tokens: jax.Array) -> Any:
    """Multipliers of each token, as long as tokens that were filled up."""

    def filled(leaf: jax.Array) -> jax.Array:
        missing = tokens.shape[-2] - leaf.shape[-2]
        if leaf.shape[-2] == 1 or not missing:
            return leaf
        return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(0, missing), (0, 0)])

    return jax.tree.map(filled, drops)


def _drops_specs(drops: Any, tokens: PartitionSpec) -> Any:
    """Multipliers are split as the tokens are, the hidden layer's also by its width."""

    def spec(name: str, leaf: jax.Array | None) -> PartitionSpec | None:
        if leaf is None:
            return None
        axes = [axis if size > 1 else None for axis, size in zip(tokens, leaf.shape, strict=True)]
        return PartitionSpec(*axes[:-1], "model" if name == "hidden" else None)

    return type(drops)(**{name: spec(name, leaf) for name, leaf in drops._asdict().items()})


def _exchanged(x: jax.Array, heads: int, rows: int, names: tuple[str, ...]) -> jax.Array:
    """Own heads, along axis `heads` [.. m ..], of the rows of all devices of "model"; or of rows that all have."""
    if "model" not in names:
        return own_part(x, heads, "model", x.shape[heads])
    return jax.lax.all_to_all(x, "model", heads, rows, tiled=True)


def _gathered(x: jax.Array, axis: int, names: tuple[str, ...]) -> jax.Array:
    return jax.lax.all_gather(x, names, axis=axis, tiled=True) if names else x


def _but_model(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != "model")


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a PartitionSpec."""
    return (entry,) if isinstance(entry, str) else entry or ()
