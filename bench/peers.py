"""Other implementations, given our weights: Hugging Face's PyTorch ViViT (model 1). Installed by the [peers] extra."""

from collections.abc import Callable

import numpy as np

from vivit.reference.config import Config
from vivit.reference.params import Dense, LayerNorm, Params, layer


def hugging_face(params: Params, video: np.ndarray, config: Config, dtype: str) -> Callable[[], np.ndarray]:
    """A call of VivitForVideoClassification with these weights on this float video; it gives the logits [b v].

    Raises ImportError without torch and transformers.
    """
    import torch  # pyright: ignore[reportMissingImports]
    from transformers import VivitConfig, VivitForVideoClassification  # pyright: ignore[reportMissingImports]

    theirs = VivitConfig(
        image_size=config.height,
        num_frames=config.frames,
        tubelet_size=list(config.tubelet),
        hidden_size=config.channels,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        intermediate_size=config.hidden,
        layer_norm_eps=config.epsilon,
        num_labels=sum(config.classes),  # pyright: ignore[reportCallIssue]
    )
    model = VivitForVideoClassification(theirs).eval()
    weights = {name: torch.from_numpy(np.ascontiguousarray(leaf)) for name, leaf in _weights(params, config).items()}
    model.load_state_dict(weights, strict=True)
    model = model.to(getattr(torch, dtype))
    pixels = torch.from_numpy(np.ascontiguousarray(video.transpose(0, 1, 4, 2, 3))).to(getattr(torch, dtype))

    def call() -> np.ndarray:
        with torch.inference_mode():
            return model(pixel_values=pixels).logits.float().numpy()

    return call


def _weights(params: Params, config: Config) -> dict[str, np.ndarray]:
    """Their state_dict: kernels as (out, in), query, key and value apart, the module names of transformers 5."""
    encoder, c = params.encoder, config.channels
    if encoder.class_token is None or encoder.positions is None:
        raise ValueError("Hugging Face's ViViT has a class token and learned positions: the config must have them too")
    stem = "vivit.embeddings"
    weights = {
        f"{stem}.cls_token": encoder.class_token.reshape(1, 1, c),
        f"{stem}.position_embeddings": encoder.positions[np.newaxis],
        f"{stem}.patch_embeddings.projection.weight": params.embedding.kernel.transpose(4, 3, 0, 1, 2),
        f"{stem}.patch_embeddings.projection.bias": params.embedding.bias,
        **_norm("vivit.layernorm", encoder.norm),
        **_dense("classifier", params.head),
    }
    for index in range(config.layers):
        block, name = layer(encoder.blocks, index), f"vivit.layers.{index}"
        kernels, biases = np.split(block.attention.qkv.kernel, 3, -1), np.split(block.attention.qkv.bias, 3)
        for part, kernel, bias in zip("qkv", kernels, biases, strict=True):
            weights |= _dense(f"{name}.attention.{part}_proj", Dense(kernel, bias))
        weights |= _dense(f"{name}.attention.o_proj", block.attention.out)
        weights |= _norm(f"{name}.layernorm_before", block.attention_norm)
        weights |= _norm(f"{name}.layernorm_after", block.mlp_norm)
        weights |= _dense(f"{name}.mlp.fc1", block.mlp.hidden) | _dense(f"{name}.mlp.fc2", block.mlp.out)
    return weights


def _dense(name: str, params: Dense) -> dict[str, np.ndarray]:
    return {f"{name}.weight": params.kernel.T, f"{name}.bias": params.bias}


def _norm(name: str, params: LayerNorm) -> dict[str, np.ndarray]:
    return {f"{name}.weight": params.scale, f"{name}.bias": params.bias}
