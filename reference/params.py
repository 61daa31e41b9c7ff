"""The parameters of a model: a tree of NamedTuples, and the shape of every leaf.

The same classes hold np.ndarray in the reference and jax.Array in production. `shapes` is the only definition of the
shapes; initialisation, parameter counts, checks and sharding are derived from it. This file does no arithmetic.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from vivit.reference.config import COLORS, Config

Array = Any  # np.ndarray here, jax.Array in production, Leaf in shapes(config)


def _brief(self: Any) -> str:
    """The repr of a part of the tree in one line, with dtypes and shapes in place of the numbers."""
    fields = zip(self._fields, self, strict=True)
    return f"{type(self).__name__}({', '.join(f'{name}={_named(value)}' for name, value in fields)})"


def _named(value: Any) -> str:
    if not hasattr(value, "dtype"):
        return repr(value)
    return f"{value.dtype}[{' '.join(map(str, value.shape))}]"


def _size(tree: Any) -> int:
    """Returns the number of parameters in a tree."""
    return sum(math.prod(getattr(leaf, "shape", ())) for _, leaf in leaves(tree))


class Dense(NamedTuple):
    """A dense layer: x W + b."""

    kernel: Array  # [in out], in an encoder [l in out]
    bias: Array  # [out], in an encoder [l out]
    __repr__ = _brief


class LayerNorm(NamedTuple):
    """Scale and bias of a layer norm."""

    scale: Array  # [c], in an encoder [l c]
    bias: Array  # [c], in an encoder [l c]
    __repr__ = _brief


class Attention(NamedTuple):
    """The projections of one attention."""

    qkv: Dense  # kernel [l c 3c]: query, key and value concatenated, heads contiguous within each
    out: Dense  # kernel [l c c]
    __repr__ = _brief


class Mlp(NamedTuple):
    """The two dense layers of an MLP."""

    hidden: Dense  # kernel [l c f]
    out: Dense  # kernel [l f c]
    __repr__ = _brief


class Block(NamedTuple):
    """The parameters of one layer of models 1, 2 and 4."""

    attention_norm: LayerNorm
    attention: Attention
    mlp_norm: LayerNorm
    mlp: Mlp
    __repr__ = _brief


class FactorisedBlock(NamedTuple):
    """The parameters of one layer of model 3."""

    time_norm: LayerNorm
    time_attention: Attention
    space_norm: LayerNorm
    space_attention: Attention
    mlp_norm: LayerNorm
    mlp: Mlp
    __repr__ = _brief


class Encoder(NamedTuple):
    """The parameters of one encoder, layers stacked along a leading axis l."""

    class_token: Array | None  # [c]
    positions: Array | None  # [n c], the class token's first
    blocks: Block | FactorisedBlock
    norm: LayerNorm
    __repr__ = _brief


class Params(NamedTuple):
    """The parameters of a whole model."""

    embedding: Dense  # kernel [time height width colors c]
    encoder: Encoder  # the spatial encoder of model 2
    temporal_encoder: Encoder | None  # model 2 with temporal_layers > 0
    representation: Dense | None  # kernel [c r]
    head: Dense | None  # kernel [c v], or [r v] after a representation layer

    def __repr__(self) -> str:
        lines = (
            f"  {name}: {_size(tree):,}" for name, tree in zip(self._fields, self, strict=True) if tree is not None
        )
        return "\n".join([f"Params of {_size(self):,} numbers", *lines])


@dataclass(frozen=True)
class Leaf:
    """The description of one leaf: its shape, a name for each axis, and its initialiser."""

    shape: tuple[int, ...]
    axes: tuple[str, ...]
    initialiser: Literal["zeros", "ones", "lecun_normal", "xavier_uniform", "positions", "mlp_bias"] = "zeros"

    @property
    def size(self) -> int:
        return math.prod(self.shape)


def shapes(config: Config) -> Params:
    """Returns the tree of a config's parameters with a Leaf in place of every array.

    Source: Arnab et al. 2021, sections 3.1 to 3.3; initialisers as in the published training code.
    """
    time, height, width = config.grid
    space = height * width
    c = config.channels
    temporal_encoder = None
    if config.model == "factorised_encoder":
        encoder = _encoder(config, space, _block(config))
        if config.temporal_layers:
            temporal_encoder = _encoder(config, time, _block(config.temporal))
    elif config.model == "factorised_self_attention":
        encoder = _encoder(config, time * space, _factorised_block(config))
    else:
        encoder = _encoder(config, time * space, _block(config))
    features = config.representation or c
    return Params(
        embedding=Dense(
            Leaf((*config.tubelet, COLORS, c), ("time", "height", "width", "colors", "c"), "lecun_normal"),
            Leaf((c,), ("c",)),
        ),
        encoder=encoder,
        temporal_encoder=temporal_encoder,
        representation=None
        if config.representation is None
        else Dense(Leaf((c, features), ("c", "r"), "lecun_normal"), Leaf((features,), ("r",))),
        head=None
        if not config.classes
        else Dense(
            Leaf((features, sum(config.classes)), ("r" if config.representation else "c", "v")),
            Leaf((sum(config.classes),), ("v",)),
        ),
    )


def _encoder(config: Config, tokens: int, blocks: Block | FactorisedBlock) -> Encoder:
    c = config.channels
    n = tokens + config.class_token
    return Encoder(
        class_token=Leaf((c,), ("c",)) if config.class_token else None,
        positions=Leaf((n, c), ("n", "c"), "positions") if config.positions == "learned" else None,
        blocks=blocks,
        norm=LayerNorm(Leaf((c,), ("c",), "ones"), Leaf((c,), ("c",))),
    )


def _block(config: Config) -> Block:
    return Block(attention_norm=_norm(config), attention=_attention(config), mlp_norm=_norm(config), mlp=_mlp(config))


def _factorised_block(config: Config) -> FactorisedBlock:
    return FactorisedBlock(
        time_norm=_norm(config),
        time_attention=_attention(config),
        space_norm=_norm(config),
        space_attention=_attention(config),
        mlp_norm=_norm(config),
        mlp=_mlp(config),
    )


def _norm(config: Config) -> LayerNorm:
    shape = (config.layers, config.channels)
    return LayerNorm(Leaf(shape, ("l", "c"), "ones"), Leaf(shape, ("l", "c")))


def _attention(config: Config) -> Attention:
    l, c = config.layers, config.channels
    return Attention(
        qkv=Dense(Leaf((l, c, 3 * c), ("l", "c", "3c"), "xavier_uniform"), Leaf((l, 3 * c), ("l", "3c"))),
        out=Dense(Leaf((l, c, c), ("l", "c", "c"), "xavier_uniform"), Leaf((l, c), ("l", "c"))),
    )


def _mlp(config: Config) -> Mlp:
    l, c, f = config.layers, config.channels, config.hidden
    return Mlp(
        hidden=Dense(Leaf((l, c, f), ("l", "c", "f"), "xavier_uniform"), Leaf((l, f), ("l", "f"), "mlp_bias")),
        out=Dense(Leaf((l, f, c), ("l", "f", "c"), "xavier_uniform"), Leaf((l, c), ("l", "c"), "mlp_bias")),
    )


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Yields every leaf of a tree of NamedTuples with its path ("encoder/norm/bias"). Skips absent parts (None)."""
    if hasattr(tree, "_fields"):
        for field in tree._fields:
            yield from leaves(getattr(tree, field), f"{path}/{field}" if path else field)
    elif tree is not None:
        yield path, tree


