"""Other implementations with our weights: Hugging Face's model 1, lucidrains' model 2, one of PyTorch's layers, and
engines for ONNX.

The [peers] extra installs them.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np

from vivit.audit.variants import random_params
from vivit.reference import tubelet
from vivit.reference.config import Config
from vivit.reference.params import Block, Encoder, Params, layer

LIMIT = {"float32": 1e-4, "bfloat16": 1e-1}  # of the largest value


def weights(config: Config) -> Params:
    """Random weights that every peer can hold: see `lucidrains`."""
    params = random_params(config)
    if config.model != "factorised_encoder" or params.temporal_encoder is None:
        return params
    encoder, temporal = (_without_qkv_bias(one) for one in (params.encoder, params.temporal_encoder))
    temporal = temporal._replace(positions=np.zeros_like(temporal.positions))
    return params._replace(encoder=encoder, temporal_encoder=temporal)


def _without_qkv_bias(encoder: Encoder) -> Encoder:
    blocks = cast(Block, encoder.blocks)
    qkv = blocks.attention.qkv._replace(bias=np.zeros_like(blocks.attention.qkv.bias))
    return encoder._replace(blocks=blocks._replace(attention=blocks.attention._replace(qkv=qkv)))


def limit(expected: np.ndarray, dtype: str) -> float:
    """The error beyond which a peer does not do the same work. expected: the reference's result."""
    return LIMIT[dtype] * float(np.abs(expected).max())


def attention(
    variant: str, qkv: np.ndarray, cotangent: np.ndarray, heads: int, dtype: str, *, backward: bool
) -> Callable[[], tuple[Any, ...]]:
    """A call of PyTorch's scaled_dot_product_attention as a core: (out,), or (out, cotangent of qkv), tensors.

    variant: the core. qkv: float32[b n 3c] or [b t s 3c]. Runs on a GPU where PyTorch has one. Raises ImportError
    without torch.
    """
    import torch  # pyright: ignore[reportMissingImports]

    device = _torch_device(torch)
    given, out_cotangent = (torch.from_numpy(x).to(device, getattr(torch, dtype)) for x in (qkv, cotangent))
    given.requires_grad_(backward)

    def over(query: Any, key: Any, value: Any, *, axis: int) -> Any:
        """Attention over one axis of [… n h d], the others a batch."""
        query, key, value = (x.movedim(axis, -3).transpose(-3, -2) for x in (query, key, value))  # [… h n d]
        out = torch.nn.functional.scaled_dot_product_attention(query, key, value)
        return out.transpose(-3, -2).movedim(-3, axis)

    def core(qkv: Any) -> Any:
        parts = [x.unflatten(-1, (heads, -1)) for x in qkv.chunk(3, dim=-1)]
        if variant == "factorised_dot_product":
            first, second = ([x.chunk(2, dim=-2)[half] for x in parts] for half in (0, 1))
            return torch.cat([over(*first, axis=1), over(*second, axis=2)], dim=-2).flatten(-2)
        return over(*parts, axis=2 if variant == "spatial" else 1).flatten(-2)

    def call() -> tuple[Any, ...]:
        out = core(given)
        results = (out, *torch.autograd.grad(out, given, out_cotangent)) if backward else (out,)
        if device == "cuda":
            torch.cuda.synchronize()
        return results

    return call


def _torch_device(torch: Any) -> str:
    return "cuda" if torch.cuda.is_available() else "cpu"


def hugging_face(params: Params, video: np.ndarray, config: Config, dtype: str) -> Callable[[], np.ndarray]:
    """A call of VivitForVideoClassification with these weights on this float video; it gives the logits [b v].

    Raises ImportError without torch and transformers.
    """
    return partial(hugging_face_model(params, config, dtype), video)


def compiled_hugging_face(params: Params, video: np.ndarray, config: Config, dtype: str) -> Callable[[], np.ndarray]:
    """The same call compiled by torch.compile, with the weights as constants. Raises ImportError as above."""
    return partial(hugging_face_model(params, config, dtype, compiled=True), video)


