"""`vivit classify VIDEO…`: prints the most probable labels as text or JSON."""

import argparse
import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from vivit.cli.arguments import (
    add_checkpoint,
    add_clips,
    add_limits,
    add_top,
    add_videos,
    add_views,
    limits,
    load_model,
    warn_demo_model,
)
from vivit.cli.console import console, videos_progress
from vivit.cli.parser import Parser
from vivit.files.paths import printable

if TYPE_CHECKING:
    from vivit.inference.classification import Classification, Score
    from vivit.pretrained import Model


def add(parser: Parser) -> None:
    """Adds the arguments of the command."""
    parser.show_examples("vivit classify video.mp4 --checkpoint runs/first/model --views 4x3 --top 3")
    add_videos(parser)
    add_checkpoint(parser)
    add_views(parser)
    add_clips(parser)
    add_top(parser)
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="decoding threads (default: 2)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text, with the scores of every view")
    add_limits(parser)
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Returns the exit code 0, or 2 if a video could not be used; the others are still classified."""
    from vivit.inference.classification import classify_videos  # here, so that `vivit info` need not load JAX
    from vivit.video.inputs import videos

    names = videos(options.videos)
    model, checkpoint = load_model(options)
    settings = {name: getattr(options, name) for name in ("views", "top", "stride", "batch", "dtype", "threads")}
    results = classify_videos(model, names, **settings, limits=limits(options))
    if options.json:
        stride = model.preprocessing.stride if options.stride is None else options.stride
        header = dict(checkpoint=checkpoint, views=options.views, stride=stride, heads=model.head_names)
        print(json.dumps(header)[:-1] + ', "videos": [')
    failed = 0
    with videos_progress(len(names)) as bar:
        out = bar.console if sys.stdout.isatty() and sys.stderr.isatty() else console()
        for number, (name, one) in enumerate(bar.track(zip(names, results, strict=True), total=len(names))):
            if isinstance(one, ValueError):
                failed += 1
                print(f"vivit classify: {printable(str(one))}", file=sys.stderr)
            if options.json:
                print(json.dumps(_as_json(model, name, one, options.top)) + ("," if number + 1 < len(names) else ""))
            elif not isinstance(one, ValueError):
                out.print("\n".join(_lines(name, one, model.head_names)), markup=False, highlight=False, soft_wrap=True)
    if options.json:
        print("]}")
    if failed < len(names):
        warn_demo_model(options, unlabelled=model.labels is None)
    return 2 if failed else 0


def _lines(name: str, result: "Classification", heads: tuple[str, ...]) -> Iterator[str]:
    stamps = np.concatenate([view.stamps for view in result.views])
    count = f"{len(result.views)} view{'s' * (len(result.views) > 1)}"
    yield f"{printable(name)}: {count}, {stamps.min():.2f} to {stamps.max():.2f} s"
    for head_name, head in zip(heads, result.heads, strict=True):
        if len(heads) > 1:
            yield f"  {printable(head_name)}"
        for score in head:
            yield f"  {100 * score.probability:6.2f} %  {printable(score.label)}"


def _as_json(model: "Model", name: str, result: "Classification | ValueError", top: int) -> dict[str, Any]:
    from vivit.inference.classification import scores

    if isinstance(result, ValueError):
        return {"video": name, "error": str(result)}
    return {
        "video": name,
        "heads": _plain(result.heads),
        "views": [
            {"start": view.stamps.min(), "end": view.stamps.max(), "crop": view.crop, "heads": _plain(heads)}
            for view, heads in zip(result.views, (scores(model, row, top) for row in result.logits), strict=True)
        ],
    }


def _plain(heads: "tuple[tuple[Score, ...], ...]") -> list[list[dict[str, Any]]]:
    return [[score._asdict() for score in head] for head in heads]
