"""`vivit info`: prints sizes and costs of the named variants, beside the paper's figures, as text or JSON."""

import argparse
import json
from dataclasses import asdict, dataclass

from vivit.cli.console import console, show
from vivit.cli.parser import Parser
from vivit.cli.table import Table
from vivit.reference.config import NAMES, Config, named
from vivit.reference.costs import multiply_adds
from vivit.reference.params import parameters


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit info vivit-b/16x2")
    parser.add_argument("name", nargs="?", metavar="NAME", help="a variant, such as vivit-b/16x2 (default: all)")
    parser.add_argument("--json", action="store_true", help="print JSON, with the complete configs")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Prints the table or JSON. Returns the exit code 0."""
    variants = family(options.name)
    if options.json:
        print(json.dumps(as_json(variants), indent=1))
        return 0
    rows = [
        (
            one.name,
            f"{one.config.frames}x{one.config.height}x{one.config.width}",
            f"{one.tokens:,}",
            f"{one.parameters:,}",
            _or_dash(one.paper_parameters_millions),
            f"{one.multiply_adds / 1e9:.4g}",
            _or_dash(one.paper_multiply_adds_billions),
        )
        for one in variants
    ]
    columns = ("variant", "clip", "tokens", "parameters", "[paper, M]", "GFLOPs", "[paper]")
    title = "Multiply-adds for one clip; in brackets the paper's table 2 (88.9 M, 455.2 G, ...)"
    show(Table(columns, rows, title=title), console())
    return 0


def _or_dash(figure: float | None) -> str:
    return "-" if figure is None else f"{figure:g}"


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
    """A named variant; the paper's figures are None where it gives none."""

    name: str
    config: Config
    tokens: int
    parameters: int
    multiply_adds: int
    paper_parameters_millions: float | None
    paper_multiply_adds_billions: float | None
    paper_tpu_v3_milliseconds: float | None


def variant(name: str) -> Variant:
    """Returns a named variant with its figures. Raises ValueError for an unknown name."""
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
    """Returns the variants that `vivit info NAME` shows: all models of a size, or only one if the name has its suffix.

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
    """Returns plain values for JSON, with the complete configs."""
    return [asdict(one) for one in variants]