def lucidrains(params: Params, video: np.ndarray, config: Config, dtype: str) -> Callable[[], np.ndarray]:
    """A call of lucidrains' model 2 with these weights on this float video; it gives the logits [b v].

    Where it has no weights, these are zero: biases of query, key and value, and positions in time. Raises ImportError
    without torch and vit-pytorch.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from vivit.conformance.adapters.lucidrains import classifier

    model = classifier(params, config, dtype).to(_torch_device(torch))
    return partial(_call, model, video.transpose(0, 4, 1, 2, 3), dtype)


def onnx_runtime(graph: Path, video: np.ndarray) -> Callable[[], np.ndarray]:
    """A call of an ONNX graph in ONNX Runtime; it gives the logits [b v]. Raises ImportError without onnxruntime."""
    from onnxruntime import InferenceSession  # pyright: ignore[reportMissingImports]

    session = InferenceSession(graph, providers=["CPUExecutionProvider"])
    (name,) = (one.name for one in session.get_inputs())
    return lambda: np.asarray(session.run(None, {name: video})[0])


def openvino(graph: Path, video: np.ndarray) -> Callable[[], np.ndarray]:
    """The same in OpenVINO, in float32 on any CPU. Raises ImportError without openvino."""
    from openvino import Core  # pyright: ignore[reportMissingImports]

    options = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    program = Core().compile_model(graph, "CPU", options)
    return lambda: program([video])[program.output(0)]


def hugging_face_model(
    params: Params, config: Config, dtype: str, *, compiled: bool = False
) -> Callable[[np.ndarray], np.ndarray]:
    """VivitForVideoClassification with these weights: from float video [b frames height width 3] to logits [b v].

    Its attention is PyTorch's scaled_dot_product_attention. compiled: by torch.compile, on the first call. Raises
    ImportError without torch and transformers.
    """
    import torch  # pyright: ignore[reportMissingImports]

    from vivit.conformance.adapters.transformers import classifier

    model: Any = classifier(params, config, dtype).to(_torch_device(torch))
    if compiled:
        model = torch.compile(model, options={"freezing": True})
    return lambda video: _call(lambda pixels: model(pixel_values=pixels).logits, video.transpose(0, 1, 4, 2, 3), dtype)


def _call(model: Callable[[Any], Any], video: np.ndarray, dtype: str) -> np.ndarray:
    """The logits of a PyTorch model on this video, whose axes are in its order."""
    import torch  # pyright: ignore[reportMissingImports]

    pixels = torch.from_numpy(np.ascontiguousarray(video)).to(_torch_device(torch), getattr(torch, dtype))
    with torch.inference_mode():
        return model(pixels).float().cpu().numpy()


def hugging_face_processor(short_side: int) -> Callable[[list[np.ndarray]], np.ndarray]:
    """VivitImageProcessor without its crop: from uint8 frames [height width 3] to float [frames tall wide 3], -1…1.

    Raises ImportError without torch and transformers.
    """
    from transformers import VivitImageProcessor  # pyright: ignore[reportMissingImports]

    processor = VivitImageProcessor(
        size={"shortest_edge": short_side}, do_center_crop=False, image_mean=[0.0] * 3, image_std=[1.0] * 3, offset=True
    )

    def call(frames: list[np.ndarray]) -> np.ndarray:
        return processor(frames, return_tensors="pt")["pixel_values"][0].numpy().transpose(0, 2, 3, 1)

    return call


def torch_step(params: Params, video: np.ndarray, labels: np.ndarray, config: Config) -> Callable[[], np.ndarray]:
    """A training step of model 2 with these weights: momentum SGD; it gives (loss, norm of the gradient).

    video: float32[b frames height width 3]. labels: float32[b v]. Raises ImportError without torch.
    """
    import torch  # pyright: ignore[reportMissingImports]

    model = _factorised_encoder(torch, params, config)
    optimiser = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    patches = torch.from_numpy(tubelet.patches(video, config.tubelet))
    targets = torch.from_numpy(labels)

    def step() -> np.ndarray:
        optimiser.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(patches), targets)
        loss.backward()
        norm = torch.stack([parameter.grad.norm() for parameter in model.parameters()]).norm()
        optimiser.step()
        return np.array([loss.item(), norm.item()])

    return step


def _factorised_encoder(torch: Any, params: Params, config: Config) -> Any:
    """Model 2 built from nn.TransformerEncoderLayer, with class tokens and positions as published."""
    functional = torch.nn.functional

    def tensor(leaf: Any) -> Any:
        return torch.nn.Parameter(torch.from_numpy(np.array(leaf, np.float32)))

    def dense(leaf: Any) -> Any:
        module = torch.nn.Linear(*leaf.kernel.shape)
        module.weight, module.bias = tensor(np.asarray(leaf.kernel).T), tensor(leaf.bias)
        return module

    def norm(leaf: Any) -> Any:
        module = torch.nn.LayerNorm(config.channels, config.epsilon)
        module.weight, module.bias = tensor(leaf.scale), tensor(leaf.bias)
        return module

    def block(leaf: Any, sizes: Config) -> Any:
        options = dict(dropout=0.0, batch_first=True, norm_first=True, layer_norm_eps=config.epsilon)
        gelu = partial(functional.gelu, approximate="tanh" if config.gelu == "tanh" else "none")
        module = torch.nn.TransformerEncoderLayer(
            config.channels, sizes.heads, sizes.hidden, activation=gelu, **options
        )
        module.self_attn.in_proj_weight = tensor(np.asarray(leaf.attention.qkv.kernel).T)
        module.self_attn.in_proj_bias = tensor(leaf.attention.qkv.bias)
        module.self_attn.out_proj = _replaced(module.self_attn.out_proj, dense(leaf.attention.out))
        module.linear1, module.linear2 = dense(leaf.mlp.hidden), dense(leaf.mlp.out)
        module.norm1, module.norm2 = norm(leaf.attention_norm), norm(leaf.mlp_norm)
        return module

    class Encoder(torch.nn.Module):
        def __init__(self, leaf: Any, sizes: Config) -> None:
            super().__init__()
            self.token, self.positions = tensor(leaf.class_token), tensor(leaf.positions)
            self.blocks = torch.nn.Sequential(*(block(layer(leaf.blocks, i), sizes) for i in range(sizes.layers)))
            self.norm = norm(leaf.norm)

        def forward(self, tokens: Any) -> Any:
            token = self.token.expand(len(tokens), 1, -1)
            return self.norm(self.blocks(torch.cat([token, tokens], 1) + self.positions))[:, 0]

    class Vivit(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            kernel = np.asarray(params.embedding.kernel)
            self.embedding = dense(params.embedding._replace(kernel=kernel.reshape(-1, config.channels)))
            self.spatial = Encoder(params.encoder, config)
            self.temporal = Encoder(params.temporal_encoder, config.temporal)
            self.head = dense(params.head)

        def forward(self, patches: Any) -> Any:
            b, t, s, _ = patches.shape
            tokens = self.embedding(patches).reshape(b * t, s, config.channels)
            return self.head(self.temporal(self.spatial(tokens).reshape(b, t, config.channels)))

    return Vivit().train()


def _replaced(module: Any, other: Any) -> Any:
    """Returns the module with the weights of another one; PyTorch checks the class of the module."""
    module.weight, module.bias = other.weight, other.bias
    return module
