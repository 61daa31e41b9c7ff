"""The data of an explanation: everything that a page or a picture shows, as arrays and numbers.

compute.py computes it; page.py and picture.py show it.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vivit.files.paths import printable
from vivit.inference.classification import Score
from vivit.reference.config import Config
from vivit.video.preprocessing import Preprocessing


class AttentionMaps(NamedTuple):
    """Sums of the weights of one attention of one layer, for every head.

    The query is the class token if the attention has one. Otherwise it is the mean of all queries: for "mean" and "sum"
    pooling these are the pooled tokens; for "first" and "max", which pool one token or one per channel, they are not.
    Rollout and relevance always start from the pooled features.
    stage: the captured stage, such as "encoder/3/weights" or "encoder/3/time_weights".
    heads: indices of the heads, from 0; in model 4, time_weights has the first half and space_weights the second.
    space: float32[h t s], attention to every token. Joint attention sums to 1 over (t, s) together with the class
    token; attention within frames sums to 1 over s for each t; attention over time sums to 1 over t for each s. None if
    tokens are whole frames (model 2's temporal encoder).
    time: float32[h t t], attention from a time index (row: mean of its queries) to another (column: sum of its keys).
    None for attention within frames.
    time_of_class: float32[h t], the same for the class token's query. None without one, or within frames.
    """

    stage: str
    heads: tuple[int, ...]
    space: np.ndarray | None
    time: np.ndarray | None
    time_of_class: np.ndarray | None


class ViewScores(NamedTuple):
    """The best classes of one view. start, end: seconds of its first and last frame. crop: 0 … crops − 1."""

    start: float
    end: float
    crop: int
    best: tuple[Score, ...]  # of each head


class Target(NamedTuple):
    """A class with a relevance map: its head, its index in the head, its name and probability."""

    head: int
    number: int
    label: str
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class ExplanationData:
    """The explanation of one clip of a video.

    name: of the video. checkpoint: of the model. frames: uint8[f height width 3], the model's input. stamps:
    float64[f], seconds of the frames. view: index of the clip's view.
    scores: the best classes of every head for the whole video, over all views. views: the best classes of every view.
    targets: the m classes with a relevance map: the requested class, then the best of every head.
    attention: every attention of every layer, in the order of computation. rollout: float32[t s], attention rollout
    from the pooled features to the tokens; its sum is at most 1. relevance: float32[m t s], gradient-weighted attention
    for each target's logit, minus its minimum (a constant with mean pooling). rounding: float32[m], relevance up to
    this value may be rounding error.
    filters: float32[c t h w 3], the tubelet kernel of every channel.
    parameters, multiply_adds: of the model, for one clip.
    unit: of stamps, "s"; "frame" for an array, whose stamps are frame numbers from 0.
    head_names: names of the heads, as ModelData.head_names.
    """

    name: str
    checkpoint: str
    frames: np.ndarray
    stamps: np.ndarray
    view: int
    scores: tuple[tuple[Score, ...], ...]
    views: tuple[ViewScores, ...]
    crops: int
    targets: tuple[Target, ...]
    attention: tuple[AttentionMaps, ...]
    rollout: np.ndarray
    relevance: np.ndarray
    rounding: np.ndarray
    filters: np.ndarray
    config: Config
    preprocessing: Preprocessing
    parameters: int
    multiply_adds: int
    unit: str = "s"
    head_names: tuple[str, ...] = ()

    def __repr__(self) -> str:
        best = ", ".join(f"{printable(head[0].label)} {100 * head[0].probability:.1f} %" for head in self.scores)
        return (
            f"Explanation of {printable(self.name)!r}: {best}\n"
            f"  view {self.view + 1} of {len(self.views)}, relevance of {len(self.targets)} labels, "
            f"{len(self.attention)} attentions\n"
            '  save("report.html") writes the page'
        )
