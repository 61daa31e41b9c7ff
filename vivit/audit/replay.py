"""A model as a chain of parts, each computed alone with NumPy and vivit.reference; `python replay.py` replays one.

A part takes one stage and gives the next ones, under the names of `capture=`: "encoder/3" takes "encoder/2/out" and
gives "encoder/3/weights", …, "encoder/3/out". An audit looks for the cause of a difference with it. A copy of this
file, with one npz beside it, is the replay of a dossier: it recomputes the stage that departs, or the one that is
nearest to its bound, and prints by how much. The file imports NumPy and vivit.reference, nothing else.
"""

import json
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vivit.reference import attention, encoder, models
from vivit.reference.config import Config
from vivit.reference.layers import dense, layer_norm, pool
from vivit.reference.params import Params, convert, layer, leaves, shapes
from vivit.reference.positions import table

PIXELS = "pixels"  # the stage before the first part: float[b frames height width colors]
CORES = {
    "spatio_temporal": attention.joint,
    "factorised_encoder": attention.spatial,
    "factorised_dot_product": attention.factorised_dot_product,
}


class Scaling(NamedTuple):
    """What makes pixels of values 0…255: (value · rescale − offset − mean) / std, mean and std one number a color."""

    rescale: Any
    offset: Any
    mean: Any
    std: Any


class Part(NamedTuple):
    """One part. source: the stage that it takes; it ends with the stage that the next part takes."""

    name: str
    source: str


def chain(config: Config) -> tuple[Part, ...]:
    """Returns the parts of a model, in order."""
    parts, stage = [Part("tokens", PIXELS)], "tokens"
    encoders = {"encoder": config.layers}
    if config.model == "factorised_encoder":
        encoders |= {"frames": 0} | ({"temporal_encoder": config.temporal_layers} if config.temporal_layers else {})
    for name, layers in encoders.items():
        if name == "frames":
            names = [name]
        else:
            names = [f"{name}/tokens", *(f"{name}/{index}" for index in range(layers)), f"{name}/norm"]
        for part in names:
            parts.append(Part(part, stage))
            stage = last_stage(part)
    for part in ("features", "prelogits", "logits"):
        parts.append(Part(part, stage))
        stage = part
    return tuple(parts)


def last_stage(part: str) -> str:
    """Returns the stage that a part ends with."""
    return f"{part}/out" if part.rpartition("/")[2].isdecimal() else part


def part_of(stage: str) -> str:
    """Returns the part that gives a stage."""
    name = stage.rpartition("/")[0]
    return name if name.rpartition("/")[2].isdecimal() else stage


def tree_of(part: str, params: Params) -> Any:
    """Returns what of a tree of parameters a part reads: of a layer, the leaves of all layers; None: nothing."""
    if part == PIXELS:
        return Scaling(0, 0, 0, 0)  # not of the model
    if part == "tokens":
        return params.embedding
    if part in ("prelogits", "logits"):
        return params.representation if part == "prelogits" else params.head
    if part in ("features", "frames"):
        return None
    name, _, place = part.partition("/")
    own = getattr(params, name)
    if place == "tokens":
        return own._replace(blocks=None, norm=None)
    return own.norm if place == "norm" else own.blocks


def params_of(part: str, params: Params) -> Any:
    """Returns the parameters that a part reads; of a layer, its own alone."""
    place = part.rpartition("/")[2]
    tree = tree_of(part, params)
    return layer(tree, int(place)) if place.isdecimal() else tree


def compute(part: str, source: np.ndarray, params: Any, config: Config, capture: dict | None = None) -> np.ndarray:
    """Computes one part. Returns its last stage, float64.

    source: float[b …], the stage that the part takes. params: params_of(part, …), float64. capture: a dict that
    receives every stage of the part by its whole name, in order. The part "pixels" takes the values 0…255 of a clip,
    and its params are a Scaling.
    """
    stages = {} if capture is None else capture
    name, _, place = part.partition("/")
    if part == PIXELS:
        stages[part] = (source * params.rescale - params.offset - params.mean) / params.std
    elif part == "tokens":
        grid = config.grid_of(*source.shape[1:4])
        stages[part] = models.tokenise(params, source, config, grid).tokens
    elif place == "tokens":
        stages[part] = _with_positions(name, source, params, config)
    elif place == "norm":
        stages[part] = layer_norm(source, params, config.epsilon)
    elif place:
        _block(name, source, params, config, _Prefixed(stages, part))
    elif part in ("frames", "features"):
        stages[part] = _pooled(part, source, config)
    elif part == "prelogits":
        stages[part] = source if params is None else np.tanh(dense(source, params))
    else:
        stages[part] = source if params is None else dense(source, params)
    return stages[last_stage(part)]


class _Prefixed(dict):
    """A capture dict that hands every stage on, under the name of its layer."""

    def __init__(self, stages: dict, prefix: str) -> None:
        super().__init__()
        self.stages, self.prefix = stages, prefix

    def __setitem__(self, name: str, value: Any) -> None:
        self.stages[f"{self.prefix}/{name}"] = value


class _ReachedError(Exception):
    """Ends a computation once its stage is there."""


class _First(dict):
    """A capture dict that ends the computation with the first stage."""

    def __setitem__(self, name: str, value: Any) -> None:
        super().__setitem__(name, value)
        raise _ReachedError


