"""Kernels that read and write what one layer has in a stack [layers ...] where it lies.

A loop over the layers keeps arrays for its backward pass in stacks. XLA copies what a kernel wrote into its stack, and
out of it again for another kernel. Here the stack is aliased to the kernel's result, the layer's index is prefetched,
and the index maps of its blocks put it in front.

A `Tape` holds the stacks. Forward, each `differentiable` function of a layer writes its result and what its derivative
needs there, and gives a `Slice` of it to the next. For the backward pass the layer is traced once more with a full
tape: each result is the Slice of what it was, and JAX differentiates the layer as it is written. No kernel runs again
but those whose results a lean tape does not keep. vivit/scan_in_place.py has the loops.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu


class Slice(NamedTuple):
    """What a layer has in a stack. Kernels take it for an array.

    stand_in: in the backward pass, zeros that JAX differentiates in its place.
    """

    stack: jax.Array  # [layers ...]
    layer: jax.Array  # int32[]
    stand_in: jax.Array | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.stack.shape[1:]

    @property
    def dtype(self) -> Any:
        return self.stack.dtype

    @property
    def size(self) -> int:
        return self.stack.size // self.stack.shape[0]

    def reshape(self, *shape: int) -> "Slice":
        stand_in = None if self.stand_in is None else self.stand_in.reshape(shape)
        return Slice(self.stack.reshape(self.stack.shape[0], *shape), self.layer, stand_in)

    def astype(self, dtype: Any) -> "Slice | jax.Array":
        return self if dtype == self.dtype else array(self).astype(dtype)


def is_slice(x: Any) -> bool:
    return isinstance(x, Slice)


def array(x: Any) -> jax.Array:
    """A Slice as an array, for XLA; an array as it is."""
    if not is_slice(x):
        return x
    values = jax.lax.dynamic_index_in_dim(x.stack, x.layer, keepdims=False)
    return values if x.stand_in is None else _in_place_of(values, x.stand_in)


def arrays(tree: Any) -> Any:
    """The Slices of a tree as arrays."""
    return _map(array, tree)


@jax.custom_jvp
def _in_place_of(values: jax.Array, stand_in: jax.Array) -> jax.Array:
    """The values, with the derivative of their stand-in."""
    return values


_in_place_of.defjvp(lambda primals, tangents: (primals[0], tangents[1]))


class Tape:
    """What the kernels of one layer keep, in their order.

    stacks: one for each; what a layer keeps beyond them gets a stack of one layer, which tells its shape. full: they
    have been written. lean: only what is dear to compute again is kept.
    """

    def __init__(
        self, stacks: Sequence[jax.Array], layer: jax.Array, *, full: bool = False, lean: bool = False
    ) -> None:
        self.stacks, self.layer, self.full, self.lean, self.place = list(stacks), layer, full, lean, 0

    def keep(
        self, shapes: Sequence[Any], write: Callable[[list[Slice]], list[Slice]], *, again: bool = False
    ) -> list[Slice]:
        """The next Slices, of these shapes and dtypes, once `write` has written them. again: the last ones instead."""
        first = self.place - len(shapes) if again else self.place
        self.place = first + len(shapes)
        for kept in shapes[len(self.stacks) - first :]:
            self.stacks.append(jax.lax.empty((1, *kept.shape), kept.dtype))
        slices = [Slice(stack, self.layer) for stack in self.stacks[first : self.place]]
        if not self.full:
            slices = write(slices)
            self.stacks[first : self.place] = [written.stack for written in slices]
        return slices

    def keep_array(self, values: jax.Array) -> Any:
        """The Slice of what XLA computes, which it writes in place itself; if lean, nothing is kept."""
        if self.lean:
            return values

        def write(slices: list[Slice]) -> list[Slice]:
            (of,) = slices
            return [of._replace(stack=jax.lax.dynamic_update_index_in_dim(of.stack, values, of.layer, 0))]

        (kept,) = self.keep([values], write)
        return kept._replace(stand_in=values) if self.full else kept


def differentiable(
    forward: Callable[..., Any],
    backward: Callable[..., Any],
    static: tuple[int, ...],
    primal: Callable[..., Any] | None = None,
    *,
    dear: bool = False,
) -> Callable[..., Any]:
    """A function of trees of arrays, then, at `static`, of what is known when compiling; the last has a tape or None.

    forward: the function's arguments → (result, saved). backward: (*static, saved, cotangent) → cotangents of the
    arrays. primal: the arguments → the result, where `forward` computes more. dear: a lean tape keeps its results too;
    those of others it computes again.
    """
    without_tape = jax.custom_vjp(primal or (lambda *arguments: forward(*arguments)[0]), nondiff_argnums=static)
    without_tape.defvjp(forward, backward)

    def call(*arguments: Any) -> Any:
        tape = arguments[-1].tape
        if tape is None:
            return without_tape(*arguments)
        operands, known = arguments[: static[0]], arguments[static[0] :]
        if tape.lean and not dear:
            known = *known[:-1], known[-1]._replace(tape=None)
        if not tape.full:
            return forward(*operands, *known)[0] if known[-1].tape else without_tape(*operands, *known)
        results = []

        def forward_again(*stand_ins: Any) -> tuple[Any, Any]:
            given = _map(
                lambda x, stand_in: x._replace(stand_in=None) if is_slice(x) else stand_in, operands, stand_ins
            )
            result, saved = forward(*given, *known)
            results.append(result)
            return _map(lambda x: jnp.zeros(x.shape, x.dtype) if is_slice(x) else x, result), saved

        replay = jax.custom_vjp(lambda *stand_ins: forward_again(*stand_ins)[0])
        replay.defvjp(forward_again, partial(backward, *known))
        found = replay(*_map(lambda x: x.stand_in if is_slice(x) else x, operands))
        (result,) = results
        return _map(lambda x, values: x._replace(stand_in=values) if is_slice(x) else values, result, found)

    return call


def pallas_call(
    kernel: Callable[..., None],
    *,
    grid: tuple[int, ...],
    in_specs: Any,
    out_specs: Any,
    out_shape: Any,
    scratch_shapes: Any = (),
    tape: Tape | None = None,
    keep: bool | Sequence[bool] = True,
    again: bool = False,
    in_place: bool = False,
    **options: Any,
) -> Callable[..., Any]:
    """pl.pallas_call whose operands may be Slices, and whose results are Slices if a tape is to keep them.

    keep: all results, or which. again: in place of what the tape kept last. in_place: the first result may be written
    where the first operand lies: XLA copies it if it is read once more.
    """
    shapes, tree = jax.tree.flatten(out_shape)
    each = [keep] * len(shapes) if isinstance(keep, bool) else keep
    kept = [i for i, is_kept in enumerate(each) if is_kept and tape is not None]

    def run(operands: tuple[Any, ...], written: list[Any]) -> list[Any]:
        """The results, each written into its Slice, if it has one."""
        layer = next((x.layer for x in _leaves((operands, written)) if is_slice(x)), None)
        over_operand = in_place and not is_slice(operands[0]) and written[0] is None
        if layer is None:
            aliased: dict[str, Any] = {"input_output_aliases": {0: 0}} if over_operand else {}
            plain = pl.pallas_call(
                kernel, grid=grid, in_specs=in_specs, out_specs=out_specs, out_shape=out_shape,
                scratch_shapes=scratch_shapes, **options | aliased,
            )  # fmt: skip
            return jax.tree.leaves(plain(*operands))
        places = [i for i, x in enumerate(written) if x is not None]
        places_of = {1 + i: place for i, place in enumerate(places)}
        aliased = {"input_output_aliases": places_of | ({1 + len(places): 0} if over_operand else {})}
        found = pl.pallas_call(
            lambda _layer, _stacks, *refs: kernel(*refs),
            grid_spec=pltpu.PrefetchScalarGridSpec(
                num_scalar_prefetch=1,
                grid=grid,
                in_specs=[[pl.BlockSpec(memory_space=pl.ANY)] * len(places), *_map(_placed, operands, tuple(in_specs))],
                out_specs=jax.tree.unflatten(tree, map(_placed, written, jax.tree.leaves(out_specs))),
                scratch_shapes=scratch_shapes,
            ),
            out_shape=jax.tree.unflatten(
                tree, [shape if x is None else _whole(x) for x, shape in zip(written, shapes, strict=True)]
            ),
            **options | aliased,
        )(layer.reshape(1), [written[i].stack for i in places], *_map(_whole, operands))
        results = zip(written, jax.tree.leaves(found), strict=True)
        return [result if x is None else x._replace(stack=result) for x, result in results]

    def call(*operands: Any) -> Any:
        full = tape is not None and tape.full  # nobody reads what it did not keep
        results: list[Any] = [jnp.zeros(shape.shape, shape.dtype) for shape in shapes] if full else []

        def write(slices: list[Slice]) -> list[Slice]:
            places = dict(zip(kept, slices, strict=True))
            results[:] = run(operands, [places.get(i) for i in range(len(shapes))])
            return [results[i] for i in kept]

        if tape is not None and kept:
            slices = tape.keep([shapes[i] for i in kept], write, again=again)
            for i, of in zip(kept, slices, strict=True):
                results[i] = of
        elif not full:
            write([])
        return jax.tree.unflatten(tree, results)

    return call


def _placed(x: Any, spec: pl.BlockSpec) -> pl.BlockSpec:
    """A block where the grid knows the layer: of an array, or of the layer's part of a Slice's stack."""
    shape, index_of = spec.block_shape, spec.index_map
    if shape is None or index_of is None:
        return spec
    of_layer = is_slice(x)

    def index_map(*places: Any) -> tuple[Any, ...]:
        *steps, layer = places
        return (layer[0], *index_of(*steps)) if of_layer else index_of(*steps)

    return replace(spec, block_shape=(None, *shape) if of_layer else shape, index_map=index_map)


def _whole(x: Any) -> Any:
    return x.stack if is_slice(x) else x


_map, _leaves = partial(jax.tree.map, is_leaf=is_slice), partial(jax.tree.leaves, is_leaf=is_slice)
