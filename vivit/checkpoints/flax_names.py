"""Maps our parameters to the names of the published Flax checkpoints, all four models: "Transformer/encoderblock_0/…".

Source: the published code of ViViT, and of the image ViT that it builds on. Query, key and value are three arrays with
an axis of heads; a model of sampled frames embeds each frame as an image, so its kernel has no time axis. All other
arrays have our layout.
"""

import re
from collections.abc import Collection
from typing import Literal

from vivit.checkpoints.name_map import file_leaf
from vivit.reference.config import Config
from vivit.reference.params import Attention, Block, Dense, Encoder, FactorisedBlock, LayerNorm, Mlp, Params, shapes

ROOTS = (  # prefixes of the parameters in a file
    *("", "params/", "params/params/", "params/img/", "target/"),
    *("opt/target/", "optimizer/target/", "optimizer/target/params/"),
)
_IMAGE = re.compile(
    r"head/|pos_embedding$|MAPHead_0/|Transformer/encoderblock/"
    r"|Transformer/encoderblock_\d+/(LayerNorm_2|MlpBlock_3|MultiHeadDotProductAttention_1)/"
)
_VIDEO = re.compile(r"(cls_)?(Spatial|Temporal)Transformer(/|$)|Transformer/encoderblock_\d+/\w+_(time|space)/")


def image_or_video(names: Collection[str]) -> Literal["image", "video"] | None:
    """Returns which kind of model has these names.

    None: models 1 and 4 with sampled frames, or an image ViT; their names are equal.
    """
    if any(map(_VIDEO.match, names)):
        return "video"
    return "image" if any(map(_IMAGE.match, names)) else None


def name_map(config: Config, *, image: bool | None = None) -> Params:
    """Returns the published name and shape of every leaf of a config.

    image: whether the embedding kernel is that of an image, without a time axis; None: if frames are sampled.
    """
    tree = shapes(config)
    if image is None:
        image = config.sampled_frames is not None
    spatial, temporal = "Transformer", None
    if config.model == "factorised_encoder":
        spatial = "SpatialTransformer"
    if tree.temporal_encoder is not None:
        temporal = _encoder("TemporalTransformer", "cls_TemporalTransformer", tree.temporal_encoder, config.temporal)
    class_token = "cls_SpatialTransformer" if config.model == "factorised_encoder" else "cls"
    kernel = tree.embedding.kernel
    embedding = Dense(
        file_leaf(kernel, "embedding/kernel", shape=kernel.shape[1:] if image else kernel.shape),
        file_leaf(tree.embedding.bias, "embedding/bias"),
    )
    return Params(
        embedding,
        _encoder(spatial, class_token, tree.encoder, config),
        temporal,
        None if tree.representation is None else _dense("pre_logits", tree.representation),
        None if tree.head is None else _dense("output_projection", tree.head),
    )


def _encoder(name: str, class_token: str, leaf: Encoder, config: Config) -> Encoder:
    return Encoder(
        None if leaf.class_token is None else file_leaf(leaf.class_token, class_token, shape=(1, 1, config.channels)),
        None
        if leaf.positions is None
        else file_leaf(leaf.positions, f"{name}/posembed_input/pos_embedding", shape=(1, *leaf.positions.shape)),
        _factorised_block(f"{name}/encoderblock_{{}}", leaf.blocks, config)
        if isinstance(leaf.blocks, FactorisedBlock)
        else _block(f"{name}/encoderblock_{{}}", leaf.blocks, config),
        _norm(f"{name}/encoder_norm", leaf.norm),
    )


def _block(name: str, leaf: Block, config: Config) -> Block:
    return Block(
        _norm(f"{name}/LayerNorm_0", leaf.attention_norm),
        _attention(f"{name}/MultiHeadDotProductAttention_0", leaf.attention, config),
        _norm(f"{name}/LayerNorm_1", leaf.mlp_norm),
        _mlp(f"{name}/MlpBlock_0", leaf.mlp),
    )


def _factorised_block(name: str, leaf: FactorisedBlock, config: Config) -> FactorisedBlock:
    return FactorisedBlock(
        _norm(f"{name}/LayerNorm_time", leaf.time_norm),
        _attention(f"{name}/MultiHeadDotProductAttention_time", leaf.time_attention, config),
        _norm(f"{name}/LayerNorm_space", leaf.space_norm),
        _attention(f"{name}/MultiHeadDotProductAttention_space", leaf.space_attention, config),
        _norm(f"{name}/LayerNorm_mlp", leaf.mlp_norm),
        _mlp(f"{name}/MlpBlock", leaf.mlp),
    )


def _attention(name: str, leaf: Attention, config: Config) -> Attention:
    c, h = config.channels, config.heads
    d = c // h
    parts = [f"{name}/{part}" for part in ("query", "key", "value")]
    return Attention(
        Dense(
            file_leaf(leaf.qkv.kernel, *(f"{part}/kernel" for part in parts), shape=(c, h, d)),
            file_leaf(leaf.qkv.bias, *(f"{part}/bias" for part in parts), shape=(h, d)),
        ),
        Dense(
            file_leaf(leaf.out.kernel, f"{name}/out/kernel", shape=(h, d, c)),
            file_leaf(leaf.out.bias, f"{name}/out/bias"),
        ),
    )


def _mlp(name: str, leaf: Mlp) -> Mlp:
    return Mlp(_dense(f"{name}/Dense_0", leaf.hidden), _dense(f"{name}/Dense_1", leaf.out))


def _dense(name: str, leaf: Dense) -> Dense:
    return Dense(file_leaf(leaf.kernel, f"{name}/kernel"), file_leaf(leaf.bias, f"{name}/bias"))


def _norm(name: str, leaf: LayerNorm) -> LayerNorm:
    return LayerNorm(file_leaf(leaf.scale, f"{name}/scale"), file_leaf(leaf.bias, f"{name}/bias"))
