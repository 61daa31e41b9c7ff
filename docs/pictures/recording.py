"""Records a run of the four models on one clip: attention weights, tokens after each layer, probabilities and costs.

All four have the weights of the demo model, which is model 1. Models 2 to 4 were never trained: model 2 uses the layers
for its second encoder too, model 3 uses each attention twice, and model 4 has the same arrays.
"""

import base64
from dataclasses import replace
from typing import Any

import numpy as np

import vivit
from vivit.explanation.images import COLOR, LIGHT, frame_url
from vivit.explanation.page_data import title
from vivit.reference.config import Config
from vivit.reference.costs import multiply_adds
from vivit.reference.params import FactorisedBlock, Params

MODELS = {  # the paper's models, and the names of their ViViT-B
    "spatio_temporal": ("Model 1: all tokens", "vivit-b/16x2"),
    "factorised_encoder": ("Model 2: factorised encoder", "vivit-b/16x2-fe"),
    "factorised_self_attention": ("Model 3: factorised self-attention", "vivit-b/16x2-fsa"),
    "factorised_dot_product": ("Model 4: factorised dot product", "vivit-b/16x2-fdp"),
}
KINDS = {"weights": "joint", "space_weights": "space", "time_weights": "time"}  # by the last word of the stage
STEPS = 65535  # a weight of 1, in 16 bits


def with_weights_of(params: Params, config: Config, model: str) -> tuple[Params, Config]:
    """Returns params and config of a model that uses the layers of model 1 in every encoder and attention."""
    blocks = params.encoder.blocks
    if model == "factorised_encoder":
        params = params._replace(temporal_encoder=params.encoder)
    if model == "factorised_self_attention":
        norm, attention = blocks.attention_norm, blocks.attention
        blocks = FactorisedBlock(norm, attention, norm, attention, blocks.mlp_norm, blocks.mlp)
        params = params._replace(encoder=params.encoder._replace(blocks=blocks))
    return params, replace(config, model=model, temporal_layers=config.layers)


def recorded(loaded: vivit.Model, clip: np.ndarray) -> dict[str, Any]:
    """Runs the four models on a clip, uint8[frames height width 3], and returns the data of clip.js.

    loaded: the demo model, or another of model 1 without class token.
    """
    config = replace(loaded.config, frames=len(clip))
    models = []
    for model in MODELS:
        params, own = with_weights_of(loaded.params, config, model)
        stages: dict[str, Any] = {}
        vivit.forward(params, loaded.preprocessed(clip[np.newaxis]), own, capture=stages)
        stages = {name: np.asarray(values)[0] for name, values in stages.items()}
        models.append(_model(loaded, own, stages))
    return dict(
        color=COLOR,
        light=LIGHT,
        steps=STEPS,
        grid=config.grid,
        tubelet=config.tubelet,
        frames=[frame_url(frame) for frame in clip[:: config.tubelet[0]]],
        models=models,
    )


def _model(loaded: vivit.Model, config: Config, stages: dict[str, np.ndarray]) -> dict[str, Any]:
    named, published = MODELS[config.model]
    layers = [_attention(name, stages[name], config) for name in stages if name.endswith("weights")]
    (labels,), logits = loaded.labels or (), stages["logits"].astype(float)
    likely = np.exp(logits - logits.max())
    likely /= likely.sum()
    return dict(
        title=named,
        layers=layers,
        tokens=list(_tokens(stages, config)),
        labels=[(labels[i], float(likely[i])) for i in np.argsort(-likely)],
        weights=sum(layer["count"] for layer in layers),
        bytes=sum(layer["size"] for layer in layers),
        products=sum(layer["products"] for layer in layers),
        multiply_adds=multiply_adds(config),
        published=multiply_adds(vivit.named(published)),
    )


def _attention(name: str, weights: np.ndarray, config: Config) -> dict[str, Any]:
    """One captured attention: [h q k], or [r h q k] for r sequences, as [h r q k] in 16 bits each."""
    kind = "frames" if name.startswith("temporal_encoder") else KINDS[name.rpartition("/")[2]]
    first = config.heads // 2 if (config.model, kind) == ("factorised_dot_product", "space") else 0
    by_head = weights.swapaxes(0, 1) if weights.ndim == 4 else weights
    return dict(
        title=title(name),
        kind=kind,
        heads=[f"Head {first + number + 1}" for number in range(len(by_head))],
        shape=weights.shape,
        count=weights.size,
        size=weights.nbytes,
        products=2 * weights.size * (config.channels // config.heads),  # Q Kᵀ, and the weights times V
        codes=_base64(np.round(STEPS * by_head).astype("<u2")),
    )


def _tokens(stages: dict[str, np.ndarray], config: Config):
    """What becomes of each token: one row of channels each, as bytes around 128, whose 127 is the stage's largest."""
    outs = [name for name in stages if name.endswith("/out")]
    titles = {"tokens": "Embedded", **{name: f"After {_lower(title(name))}" for name in outs}}
    titles |= {"features": "Mean of all tokens"}
    for name, text in titles.items():
        values = stages[name].reshape(-1, config.channels)
        largest = float(np.abs(values).max())
        bytes_ = np.round(128 + 127 * values / largest).astype(np.uint8)
        rows = {config.grid[0]: "times", 1: "clip"}.get(len(values), "tokens")
        yield dict(title=text, rows=rows, shape=stages[name].shape, largest=largest, bytes=_base64(bytes_))


def _lower(text: str) -> str:
    return f"{text[0].lower()}{text[1:]}"


def _base64(array: np.ndarray) -> str:
    return base64.b64encode(array.tobytes()).decode()
