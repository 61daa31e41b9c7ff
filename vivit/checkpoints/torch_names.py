"""Maps our parameters to the names of the PyTorch ports: Hugging Face's ViViT and ViT, and timm's ViT.

Both generations of Hugging Face's names are read. Dense kernels have the layout (out, in), the embedding's (c, colors,
time, height, width). Only model 1 exists there.
"""

import re
from dataclasses import replace
from typing import cast

import numpy as np

from vivit.checkpoints.files import Arrays
from vivit.checkpoints.name_map import PRODUCT, NamedArrays, file_leaf, renamed
from vivit.reference.config import Config
from vivit.reference.params import Attention, Block, Dense, Encoder, LayerNorm, Mlp, Params, shapes

BLOCK = "encoder.layer.{}"
QKV = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
HEAD, POOLER = "classifier", "pooler.dense"

# each generation of names, rewritten to the first one
_NEWER = (
    (r"^layers\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.attention\.q_proj\.", ".attention.attention.query."),
    (r"\.attention\.k_proj\.", ".attention.attention.key."),
    (r"\.attention\.v_proj\.", ".attention.attention.value."),
    (r"\.attention\.o_proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
)
_TIMM = (
    (r"^cls_token$", "embeddings.cls_token"),
    (r"^pos_embed$", "embeddings.position_embeddings"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embeddings.projection."),
    (r"^blocks\.(\d+)\.", r"encoder.layer.\1."),
    (r"\.norm1\.", ".layernorm_before."),
    (r"\.norm2\.", ".layernorm_after."),
    (r"\.attn\.proj\.", ".attention.output.dense."),
    (r"\.mlp\.fc1\.", ".intermediate.dense."),
    (r"\.mlp\.fc2\.", ".output.dense."),
    (r"^norm\.", "layernorm."),
    (r"^head\.", "classifier."),
)


def plain_names(arrays: Arrays) -> NamedArrays:
    """Renames a file's arrays to the names used here, from either of Hugging Face's generations, without the prefix."""
    return renamed(arrays, ((r"^(vivit|vit)\.", ""), *_NEWER))


def timm_names(arrays: Arrays) -> NamedArrays:
    """Renames timm's arrays: splits query, key and value, and multiplies LayerScale into the dense layer before it."""
    plain = NamedArrays({}, {})
    source = renamed(arrays, _TIMM)
    for name, array in source.arrays.items():
        found = re.fullmatch(r"(encoder\.layer\.\d+\.)attn\.qkv\.(weight|bias)", name)
        parts = {name: array}
        if found and len(array) % 3 == 0:
            thirds = array.reshape(3, len(array) // 3, *array.shape[1:])
            parts = {f"{found[1]}{part}.{found[2]}": third for part, third in zip(QKV, thirds, strict=True)}
        plain.arrays.update(parts)
        plain.original_names.update(dict.fromkeys(parts, source.original_names[name]))
    for name in [name for name in plain.arrays if re.fullmatch(r"encoder\.layer\.\d+\.ls[12]\.gamma", name)]:
        _scale_into_dense(plain, name)
    return plain


def _scale_into_dense(plain: NamedArrays, name: str) -> None:
    """Multiplies one LayerScale into the outputs of its dense layer.

    If they do not fit, it stays and is superfluous.
    """
    block, scale, _ = name.rsplit(".", 2)
    dense = f"{block}.attention.output.dense" if scale == "ls1" else f"{block}.output.dense"
    arrays, original_names = plain
    kernel, bias, gamma = arrays.get(f"{dense}.weight"), arrays.get(f"{dense}.bias"), arrays[name]
    if kernel is None or bias is None or not gamma.shape == bias.shape == kernel.shape[:1]:
        return
    arrays[f"{dense}.weight"], arrays[f"{dense}.bias"] = kernel * gamma[:, np.newaxis], bias * gamma
    for leaf in ("weight", "bias"):
        original_names[f"{dense}.{leaf}"] += PRODUCT + original_names[name]
    del arrays[name], original_names[name]


def name_map(config: Config, *, image: bool = False, qkv_bias: bool = True) -> Params:
    """Returns the port's name and shape of every leaf of a config of model 1, without the prefix "vivit.".

    image: for an image model, represented by a config of one frame. qkv_bias: whether the projections have a bias.
    """
    tree = shapes(config)
    time, height, width, colors, c = tree.embedding.kernel.shape
    encoder = tree.encoder
    kernel = file_leaf(
        tree.embedding.kernel,
        "embeddings.patch_embeddings.projection.weight",
        shape=(c, colors, height, width) if image else (c, colors, time, height, width),
        axes=(2, 3, 1, 0) if image else (2, 3, 4, 1, 0),
    )
    token, positions = encoder.class_token, encoder.positions
    return Params(
        Dense(kernel, file_leaf(tree.embedding.bias, "embeddings.patch_embeddings.projection.bias")),
        Encoder(
            None if token is None else file_leaf(token, "embeddings.cls_token", shape=(1, 1, c)),
            None
            if positions is None
            else file_leaf(positions, "embeddings.position_embeddings", shape=(1, *positions.shape)),
            _block(cast(Block, encoder.blocks), qkv_bias),
            _norm("layernorm", encoder.norm),
        ),
        None,
        None if tree.representation is None else _dense(POOLER, tree.representation),
        None if tree.head is None else _dense(HEAD, tree.head),
    )


def _block(leaf: Block, qkv_bias: bool) -> Block:
    qkv = _dense([f"{BLOCK}.{part}" for part in QKV], leaf.attention.qkv)
    if not qkv_bias:
        qkv = qkv._replace(bias=replace(qkv.bias, absent=True))
    return Block(
        _norm(f"{BLOCK}.layernorm_before", leaf.attention_norm),
        Attention(qkv, _dense(f"{BLOCK}.attention.output.dense", leaf.attention.out)),
        _norm(f"{BLOCK}.layernorm_after", leaf.mlp_norm),
        Mlp(_dense(f"{BLOCK}.intermediate.dense", leaf.mlp.hidden), _dense(f"{BLOCK}.output.dense", leaf.mlp.out)),
    )


def _dense(names: str | list[str], leaf: Dense) -> Dense:
    names = [names] if isinstance(names, str) else names
    inputs, outputs = leaf.kernel.shape[-2:]
    kernel = file_leaf(
        leaf.kernel, *(f"{name}.weight" for name in names), shape=(outputs // len(names), inputs), axes=(1, 0)
    )
    return Dense(kernel, file_leaf(leaf.bias, *(f"{name}.bias" for name in names)))


def _norm(name: str, leaf: LayerNorm) -> LayerNorm:
    return LayerNorm(file_leaf(leaf.scale, f"{name}.weight"), file_leaf(leaf.bias, f"{name}.bias"))
