"""The fixtures: what published implementations computed, with their parameter names turned into our tree."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vivit.reference.config import Config, named
from vivit.reference.params import Attention, Block, Dense, Encoder, FactorisedBlock, LayerNorm, Mlp, Params

FIXTURES = Path(__file__).parent / "fixtures"
NAMES = {
    "published_m1_token": named("vivit-tiny/8x2"),
    "published_m2_token": replace(named("vivit-tiny/8x2-fe"), temporal_layers=3),
    "published_m3_time_space_gap": named("vivit-tiny/8x2-fsa"),
    "published_m4_gap": named("vivit-tiny/8x2-fdp"),
}


class Published(NamedTuple):
    config: Config
    params: Params
    arrays: dict[str, np.ndarray]

    def tree(self, prefix: str) -> Params:
        """The arrays under a prefix ("params" or "grads") as our tree, float64."""
        return flax_tree({name: np.float64(self.arrays[f"{prefix}/{name}"]) for name in self.leaf_names}, self.config)

    @property
    def leaf_names(self) -> list[str]:
        return [name.removeprefix("params/") for name in self.arrays if name.startswith("params/")]


def published(name: str) -> Published:
    """One fixture of the published Flax graph."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = dict(file)
    fixture = Published(NAMES[name], None, arrays)
    return fixture._replace(params=fixture.tree("params"))


def hugging_face() -> tuple[Config, Params, dict[str, np.ndarray]]:
    """The PyTorch port of model 1: config, params, and arrays with the video as [b frames height width colors]."""
    from safetensors.numpy import load_file

    weights = {name: np.float64(leaf) for name, leaf in load_file(FIXTURES / "hf_vivit_tiny.safetensors").items()}
    arrays = {}
    for part in ("input", "logits", "hidden"):
        with np.load(FIXTURES / f"hf_vivit_tiny.{part}.npz") as file:
            arrays |= dict(file)
    arrays["video"] = arrays.pop("pixel_values").transpose(0, 1, 3, 4, 2)
    config = named("vivit-tiny/8x2")
    return config, torch_tree(weights, config), arrays


def flax_tree(leaves: dict[str, np.ndarray], config: Config) -> Params:
    def dense(name):
        return Dense(leaves[f"{name}/kernel"], leaves[f"{name}/bias"])

    def norm(name):
        return LayerNorm(leaves[f"{name}/scale"], leaves[f"{name}/bias"])

    def attention(name):
        kernels = [leaves[f"{name}/{part}/kernel"].reshape(config.channels, -1) for part in ("query", "key", "value")]
        biases = [leaves[f"{name}/{part}/bias"].ravel() for part in ("query", "key", "value")]
        out = Dense(leaves[f"{name}/out/kernel"].reshape(-1, config.channels), leaves[f"{name}/out/bias"])
        return Attention(Dense(np.concatenate(kernels, -1), np.concatenate(biases)), out)

    def block(name):
        attend = attention(f"{name}/MultiHeadDotProductAttention_0")
        mlp = Mlp(dense(f"{name}/MlpBlock_0/Dense_0"), dense(f"{name}/MlpBlock_0/Dense_1"))
        return Block(norm(f"{name}/LayerNorm_0"), attend, norm(f"{name}/LayerNorm_1"), mlp)

    def factorised_block(name):
        return FactorisedBlock(
            norm(f"{name}/LayerNorm_time"),
            attention(f"{name}/MultiHeadDotProductAttention_time"),
            norm(f"{name}/LayerNorm_space"),
            attention(f"{name}/MultiHeadDotProductAttention_space"),
            norm(f"{name}/LayerNorm_mlp"),
            Mlp(dense(f"{name}/MlpBlock/Dense_0"), dense(f"{name}/MlpBlock/Dense_1")),
        )

    def encoder(name, layers, class_token, one_block):
        blocks = stack([one_block(f"{name}/encoderblock_{index}") for index in range(layers)])
        token = leaves[class_token].ravel() if class_token in leaves else None
        return Encoder(token, leaves[f"{name}/posembed_input/pos_embedding"][0], blocks, norm(f"{name}/encoder_norm"))

    if config.model == "factorised_encoder":
        spatial = encoder("SpatialTransformer", config.layers, "cls_SpatialTransformer", block)
        temporal = encoder("TemporalTransformer", config.temporal_layers, "cls_TemporalTransformer", block)
    else:
        one_block = factorised_block if config.model == "factorised_self_attention" else block
        spatial, temporal = encoder("Transformer", config.layers, "cls", one_block), None
    return Params(dense("embedding"), spatial, temporal, None, dense("output_projection"))


def torch_tree(weights: dict[str, np.ndarray], config: Config) -> Params:
    """The names and (out, in) kernels of VivitForVideoClassification, as its files or its state_dict have them."""
    weights = {name.removeprefix("vivit."): leaf for name, leaf in weights.items()}

    def dense(name):
        return Dense(weights[f"{name}.weight"].T, weights[f"{name}.bias"])

    def norm(name):
        return LayerNorm(weights[f"{name}.weight"], weights[f"{name}.bias"])

    def block(name):
        old = f"{name}.attention.attention.query.weight" in weights
        if old:
            parts = [f"attention.attention.{part}" for part in ("query", "key", "value")]
            out, hidden, last = "attention.output.dense", "intermediate.dense", "output.dense"
        else:
            parts = [f"attention.{part}_proj" for part in "qkv"]
            out, hidden, last = "attention.o_proj", "mlp.fc1", "mlp.fc2"
        projections = [dense(f"{name}.{part}") for part in parts]
        qkv = Dense(np.concatenate([p.kernel for p in projections], -1), np.concatenate([p.bias for p in projections]))
        return Block(
            norm(f"{name}.layernorm_before"),
            Attention(qkv, dense(f"{name}.{out}")),
            norm(f"{name}.layernorm_after"),
            Mlp(dense(f"{name}.{hidden}"), dense(f"{name}.{last}")),
        )

    stem = "encoder.layer" if any(name.startswith("encoder.layer.") for name in weights) else "layers"
    projection = weights["embeddings.patch_embeddings.projection.weight"]  # [c colors time height width]
    return Params(
        Dense(projection.transpose(2, 3, 4, 1, 0), weights["embeddings.patch_embeddings.projection.bias"]),
        Encoder(
            weights["embeddings.cls_token"].ravel(),
            weights["embeddings.position_embeddings"][0],
            stack([block(f"{stem}.{index}") for index in range(config.layers)]),
            norm("layernorm"),
        ),
        None,
        None,
        dense("classifier"),
    )


def stack(blocks: list) -> Block | FactorisedBlock:
    """One tree with a leading axis l from a list of trees."""
    if hasattr(blocks[0], "_fields"):
        return type(blocks[0])(*(stack(parts) for parts in zip(*blocks, strict=True)))
    return np.stack(blocks)
