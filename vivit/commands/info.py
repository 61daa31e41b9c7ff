"""`vivit info`: the table of vivit/info.py, as text or JSON."""

import argparse
import json

from vivit import info
from vivit.commands.shown import console, show
from vivit.commands.table import Table


def add(commands: argparse._SubParsersAction) -> None:
    """Adds the command to the parser."""
    shown = commands.add_parser(
        "info",
        help="the named variants: parameters and GFLOPs, beside the paper's",
        example="vivit info vivit-b/16x2",
    )
    shown.add_argument("name", nargs="?", metavar="NAME", help="such as vivit-b/16x2 or vivit-b/16x2-fe (default: all)")
    shown.add_argument("--json", action="store_true", help="print JSON, the whole config included")
    shown.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """0."""
    variants = info.family(options.name)
    if options.json:
        print(json.dumps(info.as_json(variants), indent=1))
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
