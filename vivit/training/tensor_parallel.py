"""Shards the ops of a model over a mesh: what each device does with its shards of tokens and weights.

Each op of a layer is one jax.shard_map, so that Pallas kernels run inside it and every collective is explicit:

* FSDP: all-gather weights before use, over the axes that they are stored over; reduce-scatter gradients. An all-to-all
  gives each device of the "model" axis the query, key and value of its own heads.
* Tensor parallelism: each device of "model" computes its heads and its slice of the hidden layer; the branches are
  summed.
* Sequence parallelism: tokens are split by time over "sequence" (sequence_parallel.py). The temporal encoder of model
  2, with one token per frame, is computed redundantly by all devices of the axis.

Dropout is drawn for the whole batch and then split, so results equal those of one device up to rounding.
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
from vivit.reference.params import Dense, LayerNorm, Leaf, Mlp, Params, convert
from vivit.training import sequence_parallel
from vivit.training.sequence_parallel import local_slice
from vivit.training.sharding import check_mesh, leaf_spec

REPLICATED = PartitionSpec()


@lru_cache
def sharded(ops: Ops, mesh: Mesh, config: Config) -> Ops:
    """Returns ops on global arrays, sharded over a mesh of sharding.AXES: `forward(…, attention=sharded(ops, …))`.

    Parameters are sharded as in sharding.specs, with everything outside the layers replicated (replicate_outer);
    examples are split over "data". Stages cannot be captured. Raises ValueError if the model's work is not divisible by
    the mesh.
    """
    check_mesh(config, mesh)
    return _Sharded(ops, mesh, config).ops()


def replicate_outer(params: Params, mesh: Mesh) -> Params:
    """Returns the parameters with every leaf outside the layers replicated, as embedding and heads use them.

    Without this the compiler would shard activations like the stored parameters that are added to them.
    """
    return convert(params, lambda path, leaf: leaf if "/blocks/" in path else _constrained(leaf, mesh, REPLICATED))


def _constrained(x: jax.Array, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


class _Sharded:
    """The ops that `sharded` returns."""

    def __init__(self, ops: Ops, mesh: Mesh, config: Config) -> None:
        self.local, self.mesh = ops, mesh  # the ops of one device
        self.sequence, self.model = mesh.shape["sequence"], mesh.shape["model"]
        # groups of heads that are each split over the devices
        self.halves = 2 if config.model == "factorised_dot_product" else 1
        self.joint_split = config.model == "spatio_temporal" and self.sequence > 1
        time, height, width = config.grid
        self.joint_tokens = time * height * width + config.class_token

    def ops(self) -> Ops:
        local, parts = self.local, self.sequence
        joint, spatial, temporal, factorised = local.joint, local.spatial, local.temporal, local.factorised_dot_product
        if parts > 1:
            spatial = partial(sequence_parallel.spatial, local.spatial, parts)
            temporal = partial(sequence_parallel.temporal, local.temporal, parts)
            factorised = partial(sequence_parallel.factorised_dot_product, local.temporal, local.spatial, parts)
        if self.joint_split:
            joint = partial(sequence_parallel.joint, local.joint, self.joint_tokens, parts)
        return local._replace(
            embed=self.embed,
            norm_dense=self.norm_dense,
            joint=partial(self.attend, joint),
            spatial=partial(self.attend, spatial),
            temporal=partial(self.attend, temporal),
            factorised_dot_product=partial(self.attend, factorised),
            residual_dense=self.residual_dense,
            residual_mlp=self.residual_mlp,
            multiple=parts if self.joint_split else 1,
            residual_dense_mlp=None,
            scan=None,
        )

    def embed(self, video: jax.Array, params: Dense) -> jax.Array:
        tokens = self.local.embed(_constrained(video, self.mesh, PartitionSpec("data")), params)
        by_time = "sequence" if tokens.shape[1] % self.sequence == 0 else None
        return _constrained(tokens, self.mesh, PartitionSpec("data", by_time))

    def norm_dense(
        self, tokens: jax.Array, norm: LayerNorm, params: Dense, layer: LayerConfig
    ) -> tuple[jax.Array, jax.Array]:
        """Returns qkv over "model", query, key and value of each device's heads together, and the normed tokens."""
        spec = self.tokens_spec(tokens.ndim)
        kernel = self.stored_spec(params.kernel, "c", "3c")

        def body(tokens: jax.Array, norm: LayerNorm, params: Dense) -> tuple[jax.Array, jax.Array]:
            return self.local.norm_dense(tokens, norm, self.local_heads(params, _names(kernel[0])), layer)

        specs = spec, LayerNorm(REPLICATED, REPLICATED), Dense(kernel, REPLICATED)
        return self.map(body, specs, (PartitionSpec(*spec[:-1], "model"), spec))(tokens, norm, params)

    def attend(self, attend: Op, qkv: jax.Array, heads: int, *, mask: Any, dropout: Any, capture: Any = None):
        if capture is not None:
            raise ValueError("capture is given: it must be None where the model is split over devices")
        spec = PartitionSpec(*self.tokens_spec(qkv.ndim)[:-1], "model")

        def body(qkv: jax.Array, mask: Any, dropout: Any) -> jax.Array:
            return attend(qkv, heads // self.model, mask=mask, dropout=self.local_seeds(dropout))

        data = PartitionSpec("data")
        specs = spec, None if mask is None else data, jax.tree.map(lambda _: data, dropout)
        return self.map(body, specs, spec)(qkv, mask, dropout)

    def residual_dense(
        self, tokens: jax.Array, x: jax.Array, params: Dense, drops: AttentionDrops, layer: LayerConfig
    ) -> jax.Array:
        drops = _padded(drops._replace(weights=None), tokens)
        spec = self.tokens_spec(tokens.ndim)
        kernel = self.stored_spec(params.kernel, "c", "c")

        def body(tokens: jax.Array, x: jax.Array, params: Dense, drops: AttentionDrops) -> jax.Array:
            own = self.local_rows(params, _names(kernel[1]))
            return self.psum_branch(tokens, lambda tokens: self.local.residual_dense(tokens, x, own, drops, layer))

        by_model = PartitionSpec(*spec[:-1], "model")
        specs = spec, by_model, Dense(kernel, REPLICATED), _drops_specs(drops, spec)
        return self.map(body, specs, spec)(tokens, x, params, drops)

    def residual_mlp(
        self, tokens: jax.Array, norm: LayerNorm, params: Mlp, drops: MlpDrops, layer: LayerConfig
    ) -> jax.Array:
        drops = _padded(drops, tokens)
        spec = self.tokens_spec(tokens.ndim)
        hidden_kernel, out_kernel = (
            self.stored_spec(params.hidden.kernel, "c", "f"),
            self.stored_spec(params.out.kernel, "f", "c"),
        )
        stored = Mlp(
            hidden=Dense(hidden_kernel, self.stored_spec(params.hidden.bias, "f")), out=Dense(out_kernel, REPLICATED)
        )

        def body(tokens: jax.Array, norm: LayerNorm, params: Mlp, drops: MlpDrops) -> jax.Array:
            hidden, out = params
            hidden = Dense(_all_gather(hidden.kernel, 0, _names(hidden_kernel[0])), hidden.bias)
            out = Dense(_all_gather(out.kernel, 1, _names(out_kernel[1])), self.first_device_only(out.bias))
            own = Mlp(hidden, out)
            return self.psum_branch(tokens, lambda tokens: self.local.residual_mlp(tokens, norm, own, drops, layer))

        specs = spec, LayerNorm(REPLICATED, REPLICATED), stored, _drops_specs(drops, spec)
        return self.map(body, specs, spec)(tokens, norm, params, drops)

    def map(self, body: Any, in_specs: Any, out_specs: Any) -> Any:
        # Pallas kernels do not declare the axes over which their results vary
        return jax.shard_map(body, mesh=self.mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)

    def tokens_spec(self, ndim: int) -> PartitionSpec:
        """Returns the PartitionSpec of tokens [b t s c] or [b n c]."""
        if ndim == 4:
            return PartitionSpec("data", "sequence", None, None)
        return PartitionSpec("data", "sequence" if self.joint_split else None, None)

    def stored_spec(self, leaf: jax.Array, *axes: str) -> PartitionSpec:
        """Returns the PartitionSpec that a layer's parameter is stored with (sharding.py)."""
        return leaf_spec(Leaf(leaf.shape, axes), self.mesh)

    def local_heads(self, params: Dense, names: tuple[str, ...]) -> Dense:
        """Returns the query, key and value projection of this device's heads: kernel [c 3c/m].

        names: mesh axes that the kernel's rows are stored over; "model" is exchanged for heads, the others are
        gathered.
        """
        m, groups = self.model, 3 * self.halves
        rows, fused = params.kernel.shape
        width = fused // groups // m  # of this device's heads in one group
        kernel = _exchange_heads(params.kernel.reshape(rows, groups, m, width), 2, 0, names).reshape(-1, groups * width)
        bias = local_slice(params.bias.reshape(groups, m, width), 1, "model", m).reshape(groups * width)
        return Dense(_all_gather(kernel, 0, _without_model(names)), bias)

    def local_rows(self, params: Dense, names: tuple[str, ...]) -> Dense:
        """Returns the output projection of this device's heads: kernel [c/m c]. names: the mesh axes of its columns."""
        m, groups = self.model, self.halves
        c, columns = params.kernel.shape
        width = c // groups // m
        kernel = _exchange_heads(params.kernel.reshape(groups, m, width, columns), 1, 3, names).reshape(
            groups * width, -1
        )
        return Dense(_all_gather(kernel, 1, _without_model(names)), self.first_device_only(params.bias))

    def local_seeds(self, dropout: Dropout | None) -> Dropout | None:
        """Returns the dropout of this device's heads."""
        if dropout is None:
            return None
        b, h, _ = dropout.seeds.shape
        m, groups = self.model, self.halves
        seeds = local_slice(dropout.seeds.reshape(b, groups, m, h // groups // m, 2), 2, "model", m)
        return Dropout(seeds.reshape(b, h // m, 2), dropout.rate)

    def psum_branch(self, tokens: jax.Array, residual: Op) -> jax.Array:
        """Returns z + Σ over "model" of the branches that the devices compute."""
        if self.model == 1:
            return residual(tokens)
        return tokens + jax.lax.psum(residual(tokens) - tokens, "model")

    def first_device_only(self, bias: jax.Array) -> jax.Array:
        """Returns the bias on the first device of "model" and zeros on the others, so that the sum adds it once."""
        return bias if self.model == 1 else jnp.where(jax.lax.axis_index("model") == 0, bias, jnp.zeros_like(bias))


def _padded(drops: Any, tokens: jax.Array) -> Any:
    """Pads per-token multipliers with zeros to the length of padded tokens."""

    def padded(leaf: jax.Array) -> jax.Array:
        missing = tokens.shape[-2] - leaf.shape[-2]
        if leaf.shape[-2] == 1 or not missing:
            return leaf
        return jnp.pad(leaf, [(0, 0)] * (leaf.ndim - 2) + [(0, missing), (0, 0)])

    return jax.tree.map(padded, drops)


def _drops_specs(drops: Any, tokens: PartitionSpec) -> Any:
    """Returns PartitionSpecs of dropout multipliers: as the tokens', and over "model" for those of the hidden layer."""

    def spec(name: str, leaf: jax.Array | None) -> PartitionSpec | None:
        if leaf is None:
            return None
        axes = [axis if size > 1 else None for axis, size in zip(tokens, leaf.shape, strict=True)]
        return PartitionSpec(*axes[:-1], "model" if name == "hidden" else None)

    return type(drops)(**{name: spec(name, leaf) for name, leaf in drops._asdict().items()})


def _exchange_heads(x: jax.Array, heads: int, rows: int, names: tuple[str, ...]) -> jax.Array:
    """Returns this device's heads, from axis `heads` [.. m ..], of the rows of all devices of "model".

    If the rows are not split over "model", no communication is needed.
    """
    if "model" not in names:
        return local_slice(x, heads, "model", x.shape[heads])
    return jax.lax.all_to_all(x, "model", heads, rows, tiled=True)


def _all_gather(x: jax.Array, axis: int, names: tuple[str, ...]) -> jax.Array:
    return jax.lax.all_gather(x, names, axis=axis, tiled=True) if names else x


def _without_model(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != "model")


def _names(entry: Any) -> tuple[str, ...]:
    """Returns the mesh axes of one entry of a PartitionSpec."""
    return (entry,) if isinstance(entry, str) else entry or ()
