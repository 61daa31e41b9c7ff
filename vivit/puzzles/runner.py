"""Runs inside the process of one solution: calls its function on the arguments that the grader sends.

It imports NumPy and nothing of vivit, so that a solution finds no answer in its process. A message is a file,
request.npz or reply.npz, that one line on a pipe announces. What a solution prints goes to standard error.
"""

import json
import os
import resource
import sys
import types
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

REQUEST, REPLY, COPIED = "request.npz", "reply.npz", "copied.txt"
RESULT, CALL, ERROR = "result", "call", "error"  # kinds of replies
FUNCTION = {"function": True}  # an argument that is a function of the grader's
MEMORY, FILE = 8 * 2**30, 64 * 2**20  # bytes that a solution may hold, and write to one file
LONGEST = 1000  # characters of an error
KINDS = {"b": np.bool_, "i": np.int64, "u": np.int64, "f": np.float32}  # of results


def save(path: Path, kind: str, values: Sequence[Any]) -> None:
    """Writes a message: arrays, and whatever JSON has."""
    arrays = {str(i): value for i, value in enumerate(values) if isinstance(value, np.ndarray)}
    others = [None if isinstance(value, np.ndarray) else value for value in values]
    header = json.dumps({"kind": kind, "values": others}).encode()
    np.savez(path, header=np.frombuffer(header, np.uint8), **arrays)  # pyright: ignore[reportArgumentType]


def load(path: Path) -> tuple[str, list[Any]]:
    """Reads a message. Raises ValueError, OSError or KeyError if it is none; never unpickles."""
    with np.load(path, allow_pickle=False) as found:
        header = json.loads(found["header"].tobytes())
        values = [found.get(str(i), value) for i, value in enumerate(header["values"])]
    return header["kind"], values


def results(value: Any) -> list[np.ndarray]:
    """The arrays that a solution returns, one or a tuple: bool, int64 or float32. Raises TypeError for other things."""
    found = []
    for part in value if isinstance(value, tuple) else () if value is None else (value,):
        array = np.asarray(part)
        kind = "f" if array.dtype.name == "bfloat16" else array.dtype.kind
        if kind not in KINDS:
            raise TypeError(f"it returns a {type(part).__name__}: it must be an array of numbers")
        with np.errstate(over="ignore"):
            found.append(array.astype(KINDS[kind]))
    return found


def traced(function: Callable[..., Any], rules: dict[str, Any]) -> Callable[..., Any]:
    """The function on JAX arrays, compiled. Before, it is traced: it must keep the rules of its puzzle.

    rules: "grid": a kernel must take several steps; "without": an axis of this size may not occur in a kernel;
    "compiler_options". Without "kernel" none is required. The function's other arguments are known when compiling.
    """
    import jax
    import jax.numpy as jnp

    compiled: dict[Any, Callable[..., Any]] = {}

    def call(*values: Any) -> Any:
        static = tuple(i for i, value in enumerate(values) if not isinstance(value, np.ndarray))
        arrays = [value if i in static else jnp.asarray(value) for i, value in enumerate(values)]
        key = tuple(value if i in static else (value.shape, value.dtype) for i, value in enumerate(values))
        if key not in compiled:
            program = jax.jit(function, static_argnums=static).trace(*arrays)
            if rules.get("kernel"):
                check_kernels(program.jaxpr.jaxpr, rules)
            compiled[key] = program.lower().compile(compiler_options=rules["compiler_options"])
        return jax.tree.map(np.asarray, compiled[key](*(x for i, x in enumerate(arrays) if i not in static)))

    return call


def check_kernels(jaxpr: Any, rules: dict[str, Any]) -> None:
    """Raises ValueError unless a program calls a Pallas kernel that keeps the rules of `traced`."""
    kernels = [equation for equation in _equations(jaxpr) if equation.primitive.name == "pallas_call"]
    if not kernels:
        raise ValueError("no pl.pallas_call is made: the puzzle asks for a Pallas kernel")
    for kernel in kernels:
        inside = {size for each in _equations(kernel.params["jaxpr"]) for out in each.outvars for size in _shape(out)}
        if rules.get("without") in inside:
            raise ValueError(f"an axis of {rules['without']} occurs in the kernel: its values must keep all 128 lanes")
    if rules.get("grid") and max(np.prod(kernel.params["grid_mapping"].grid, dtype=int) for kernel in kernels) < 2:
        raise ValueError("the grid has one step: the work must be cut into several blocks")


def _shape(variable: Any) -> tuple[int, ...]:
    return getattr(variable.aval, "shape", ())


def _equations(jaxpr: Any) -> Any:
    """All equations of a jaxpr, and of those inside it."""
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from _equations(inner)


def function_of(path: Path, name: str) -> Callable[..., Any]:
    """Runs a solution's file and returns its function. Raises NameError if it has none, and what the file raises."""
    module = types.ModuleType(path.stem)
    module.__file__ = str(path)
    sys.modules[path.stem] = module
    exec(compile(path.read_bytes(), str(path), "exec"), vars(module))
    if not callable(vars(module).get(name)):
        raise NameError(f"{path.name} has no function {name}")
    return vars(module)[name]


def watch(folders: Sequence[str], allowed: str, marker: Path) -> None:
    """Refuses to import vivit or to open a file of these folders, and leaves a marker. It cannot be switched off."""

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        what = None
        if event == "import" and str(arguments[0]).partition(".")[0] == "vivit":
            what = f"imports {arguments[0]}"
        elif event == "open" and isinstance(arguments[0], (str, bytes)):
            path = os.path.realpath(os.fsdecode(arguments[0]))
            if path.startswith(tuple(folders)) and not path.startswith(allowed):
                what = f"reads a file of vivit, {os.path.basename(path)}"
        if what is not None:
            with open(marker, "w", encoding="utf-8", errors="replace") as file:
                file.write(what)
            raise ImportError(f"a solution may not use vivit, and this one {what}")

    sys.addaudithook(hook)


def described(error: BaseException, path: Path) -> list[Any]:
    """The name of an error, its text, and its line in the solution, or None."""
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == str(path):
            line = trace.tb_lineno
        trace = trace.tb_next
    try:
        text = str(error)
    except Exception:
        text = ""
    return [type(error).__name__, text[:LONGEST], line]


def main() -> None:
    options = json.loads(sys.argv[1])
    exchange, path = Path(options["exchange"]), Path(options["path"])
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_FSIZE, (FILE, FILE))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    watch(options["folders"], options["allowed"], exchange / COPIED)
    sys.path.append(str(path.parent))

    def ask(kind: str, values: Sequence[Any]) -> list[Any]:
        save(exchange / REPLY, kind, values)
        replies.write(b"\n")
        if not requests.readline():
            os._exit(0)  # the grader has ended
        return load(exchange / REQUEST)[1]

    def remote(*arguments: Any) -> np.ndarray:
        """A function of the grader's, as an argument."""
        numbers = [value if type(value) in (int, float) else np.asarray(value) for value in arguments]
        found, error = ask(CALL, numbers)
        if error is not None:
            raise ValueError(error)
        return found

    function: Callable[..., Any] | None = None
    kind, values = "ready", []
    while True:
        arguments = ask(kind, values)
        try:
            if function is None:
                function = function_of(path, options["function"])
                if options["rules"] is not None:
                    function = traced(function, options["rules"])
            given = [remote if isinstance(value, dict) else value for value in arguments]
            with np.errstate(all="ignore"):  # what is not finite is found in the result
                kind, values = RESULT, results(function(*given))
        except BaseException as error:
            kind, values = ERROR, described(error, path)


if __name__ == "__main__":
    main()
