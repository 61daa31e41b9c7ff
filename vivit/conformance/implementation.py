"""An implementation under examination: how it is found, and calls that check all that does not depend on values."""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vivit.audit.bound import Comparison
from vivit.reference.values import one_line, quoted

CORES = ("joint", "spatial", "temporal", "factorised_dot_product")
FUNCTIONS = (*CORES, *(f"{core}_vjp" for core in CORES), "tubelet_embed", "forward")
DTYPES = ("float32", "bfloat16")


class Unsupported(Exception):  # no error: it is counted
    """The implementation does not offer what was asked. Its text is the reason."""


class Departure(Exception):  # a finding
    """The implementation departs from the contract: the message says how, `comparison` by how much, if by a number."""

    def __init__(self, message: str, comparison: Comparison | None = None) -> None:
        super().__init__(message)
        self.comparison = comparison


@dataclass(frozen=True)
class Implementation:
    """What is examined. functions: those of FUNCTIONS that it has. dtypes: those of DTYPES that it takes.

    supports: a function of qkv's shape and the heads, or None. Raises ValueError if they are not of that kind.
    """

    name: str
    functions: dict[str, Callable[..., Any]]
    dtypes: tuple[str, ...] = DTYPES
    supports: Callable[[tuple[int, ...], int], bool] | None = None

    def __post_init__(self) -> None:
        optional = {} if self.supports is None else {"supports": self.supports}
        for name, function in {**self.functions, **optional}.items():
            if not callable(function):
                raise ValueError(f"{self.name}: {name} is {quoted(function)}: it must be a function")
        if not self.dtypes or not set(self.dtypes) <= set(DTYPES):
            raise ValueError(f"{self.name}: DTYPES is {quoted(self.dtypes)}: it must hold names of {', '.join(DTYPES)}")

    def core(
        self, function: str, arrays: tuple[np.ndarray, ...], heads: int, mask: np.ndarray | None, dtype: str
    ) -> np.ndarray:
        """Calls a core on (qkv,), or a vector-Jacobian product on (qkv, cotangent). Returns float64.

        The arrays are converted to the dtype first. Raises Unsupported or Departure.
        """
        qkv, *_ = arrays = tuple(array.astype(dtype) for array in arrays)
        if not self._supported(qkv.shape, heads):
            raise Unsupported("its shape is not supported")
        keywords: dict[str, Any] = {"mask": mask}
        if function in self.functions and not _accepts(self.functions[function], "mask"):
            if mask is not None:
                raise Unsupported(f"{function} has no argument mask")
            keywords = {}
        shape = qkv.shape if function.endswith("_vjp") else (*qkv.shape[:-1], qkv.shape[-1] // 3)
        return self.call(function, *arrays, heads, shape=shape, dtype=dtype, **keywords)

    def _supported(self, shape: tuple[int, ...], heads: int) -> bool:
        try:
            return self.supports is None or bool(self.supports(shape, heads))
        except (Exception, SystemExit) as error:
            raise Departure(f"supports raises {one_line(f'{type(error).__name__}: {error}')}") from None

    def call(self, function: str, *arguments: Any, shape: tuple[int, ...], dtype: str, **keywords: Any) -> np.ndarray:
        """Calls a function on copies of its arguments. Returns its result as float64 of this shape.

        Raises Unsupported if the function is absent or raises NotImplementedError. Raises Departure if it raises
        anything else, changes an argument, or returns another type, dtype or shape.
        """
        if function not in self.functions:
            raise Unsupported(f"{function} is absent")
        given = _copied((arguments, keywords))
        try:
            with np.errstate(all="ignore"):  # what is not finite is found in the result
                result = self.functions[function](*given[0], **given[1])
        except NotImplementedError as error:
            raise Unsupported(one_line(str(error)) or "NotImplementedError") from None
        except (Exception, SystemExit) as error:
            raise Departure(f"{function} raises {one_line(f'{type(error).__name__}: {error}')}") from None
        for before, after in zip(*map(jax.tree.leaves, ((arguments, keywords), given)), strict=True):
            if isinstance(before, np.ndarray) and before.tobytes() != after.tobytes():
                raise Departure(f"{function} changes its argument of shape {list(before.shape)}")
        array = _as_numpy(function, result)
        if array.dtype.name != dtype or array.shape != shape:
            raise Departure(
                f"{function} returns {array.dtype.name}{list(array.shape)}: it must be {dtype}{list(shape)}"
            )
        return array.astype(np.float64)


def require(comparison: Comparison) -> None:
    """Raises Departure unless the comparison passed."""
    if not comparison.passed:
        raise Departure(str(comparison), comparison)


def load(name: str) -> Implementation:
    """Imports an implementation: "my.module", "my.module:an_object", or "path/to/file.py", from the current folder.

    Raises ValueError if it cannot be imported. ModuleNotFoundError says what the module itself imports in vain.
    """
    path, _, attribute = name.partition(":")
    try:
        subject: Any = _import(path)
        for part in attribute.split(".") if attribute else ():
            subject = getattr(subject, part)
    except ModuleNotFoundError as error:
        if not f"{path}.".startswith(f"{error.name}."):
            raise
        raise ValueError(f"{quoted(name)} is not a module that can be imported: {error}") from None
    except (Exception, SystemExit) as error:
        raise ValueError(f"{quoted(name)} cannot be imported: {type(error).__name__}: {one_line(str(error))}") from None
    return examined(subject, name)


def examined(subject: Any, name: str) -> Implementation:
    """Returns what a module or an object offers. Raises ValueError if DTYPES or a function is none."""
    functions = {function: getattr(subject, function) for function in FUNCTIONS if hasattr(subject, function)}
    dtypes = getattr(subject, "DTYPES", DTYPES)
    if isinstance(dtypes, str) or not all(isinstance(dtype, str) for dtype in dtypes):
        raise ValueError(f"{name}: DTYPES is {quoted(dtypes)}: it must hold names of {', '.join(DTYPES)}")
    return Implementation(name, functions, tuple(dtypes), getattr(subject, "supports", None))


def _import(path: str) -> Any:
    if not path.endswith(".py"):
        _search(Path.cwd())
        return importlib.import_module(path)
    file = Path(path).resolve()
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise ValueError("it must be a file")
    _search(file.parent)
    module = importlib.util.module_from_spec(spec)
    sys.modules[file.stem] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def _search(folder: Path) -> None:
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))


def _accepts(function: Callable[..., Any], name: str) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of a function in C
        return True
    return any(one.name == name or one.kind is inspect.Parameter.VAR_KEYWORD for one in parameters)


def _copied(tree: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, np.ndarray) else leaf, tree)


def _as_numpy(function: str, result: Any) -> np.ndarray:
    """Converts through NumPy, or through DLPack. Raises Departure if the result is no array."""
    try:
        if isinstance(result, np.ndarray | jax.Array):
            return np.asarray(result)
        if hasattr(result, "__dlpack__"):
            return _from_dlpack(result)
        if hasattr(result, "__array__"):
            return np.asarray(result)
    except Exception as error:
        message = f"{function} returns a {type(result).__name__} that cannot be read: {one_line(str(error))}"
        raise Departure(message) from None
    raise Departure(f"{function} returns a {type(result).__name__}: it must be an array")


def _from_dlpack(result: Any) -> np.ndarray:
    try:
        return np.from_dlpack(result)
    except (BufferError, RuntimeError):  # NumPy's DLPack has no bfloat16
        return np.asarray(jax.dlpack.from_dlpack(result))
