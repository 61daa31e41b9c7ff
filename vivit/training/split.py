"""The models' layers split over a mesh: what every device does with its part of the tokens and of the weights.

A layer is one jax.shard_map, so that Pallas kernels run in it and every collective is written down here:

* Weights are gathered over the axes that they are kept over, used and forgotten; their gradients are summed and
  scattered back. Each device of the "model" axis gets the query, key and value of its own heads, by an all-to-all.
* Over "model" each device computes its heads and its part of the hidden layer, and the branches are summed.
* Over "sequence" tokens are split by time. Attention over space and the MLP need nothing of the others; for attention
  over time tokens are exchanged, to be split by space (models 3 and 4). Joint attention (model 1) exchanges tokens for
  heads, so that each device attends with some heads over all tokens. Model 2's temporal encoder, one token a frame, is
  computed by all devices of the axis alike.

Dropout is drawn for the whole batch and then split, so results are those of one device but for rounding.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from vivit.encoder import Kind, attention_residual, mlp_residual
from vivit.kernels.dropout import Dropout
from vivit.models import Parts
from vivit.reference.config import Config
from vivit.reference.dropout import AttentionDrops, BlockDrops, FactorisedBlockDrops, MlpDrops
from vivit.reference.params import Attention, Dense, Mlp, Params, convert, leaves
from vivit.training import exchange
from vivit.training.exchange import own_part
from vivit.training.sharding import check_mesh, specs

CORES = {
    "spatio_temporal": "joint",
    "factorised_encoder": "spatial",
    "factorised_self_attention": "factorised_self_attention",
    "factorised_dot_product": "factorised_dot_product",
}
BY_TIME = PartitionSpec("data", "sequence", None, None)  # [b t s c]
BY_SPACE = PartitionSpec("data", None, "sequence", None)


class Plan(NamedTuple):
    """One encoder's layers on a mesh."""

    mesh: Mesh
    core: str  # of CORES
    sequence: int  # devices that tokens are split over
    stored: Any  # a layer's parameters' PartitionSpecs, as a tuple of (path, spec)
    tokens: int = 0  # of a joint sequence, without what fills it up

    @property
    def model(self) -> int:
        return self.mesh.shape["model"]

    @property
    def groups(self) -> int:
        """Runs of heads of which every device has some: model 4's two halves."""
        return 2 if self.core == "factorised_dot_product" else 1


def over(mesh: Mesh, config: Config) -> Callable[[Parts], Parts]:
    """For `forward(…, split=over(mesh, config))`: the model's parts on a mesh of sharding.AXES.

    Parameters are whole_ends of what sharding.specs keeps, examples split over "data". Stages cannot be captured.
    Raises ValueError if the model's work does not divide by the mesh.
    """
    check_mesh(config, mesh)
    kept = specs(config, mesh)
    sequence = mesh.shape["sequence"]

    def split(parts: Parts) -> Parts:
        def embed(video: jax.Array, params: Dense) -> jax.Array:
            tokens = parts.embed(_constrained(video, mesh, PartitionSpec("data")), params)
            by_time = "sequence" if tokens.shape[1] % sequence == 0 else None
            return _constrained(tokens, mesh, PartitionSpec("data", by_time))

        def encode(tokens, params, config, positions, block, *, mask=None, capture=None, name="encoder", **options):
            if capture is not None:
                raise ValueError("capture is given: it must be None where the model is split over devices")
            temporal = name == "temporal_encoder"
            core = "joint" if temporal else CORES[config.model]
            stored = tuple((path, _without_layers(spec)) for path, spec in leaves(getattr(kept, name).blocks))
            plan = Plan(mesh, core, 1 if temporal else sequence, stored)
            encoded = partial(parts.encode, name=name, **options)
            if core != "joint" or plan.sequence == 1:
                return encoded(tokens, params, config, positions, _layer(plan), mask=mask)
            count = tokens.shape[1] + config.class_token
            missing = -count % sequence
            tokens = jnp.pad(tokens, ((0, 0), (0, missing), (0, 0)))
            positions = None if positions is None else jnp.pad(positions, ((0, missing), (0, 0)))
            tokens = encoded(tokens, params, config, positions, _layer(plan._replace(tokens=count)), mask=mask)
            return tokens[:, :count]

        return parts._replace(embed=embed, encode=encode)

    return split


