"""A timeline as an HTML page: the film, the spans of each label as bars below it, and a table to jump from."""

import os
from pathlib import Path
from urllib.parse import quote

from vivit.explanation.template import render
from vivit.inference.subtitles import clock
from vivit.inference.timeline import Timeline


def timeline_page(timeline: Timeline, *, name: str, checkpoint: str, film: str | Path | None, folder: Path) -> str:
    """Returns the page, which loads nothing but the film.

    name: of the video. film: its file, or None if there is none to show. folder: that of the page; the film is found
    relative to it, so that both can be moved together.
    """
    length = float(timeline.edges[-1] - timeline.edges[0])
    lanes: dict[tuple[str, str], list] = {}
    for span in timeline.spans:
        left = 100 * (span.start - float(timeline.edges[0])) / length
        width = 100 * (span.end - span.start) / length
        lanes.setdefault((span.head, span.label), []).append((span, f"{left:.4f}", f"{width:.4f}", clock(span.start)))
    heads = {span.head for span in timeline.spans}
    return render(
        "timeline.html",
        styles=("page.css", "timeline.css"),
        script="timeline.js",
        name=name,
        checkpoint=checkpoint,
        film=None if film is None else quote(os.fsencode(os.path.relpath(film, folder))),
        lanes=list(lanes.items()),
        heads=len(heads) > 1,
        rows=[(span, clock(span.start), clock(span.end)) for span in timeline.spans],
        start=clock(float(timeline.edges[0])),
        end=clock(float(timeline.edges[-1])),
    )
