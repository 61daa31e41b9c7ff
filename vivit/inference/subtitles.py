"""A timeline as subtitles, which video players show: SubRip (.srt) and WebVTT (.vtt)."""

from collections.abc import Sequence

from vivit.files.paths import printable
from vivit.inference.timeline import Span


def srt(spans: Sequence[Span], *, heads: bool = False) -> str:
    """Returns SubRip subtitles, one per span. heads: write the name of the head before each label."""
    cues = (f"{number}\n{_times(span, ',')}\n{_text(span, heads)}\n" for number, span in enumerate(spans, 1))
    return "\n".join(cues)


def vtt(spans: Sequence[Span], *, heads: bool = False) -> str:
    """Returns WebVTT subtitles, one cue per span. heads: write the name of the head before each label."""
    escapes = str.maketrans({"&": "&amp;", "<": "&lt;", ">": "&gt;"})
    cues = (f"\n{_times(span, '.')}\n{_text(span, heads).translate(escapes)}\n" for span in spans)
    return "".join(["WEBVTT\n", *cues])


def clock(seconds: float, point: str = ".") -> str:
    """Returns hours:minutes:seconds with three decimals, such as 00:01:02.500."""
    whole, milliseconds = divmod(round(seconds * 1000), 1000)
    minutes, seconds = divmod(whole, 60)
    return f"{minutes // 60:02}:{minutes % 60:02}:{seconds:02}{point}{milliseconds:03}"


def _times(span: Span, point: str) -> str:
    return f"{clock(span.start, point)} --> {clock(span.end, point)}"


def _text(span: Span, heads: bool) -> str:
    """Returns one line. A line break would end the cue in some players, and an empty line does in all."""
    text = f"{span.head}: {span.label}" if heads else span.label
    return f"{printable(' '.join(text.split()))} ({100 * span.probability:.0f} %)"
