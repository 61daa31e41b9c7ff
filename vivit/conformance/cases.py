"""What an implementation is tried on: sizes, masks, scores and values, drawn by hypothesis."""

from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from vivit.audit.variants import rounded

Shape = tuple[int, int, int, int, int]  # b t s heads d

# a different size on every axis
GENERAL: tuple[Shape, ...] = ((2, 3, 5, 4, 7), (1, 5, 13, 2, 64))
ONE_TOKEN: dict[str, tuple[Shape, ...]] = {  # sequences of one token
    "joint": ((2, 1, 1, 4, 5),),
    "spatial": ((2, 1, 1, 4, 5), (3, 7, 1, 2, 5)),
    "temporal": ((2, 1, 1, 4, 5), (3, 1, 7, 2, 5)),
    "factorised_dot_product": ((2, 1, 1, 4, 5), (3, 7, 1, 2, 5), (3, 1, 7, 2, 5)),
}
BASE: dict[str, tuple[Shape, ...]] = {  # the sequences of ViViT-B: 14x14 tokens, with and without a class token
    "joint": ((1, 1, 196, 12, 64), (1, 1, 197, 12, 64)),
    "spatial": ((1, 2, 196, 12, 64), (1, 1, 197, 12, 64)),
    "temporal": ((1, 16, 13, 12, 64), (1, 17, 7, 12, 64)),
    "factorised_dot_product": ((1, 3, 196, 12, 64), (1, 16, 5, 12, 64)),
}
MASKS = ("none", "some", "rows", "all")


class Case(NamedTuple):
    """One trial of an attention core. masks: which tokens are masked, one of MASKS. scale: of query, key and value."""

    shape: Shape
    dtype: str
    scale: float = 1.0
    masked: str = "none"
    seed: int = 0

    def __str__(self) -> str:
        b, t, s, heads, d = self.shape
        scores = "" if self.scale == 1 else f", values times {self.scale:g}"
        mask = {"none": "", "some": ", some tokens masked", "rows": ", rows masked", "all": ", all masked"}[self.masked]
        return f"b {b}, t {t}, s {s}, {heads} heads of {d}, {self.dtype}{scores}{mask}, seed {self.seed}"


class Inputs(NamedTuple):
    """Arguments of a core in the layout [b t s ..], also of `joint`, whose tokens are t·s: NumPy float32.

    qkv: [b t s 3c]. out: the cotangent of the result, [b t s c]. mask: bool[b t s] or None.
    """

    qkv: np.ndarray
    out: np.ndarray
    mask: np.ndarray | None
    heads: int


def inputs(case: Case) -> Inputs:
    """Returns the arguments of a case; the values are exact in bfloat16."""
    b, t, s, heads, d = case.shape
    generator = np.random.default_rng(case.seed)
    qkv = rounded(case.scale * rounded(generator.standard_normal((b, t, s, 3 * heads * d))))
    out = rounded(generator.standard_normal((b, t, s, heads * d)))
    mask = None if case.masked == "none" else generator.random((b, t, s)) >= 0.3
    if mask is not None:
        for i in range(max(t, s)):  # a key for every query
            mask[:, i % t, i % s] = True
    if mask is not None and case.masked == "rows":  # of padding: a time, and a position
        mask[:, generator.integers(t)] = False
        mask[:, :, generator.integers(s)] = False
    if mask is not None and case.masked == "all":
        mask[:] = False
    return Inputs(qkv, out, mask, heads)


def cases(
    shapes: st.SearchStrategy[Shape],
    dtype: str,
    *,
    scales: tuple[float, ...] = (1.0,),
    masks: tuple[str, ...] = ("none",),
) -> st.SearchStrategy[Case]:
    """Draws cases with these sizes."""
    chosen: dict[str, Any] = dict(scale=st.sampled_from(scales), masked=st.sampled_from(masks))
    return st.builds(Case, shapes, st.just(dtype), **chosen, seed=st.integers(0, 2**32 - 1))


@st.composite
def any_shape(draw: st.DrawFn) -> Shape:
    """Draws sizes that differ on every axis; the heads are even, as half of them may attend over time."""
    heads = draw(st.sampled_from((2, 4, 6)))
    b, t, s, d = draw(st.lists(st.integers(1, 11).filter(lambda n: n != heads), min_size=4, max_size=4, unique=True))
    return b, t, s, heads, d