def convert(tree: Any, function: Callable[[str, Any], Any], path: str = "") -> Any:
    """Returns the same tree with function(path, leaf) in place of every leaf, in the order of `leaves`."""
    if tree is None:
        return None
    if not hasattr(tree, "_fields"):
        return function(path, tree)
    parts = zip(tree._fields, tree, strict=True)
    return type(tree)(*(convert(part, function, f"{path}/{field}" if path else field) for field, part in parts))


def layer(tree: Any, index: int) -> Any:
    """Returns one layer of a tree whose leaves are stacked along a leading axis l."""
    if tree is None:
        return None
    if isinstance(tree, tuple):
        parts = [layer(part, index) for part in tree]
        return type(tree)(*parts) if hasattr(tree, "_fields") else tuple(parts)
    return tree[index]


def parameters(config: Config) -> int:
    """Returns the number of parameters of a model. Source: Arnab et al. 2021, table 2 (there in millions)."""
    return sum(leaf.size for _, leaf in leaves(shapes(config)))


def check(params: Params, config: Config) -> None:
    """Raises ValueError, naming the leaves, unless `params` has exactly the leaves and shapes of `config`."""
    expected = {path: leaf.shape for path, leaf in leaves(shapes(config))}
    actual = {path: tuple(leaf.shape) for path, leaf in leaves(params)}
    faults = [f"{path} is missing" for path in expected.keys() - actual.keys()]
    faults += [f"{path} is not of this config" for path in actual.keys() - expected.keys()]
    faults += [
        f"{path} has shape {actual[path]}, it must be {expected[path]}"
        for path in expected.keys() & actual.keys()
        if expected[path] != actual[path]
    ]
    if faults:
        raise ValueError("params do not fit the config: " + "; ".join(sorted(faults)))