def whole_ends(params: Params, mesh: Mesh) -> Params:
    """The parameters with all that is not of a layer put together on every device: how the ends of a model use them.

    Otherwise the compiler would split what they are added to as they are kept.
    """
    ends = iter(["/blocks/" not in path for path, _ in leaves(params)])
    return convert(params, lambda leaf: _constrained(leaf, mesh, PartitionSpec()) if next(ends) else leaf)


def _constrained(x: jax.Array, mesh: Mesh, spec: PartitionSpec) -> jax.Array:
    return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, spec))


def _without_layers(spec: PartitionSpec) -> PartitionSpec:
    return PartitionSpec(*tuple(spec)[1:])


@cache
def _layer(plan: Plan) -> Callable[..., jax.Array]:
    """A layer as encoder.encode takes it, on global arrays."""

    def layer(tokens, params, drops, capture, *, kind: Kind, mask):
        by_path = dict(plan.stored)
        kept = iter(by_path[path] for path, _ in leaves(params))
        params_specs = convert(params, lambda _: next(kept))
        self_attention = plan.core == "factorised_self_attention"
        drops = drops or (FactorisedBlockDrops() if self_attention else BlockDrops())
        spec = _tokens_spec(plan)
        drops_specs = type(drops)(
            *(_drops_specs(branch, BY_SPACE if name == "time" else spec) for name, branch in drops._asdict().items())
        )
        mask_spec = None if mask is None else PartitionSpec("data")
        body = partial(_self_attention_body if self_attention else _body, plan=plan, kind=kind, stored=params_specs)
        return jax.shard_map(
            body,
            mesh=plan.mesh,
            in_specs=(spec, params_specs, drops_specs, mask_spec),
            out_specs=spec,
            check_vma=False,  # kernels do not say over which axes their results vary
        )(tokens, params, drops, mask)

    return layer


def _tokens_spec(plan: Plan) -> PartitionSpec:
    if plan.core == "joint":
        return PartitionSpec("data", "sequence" if plan.sequence > 1 else None, None)
    return BY_TIME


def _drops_specs(drops: AttentionDrops | MlpDrops, tokens: PartitionSpec) -> Any:
    """Multipliers are split as the tokens are, the hidden layer's also by its width; seeds by example alone."""

    def spec(name: str, leaf: jax.Array | None) -> Any:
        if leaf is None:
            return None
        axes = [axis if size > 1 else None for axis, size in zip(tokens, leaf.shape, strict=True)]
        return PartitionSpec(*axes[:-1], "model" if name == "hidden" else None)

    found = {name: spec(name, leaf) for name, leaf in drops._asdict().items() if name != "weights"}
    if isinstance(drops, AttentionDrops):
        found["weights"] = jax.tree.map(lambda _: PartitionSpec("data"), drops.weights)
    return type(drops)(**found)


