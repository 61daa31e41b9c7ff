"""Converts a model to ONNX with jax2onnx, in a process of its own: jax2onnx leaves its patches in JAX's caches.

The graph is XLA's form of the model (vivit/attention.py) in float32, with the weights as constants. Run as a program,
this file is that process.
"""

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.export
import numpy as np

from vivit.checkpoints.native import load_native, save_native
from vivit.inference.clip_function import clip_function, clip_shape
from vivit.model_data import ModelData
from vivit.ops import XLA

OPSET = 21  # of ONNX: every engine of the last two years knows it
INPUT, OUTPUT = "video", "logits"
PROGRAM = "program.onnx"
DESCRIPTION: dict[str, Any] = {
    "use": f"onnxruntime.InferenceSession(FILE).run(['{OUTPUT}'], {{'{INPUT}': video}})",
    "needs": ["onnxruntime>=1.20"],
    "opset": OPSET,
    "attention": "xla",
}


def check_installed() -> None:
    """Raises ModuleNotFoundError without jax2onnx (extra [onnx])."""
    if find_spec("jax2onnx") is None:
        raise ModuleNotFoundError("No module named 'jax2onnx'", name="jax2onnx")


def convert(model: ModelData, batch: int | None, pixels: str = "uint8") -> bytes:
    """Returns a model as an ONNX file. batch: clips per call; None: any number, computed one by one.

    pixels: dtype of the video; float32 is already preprocessed. Raises ValueError with the converter's last line if it
    fails.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        save_native(folder / "model", model)
        sizes = [] if batch is None else [str(batch)]
        command = [sys.executable, "-m", "vivit.inference.onnx_program", name, pixels, *sizes]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "JAX_PLATFORMS": "cpu"}
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False, env=environment)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
            raise ValueError(f"the model cannot be converted to ONNX: {reason}")
        return (folder / PROGRAM).read_bytes()


def main(arguments: Sequence[str]) -> None:
    """Converts the model in a folder. arguments: the folder, the dtype of the video, and the batch if it is fixed."""
    from jax2onnx import to_onnx  # pyright: ignore[reportMissingImports]

    folder, pixels, *sizes = arguments
    batch = int(sizes[0]) if sizes else None
    model = load_native(Path(folder) / "model")
    count = jax.export.symbolic_shape("b")[0] if batch is None else batch
    clips = jax.ShapeDtypeStruct((count, *clip_shape(model.config)), np.dtype(pixels))
    names: dict[str, Any] = dict(model_name="vivit", input_names=[INPUT], output_names=[OUTPUT])
    converted = to_onnx(clip_function(model, batch, None, XLA), [clips], opset=OPSET, **names)
    if batch is None:
        converted.graph.output[0].type.tensor_type.shape.dim[0].dim_param = "b"
    _replace_einsums(converted.graph)
    _remove_unread(converted.graph)
    (Path(folder) / PROGRAM).write_bytes(converted.SerializeToString(deterministic=True))


def _replace_einsums(graph: Any) -> None:
    """Replaces each product of tokens [… c] and a kernel [c f] by a MatMul, in place.

    jax2onnx writes it as an Einsum with the kernel repeated for every token: 30 GB for a clip of ViViT-B.
    """
    made_by = {output: node for node in graph.node for output in node.output}
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                _replace_einsums(attribute.g)
        if node.op_type == "Einsum" and node.attribute[0].s == b"...c,...cf->...f":
            kernel = node.input[1]
            while kernel in made_by and made_by[kernel].op_type in ("Expand", "Unsqueeze"):
                kernel = made_by[kernel].input[0]
            node.op_type, node.input[1] = "MatMul", kernel
            del node.attribute[:]


def _remove_unread(graph: Any) -> set[str]:
    """Removes nodes and initializers that nothing reads, in place. Returns the names that are read."""
    read, kept = {output.name for output in graph.output}, []
    for node in reversed(graph.node):
        if not read.isdisjoint(node.output):
            kept.append(node)
            read.update(node.input)
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    read |= _remove_unread(attribute.g)
    initializers = [one for one in graph.initializer if one.name in read]
    del graph.node[:], graph.initializer[:]
    graph.node.extend(reversed(kept))
    graph.initializer.extend(initializers)
    return read


if __name__ == "__main__":
    main(sys.argv[1:])
