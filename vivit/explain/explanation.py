"""What an explanation of one clip holds: everything that a page or a picture shows, as plain arrays and numbers.

How it is computed is compute.py's question, how it is shown page.py's and picture.py's.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vivit.model import Score
from vivit.preprocessing import Preprocessing
from vivit.printable import printable
from vivit.reference.config import Config


class AttentionMaps(NamedTuple):
    """One attention of one layer, head by head, summed up so that it can be shown.

    The query is the class token where the attention has one. Else it is the mean over all queries, whatever the model
    pools: for "mean" and "sum" that is what it pools, for "first" and "max", which pool one token or in each channel
    another, it is not; rollout and relevance do start from what is pooled.
    stage: the captured stage that it sums up, such as "encoder/3/weights" or "encoder/3/time_weights".
    heads: the numbers of the heads, from 0; model 4's time_weights has the first half, its space_weights the second.
    space: float32[h t s], how much attention each token gets. From joint attention it sums to 1 over (t, s) but for
    what the class token itself gets; from attention within frames to 1 over s for each t; from attention over time, to
    1 over t for each s. None where tokens are whole frames (model 2's temporal encoder).
    time: float32[h t t], how much the queries of a time index (row) give to the keys of each (column): averaged over
    the row's queries, summed over the column's keys. None for attention within frames.
    time_of_class: float32[h t], the same for the class token's query. None without one, or within frames.
    """

    stage: str
    heads: tuple[int, ...]
    space: np.ndarray | None
    time: np.ndarray | None
    time_of_class: np.ndarray | None


class ViewScores(NamedTuple):
    """What one view of the video said. start, end: seconds of its first and last frame. crop: 0 … crops − 1."""

    start: float
    end: float
    crop: int
    best: tuple[Score, ...]  # of each head


class Target(NamedTuple):
    """A class that relevance is of: its head, its number there, its name and probability."""

    head: int
    number: int
    label: str
    probability: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Explanation:
    """One clip of a video and what a model made of it.

    name: of the video, checkpoint: of the model, as the user named them. frames: uint8[f height width 3], the pixels
    that the model saw; stamps: float64[f], their seconds in the video. view: the number of the view that is pictured.
    scores: for each head the best classes of the whole video, over all views. views: each view's own.
    targets: the classes that relevance is of: the one that was asked for, then the best of every head.
    attention: every attention of every layer, in the order of computation. rollout: float32[t s], attention rollout
    from what is pooled to the tokens, sums to 1 at most. relevance: float32[m t s], gradient-weighted, of each target's
    logit, less the smallest, which every token has where the model pools by a mean. rounding: float32[m], what is no
    more than this in a relevance may be rounding alone.
    filters: float32[c t h w 3], the tubelet kernel, a filter each.
    parameters, multiply_adds: of the model, for one clip.
    unit: of the stamps, "s"; "frame" for an array, whose stamps are the numbers of its frames, from 0.
    head_names: what the heads of the classifier are called, as Model.head_names.
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

    def save(self, path: str | Path) -> None:
        """Writes a self-contained page (.html) or a still picture (.png). Raises ValueError as saving.save."""
        from vivit.explain.saving import save  # which needs this file

        save(self, path)

    def __repr__(self) -> str:
        best = ", ".join(f"{printable(head[0].label)} {100 * head[0].probability:.1f} %" for head in self.scores)
        return (
            f"Explanation of {printable(self.name)!r}: {best}\n"
            f"  view {self.view + 1} of {len(self.views)}, relevance of {len(self.targets)} labels, "
            f"{len(self.attention)} attentions\n"
            '  save("report.html") writes the page'
        )

    def _repr_html_(self) -> str:
        """The page, as notebooks show it: in a frame, so that neither it nor the notebook changes the other."""
        from vivit.explain.page import framed  # which needs this file

        return framed(self)