def _body(tokens, params, drops: BlockDrops, mask, *, plan: Plan, kind: Kind, stored):
    """One device's part of encoder.block."""
    weights, attention_drops = _own_heads(params.attention, stored.attention, drops.attention, plan)
    kind = kind._replace(heads=kind.heads // plan.model, exchange=_exchange(plan))
    core = plan.core
    residual = partial(attention_residual, core=core, drops=attention_drops, capture=None, kind=kind, mask=mask)
    tokens = _summed(plan, tokens, lambda tokens: residual(tokens, params.attention_norm, weights))
    return _mlp(tokens, params, drops.mlp, plan, kind, stored)


def _self_attention_body(tokens, params, drops: FactorisedBlockDrops, mask, *, plan: Plan, kind: Kind, stored):
    """One device's part of encoder.factorised_block: split by time, but by space for attention over time."""
    for axis in ("time", "space") if kind.order == "time_space" else ("space", "time"):
        weights, axis_drops = _own_heads(
            getattr(params, f"{axis}_attention"), getattr(stored, f"{axis}_attention"), getattr(drops, axis), plan
        )
        core = "temporal" if axis == "time" else "spatial"
        own = kind._replace(heads=kind.heads // plan.model, exchange=_exchange(plan._replace(core=core)))
        residual = partial(attention_residual, core=core, drops=axis_drops, capture=None, kind=own, mask=mask)
        norm = getattr(params, f"{axis}_norm")
        if core == "temporal":
            tokens = exchange.by_space(tokens, plan.sequence)
        tokens = _summed(plan, tokens, lambda tokens: residual(tokens, norm, weights))  # noqa: B023
        if core == "temporal":
            tokens = exchange.by_time(tokens, plan.sequence)
    return _mlp(tokens, params, drops.mlp, plan, kind, stored)


def _mlp(tokens, params, drops: MlpDrops, plan: Plan, kind: Kind, stored):
    hidden, out = params.mlp
    hidden = Dense(_gathered(hidden.kernel, 0, _names(stored.mlp.hidden.kernel[0])), hidden.bias)
    out = Dense(_gathered(out.kernel, 1, _names(stored.mlp.out.kernel[1])), _counted_once(out.bias, plan))
    residual = partial(mlp_residual, drops=drops, capture=None, kind=kind)
    return _summed(plan, tokens, lambda tokens: residual(tokens, params.mlp_norm, Mlp(hidden, out)))


def _summed(plan: Plan, tokens: jax.Array, residual: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """z + Σ over "model" of the branch: each device's residual has its part of it."""
    if plan.model == 1:
        return residual(tokens)
    return tokens + jax.lax.psum(residual(tokens) - tokens, "model")


def _own_heads(
    params: Attention, stored: Attention, drops: AttentionDrops, plan: Plan
) -> tuple[Attention, AttentionDrops]:
    """This device's heads of query, key, value and of the projection back: kernels [c 3c/m] and [c/m c].

    The kernels are kept split along the other axis: exchanged over "model" for heads, then gathered.
    """
    m, g = plan.model, plan.groups
    (kernel, bias), out = params.qkv, params.out
    rows, fused = kernel.shape
    columns = out.kernel.shape[1]
    width = fused // 3 // g // m  # of this device's heads in one run
    names = _names(stored.qkv.kernel[0])
    kernel = _exchanged(kernel.reshape(rows, 3 * g, m, width), 2, 0, names).reshape(-1, 3 * g * width)
    kernel = _gathered(kernel, 0, _but_model(names))
    bias = own_part(bias.reshape(3 * g, m, width), 1, "model", m).reshape(3 * g * width)
    names = _names(stored.out.kernel[1])
    back = _exchanged(out.kernel.reshape(g, m, width, columns), 1, 3, names)
    back = _gathered(back.reshape(g * width, -1), 1, _but_model(names))
    weights = drops.weights
    if isinstance(weights, Dropout):
        b, h, _ = weights.seeds.shape
        seeds = own_part(weights.seeds.reshape(b, g, m, h // g // m, 2), 2, "model", m)
        drops = drops._replace(weights=Dropout(seeds.reshape(b, h // m, 2), weights.rate))
    return Attention(Dense(kernel, bias), Dense(back, _counted_once(out.bias, plan))), drops


def _exchanged(x: jax.Array, heads: int, rows: int, names: tuple[str, ...]) -> jax.Array:
    """Own heads, along axis `heads` [.. m ..], of the rows of all devices of "model"; or of rows that all have."""
    if "model" not in names:
        return own_part(x, heads, "model", x.shape[heads])
    return jax.lax.all_to_all(x, "model", heads, rows, tiled=True)


def _but_model(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for name in names if name != "model")


def _names(entry: Any) -> tuple[str, ...]:
    """The mesh axes of one entry of a PartitionSpec."""
    return (entry,) if isinstance(entry, str) else entry or ()


def _gathered(x: jax.Array, axis: int, names: tuple[str, ...]) -> jax.Array:
    return jax.lax.all_gather(x, names, axis=axis, tiled=True) if names else x


def _counted_once(bias: jax.Array, plan: Plan) -> jax.Array:
    """The bias of a sum over "model": the first device's."""
    return bias if plan.model == 1 else jnp.where(jax.lax.axis_index("model") == 0, bias, jnp.zeros_like(bias))


def _exchange(plan: Plan) -> Callable[..., jax.Array] | None:
    """What attention_residual calls in place of a core, with this device's tokens and the whole mask."""
    return partial(exchange.CORES[plan.core], plan.sequence, plan.tokens) if plan.sequence > 1 else None