def _with_positions(name: str, tokens: np.ndarray, params: Any, config: Config) -> np.ndarray:
    """The class token and the positions, as encoder.encode adds them."""
    time, height, width = config.grid
    grid = config.grid
    if config.model == "factorised_encoder":
        grid = (time, 1, 1) if name == "temporal_encoder" else (1, height, width)
    if config.class_token != (params.class_token is not None):  # a fault in how tokens are pooled is none in positions
        config = replace(config, pooling="mean" if config.class_token else "token")
    positions = table(params.positions, config, grid, grid)
    b, c = tokens.shape[0], tokens.shape[-1]
    if config.model == "spatio_temporal":
        tokens = tokens.reshape(b, -1, c)
    elif config.model != "factorised_encoder" and positions is not None:
        positions = positions.reshape(time, height * width, c)
    first = _First()
    with suppress(_ReachedError):
        encoder.encode(tokens, params, config, positions, encoder.block, capture=first)
    return first["encoder/tokens"]


def _block(name: str, tokens: np.ndarray, params: Any, config: Config, stages: dict) -> None:
    if config.model == "factorised_self_attention":
        encoder.factorised_block(tokens, params, None, stages, config=config)
        return
    temporal = name == "temporal_encoder"
    core = attention.joint if temporal else CORES[config.model]
    encoder.block(tokens, params, None, stages, config=config.temporal if temporal else config, core=core)


def _pooled(part: str, tokens: np.ndarray, config: Config) -> np.ndarray:
    if part == "features" and config.model == "factorised_encoder" and not config.temporal_layers:
        return pool(tokens, "mean")
    if config.model in ("factorised_self_attention", "factorised_dot_product"):
        tokens = tokens.reshape(tokens.shape[0], -1, tokens.shape[-1])
    return pool(tokens, config.pooling)


class Replay(NamedTuple):
    """What a replay needs. stage: the one that is recomputed. actual: float[b …], what is compared with the reference.

    who: whose numbers `actual` are. params: params_of(part, …). bound: of the largest difference.
    """

    part: str
    stage: str
    who: str
    bound: float
    config: Config
    params: Any
    source: np.ndarray
    actual: np.ndarray


def replay_of(
    stage: str, actual: np.ndarray, who: str, bound: float, *, video: np.ndarray, params: Params, config: Config
) -> Replay:
    """Returns the replay of one stage. video: float[1 frames height width 3], preprocessed. params: of the model."""
    params = convert(params, lambda _, leaf: np.asarray(leaf))
    part, source = part_of(stage), np.asarray(video, np.float64)
    for one in chain(config):
        if one.name == part:
            break
        own = convert(params_of(one.name, params), lambda _, leaf: leaf.astype(np.float64))
        source = compute(one.name, source, own, config)
    return Replay(part, stage, who, bound, config, params_of(part, params), source, np.asarray(actual))


def arrays_of(replay: Replay) -> dict[str, np.ndarray]:
    """Returns the arrays of the npz: source, actual, every leaf, and as JSON what is no array."""
    said = {"part": replay.part, "stage": replay.stage, "who": replay.who, "bound": replay.bound}
    said["config"] = asdict(replay.config)
    arrays = {"said": np.array(json.dumps(said)), "source": replay.source, "actual": replay.actual}
    return arrays | {f"params/{path}": np.asarray(leaf) for path, leaf in leaves(replay.params)}


def read_replay(path: Path) -> Replay:
    """Returns the replay in an npz."""
    with np.load(path, allow_pickle=False) as file:
        arrays = dict(file)
    said = json.loads(str(arrays["said"]))
    config = Config(**said["config"])
    tree = tree_of(said["part"], shapes(config))
    params = convert(tree, lambda path, _: arrays.get(f"params/{path}"))
    return Replay(**said | dict(config=config, params=params, source=arrays["source"], actual=arrays["actual"]))


def difference(replay: Replay) -> tuple[float, tuple[int, ...], float, float]:
    """Returns the largest absolute difference from the reference, its index, and both numbers there.

    Raises ValueError if the shapes differ.
    """
    stages: dict[str, np.ndarray] = {}
    params = convert(replay.params, lambda _, leaf: np.asarray(leaf, np.float64))
    compute(replay.part, np.asarray(replay.source, np.float64), params, replay.config, stages)
    expected = stages[replay.stage]
    if expected.shape != replay.actual.shape:
        raise ValueError(f"{replay.stage} has shape {replay.actual.shape}: it must be {expected.shape}")
    error = np.abs(replay.actual.astype(np.float64) - expected)
    worst = np.unravel_index(np.argmax(error), error.shape)
    index = tuple(int(i) for i in worst)
    return float(error[worst]), index, float(replay.actual[worst]), float(expected[worst])


def main(path: Path) -> int:
    """Prints the difference. Returns 0 if it is within its bound, else 1."""
    replay = read_replay(path)
    try:
        error, index, actual, expected = difference(replay)
    except ValueError as fault:
        print(fault)
        return 1
    within = error <= replay.bound
    print(f"{replay.stage}: {replay.who} differs from the reference by {error:.3g}, bound {replay.bound:.3g}: ", end="")
    print(f"{'within' if within else 'departs'}; at {list(index)} {actual!r}, the reference has {expected!r}")
    return 0 if within else 1


if __name__ == "__main__":
    sys.exit(main(Path(__file__).with_suffix(".npz")))
