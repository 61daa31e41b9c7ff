"""The parameter names of the PyTorch ports: Hugging Face's ViViT and ViT, both naming generations, and timm's ViT.

Dense kernels lie as (out, in) there, the embedding's as (c, colors, time, height, width). Only model 1 exists.
"""

import re
from dataclasses import replace
from typing import cast

import numpy as np

from vivit.checkpoints.files import Arrays
from vivit.checkpoints.spelling import spell
from vivit.reference.config import Config
from vivit.reference.params import Attention, Block, Dense, Encoder, LayerNorm, Mlp, Params, shapes

BLOCK = "encoder.layer.{}"
QKV = tuple(f"attention.attention.{part}" for part in ("query", "key", "value"))
HEAD, POOLER = "classifier", "pooler.dense"

# each generation of names, rewritten into the one that files carry
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


def plain_names(arrays: Arrays) -> Arrays:
    """A file's arrays under the names below, whichever generation of Hugging Face's wrote it, without its prefix."""
    arrays = {re.sub(r"^(vivit|vit)\.", "", name): array for name, array in arrays.items()}
    return renamed(arrays, _NEWER)


def timm_names(arrays: Arrays) -> Arrays:
    """timm's arrays under the names below: query, key and value come apart, LayerScale goes into the dense before."""
    plain = {}
    for name, array in renamed(arrays, _TIMM).items():
        if (found := re.fullmatch(r"(encoder\.layer\.\d+\.)attn\.qkv\.(weight|bias)", name)) and len(array) % 3 == 0:
            third = len(array) // 3
            for index, part in enumerate(QKV):
                plain[f"{found[1]}{part}.{found[2]}"] = array[index * third : (index + 1) * third]
        else:
            plain[name] = array
    for name in [name for name in plain if re.fullmatch(r"encoder\.layer\.\d+\.ls[12]\.gamma", name)]:
        block, scale, _ = name.rsplit(".", 2)
        dense = f"{block}.attention.output.dense" if scale == "ls1" else f"{block}.output.dense"
        kernel, bias = plain.get(f"{dense}.weight"), plain.get(f"{dense}.bias")
        if kernel is not None and bias is not None and plain[name].shape == bias.shape == kernel.shape[:1]:
            gamma = plain.pop(name)
            plain[f"{dense}.weight"], plain[f"{dense}.bias"] = kernel * gamma[:, np.newaxis], bias * gamma
    return plain


def renamed(arrays: Arrays, rules: tuple[tuple[str, str], ...]) -> Arrays:
    """The same arrays, each name rewritten by every (pattern, replacement). Raises ValueError if two become one."""
    rewritten = {}
    for name, array in arrays.items():
        new = name
        for pattern, replacement in rules:
            new = re.sub(pattern, replacement, new)
        if new in rewritten:
            raise ValueError(f"{name} and another array both stand for {new}: only one may be there")
        rewritten[new] = array
    return rewritten


def spellings(config: Config, *, image: bool = False, qkv_bias: bool = True) -> Params:
    """The name and shape in the port of every leaf of a config of model 1, without the classifier's prefix "vivit.".

    image: of an image model, which a config of one frame stands for. qkv_bias: whether projections have one.
    """
    tree = shapes(config)
    time, height, width, colors, c = tree.embedding.kernel.shape
    encoder = tree.encoder
    kernel = spell(
        tree.embedding.kernel,
        "embeddings.patch_embeddings.projection.weight",
        shape=(c, colors, height, width) if image else (c, colors, time, height, width),
        axes=(2, 3, 1, 0) if image else (2, 3, 4, 1, 0),
    )
    token, positions = encoder.class_token, encoder.positions
    return Params(
        Dense(kernel, spell(tree.embedding.bias, "embeddings.patch_embeddings.projection.bias")),
        Encoder(
            None if token is None else spell(token, "embeddings.cls_token", shape=(1, 1, c)),
            None
            if positions is None
            else spell(positions, "embeddings.position_embeddings", shape=(1, *positions.shape)),
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
    kernel = spell(
        leaf.kernel, *(f"{name}.weight" for name in names), shape=(outputs // len(names), inputs), axes=(1, 0)
    )
    return Dense(kernel, spell(leaf.bias, *(f"{name}.bias" for name in names)))


def _norm(name: str, leaf: LayerNorm) -> LayerNorm:
    return LayerNorm(spell(leaf.scale, f"{name}.weight"), spell(leaf.bias, f"{name}.bias"))
