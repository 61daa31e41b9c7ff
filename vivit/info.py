"""What the named variants are made of and cost, beside the paper's table."""

from dataclasses import asdict, dataclass

from vivit.reference.config import NAMES, Config, named
from vivit.reference.costs import multiply_adds
from vivit.reference.params import parameters

# Arnab et al. 2021, table 2: parameters in millions, multiply-adds in 10⁹ ("FLOPs"), milliseconds a clip on TPU-v3
PAPER = {
    "vivit-b/16x2": (88.9, 455.2, 58.9),
    "vivit-b/16x2-fe": (115.1, 284.4, 17.4),
    "vivit-b/16x2-fsa": (117.3, 372.3, 31.7),
    "vivit-b/16x2-fdp": (88.9, 277.1, 22.9),
    "vivit-b/16x2-fe-average": (86.7, 283.9, 17.3),
}


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One named variant; the paper's figures are None where it gives none."""

    name: str
    config: Config
    tokens: int
    parameters: int
    multiply_adds: int
    paper_parameters_millions: float | None
    paper_multiply_adds_billions: float | None
    paper_tpu_v3_milliseconds: float | None


def variant(name: str) -> Variant:
    """A named variant with its figures. Raises ValueError for an unknown name."""
    config = named(name)
    time, height, width = config.grid
    paper = PAPER.get(name, (None, None, None))
    return Variant(
        name=name,
        config=config,
        tokens=time * height * width,
        parameters=parameters(config),
        multiply_adds=multiply_adds(config),
        paper_parameters_millions=paper[0],
        paper_multiply_adds_billions=paper[1],
        paper_tpu_v3_milliseconds=paper[2],
    )


def family(name: str | None = None) -> list[Variant]:
    """The variants that `vivit info NAME` shows: the one that a suffix picks, without one all models of that size.

    Without a name all named variants. Raises ValueError for an unknown name.
    """
    if name is None:
        return [variant(known) for known in NAMES]
    name = name.lower()
    chosen = variant(name)
    suffixes = [known.removeprefix("vivit-b/16x2") for known in PAPER]
    if any(suffix and name.endswith(suffix) for suffix in suffixes):
        return [chosen]
    return [variant(name + suffix) for suffix in suffixes]


def as_json(variants: list[Variant]) -> list[dict]:
    """Plain values for JSON, the whole config among them."""
    return [asdict(one) for one in variants]
