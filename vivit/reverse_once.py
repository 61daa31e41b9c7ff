"""Reports unsupported derivatives of kernels, Pallas's and cuDNN's: their backward passes allow reverse mode, once.

JAX's own errors name neither the kernels nor the argument that disables them. `reverse_once` is otherwise the identity,
and adds no operation to a compiled program.
"""

from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

MESSAGE = "kernels can be differentiated in reverse mode, and once: attention='xla' disables them"


def reverse_once(tree: Any) -> Any:
    """Returns the same arrays. All derivatives except reverse mode, once, raise TypeError."""
    return jax.tree.map(lambda x: _operand.bind(x) if jnp.issubdtype(x.dtype, jnp.inexact) else x, tree)


def _refuse(*_: Any, **__: Any) -> Any:
    raise TypeError(MESSAGE)


def _identity(name: str) -> Primitive:
    primitive = Primitive(name)
    primitive.def_abstract_eval(lambda x: x)
    return primitive


_operand = _identity("reverse_once")  # its derivative is a residual and a tangent
_residual = _identity("reverse_once_residual")  # must not be differentiated again
_tangent = _identity("reverse_once_tangent")  # is only transposed, never computed

for _primitive in (_operand, _residual):
    _primitive.def_impl(lambda x: x)
    mlir.register_lowering(_primitive, lambda _, x: [x])
    batching.defvectorized(_primitive)
_tangent.def_impl(_refuse)
mlir.register_lowering(_tangent, _refuse)
batching.primitive_batchers[_tangent] = _refuse


def _operand_jvp(primals: tuple[jax.Array], tangents: tuple[Any]) -> tuple[jax.Array, Any]:
    (x,), (tangent,) = primals, tangents
    return _residual.bind(x), tangent if isinstance(tangent, ad.Zero) else _tangent.bind(tangent)


ad.primitive_jvps[_operand] = _operand_jvp
ad.primitive_jvps[_residual] = _refuse
ad.primitive_transposes[_tangent] = lambda cotangent, _: [cotangent]
