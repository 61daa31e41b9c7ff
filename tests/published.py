"""The fixtures: results of published implementations, read by our own loader."""

from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import vivit
from vivit.checkpoints.flax_names import name_map
from vivit.checkpoints.name_map import read_params, subtree
from vivit.reference.config import Config, named
from vivit.reference.params import Params

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
        """Returns the arrays under a prefix ("params" or "grads") as a Params tree, float64."""
        return read_params(subtree(self.arrays, f"{prefix}/"), name_map(self.config), self.config, prefix, np.float64)[
            0
        ]


def published(name: str) -> Published:
    """Reads one fixture of the published Flax model."""
    with np.load(FIXTURES / f"{name}.npz") as file:
        arrays = dict(file)
    fixture = Published(NAMES[name], None, arrays)
    return fixture._replace(params=fixture.tree("params"))


def hugging_face() -> tuple[Config, Params, dict[str, np.ndarray]]:
    """The PyTorch port of model 1: config, params, and arrays with the video as [b frames height width colors]."""
    config = named("vivit-tiny/8x2")
    params = vivit.load(FIXTURES / "hf_vivit_tiny.safetensors", config).params
    arrays = {}
    for part in ("input", "logits", "hidden"):
        with np.load(FIXTURES / f"hf_vivit_tiny.{part}.npz") as file:
            arrays |= dict(file)
    arrays["video"] = arrays.pop("pixel_values").transpose(0, 1, 3, 4, 2)
    return config, params, arrays
