"""Handles Config fields that a checkpoint's file does not record: arguments of `load`, and inferred clip sizes."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from vivit.reference.config import Config, Model, Order, Pooling, Positions
from vivit.reference.values import quoted


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """Config fields that the user gives because the file does not record them. None: not given."""

    model: Model | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    sampled_frames: int | None = None
    pooling: Pooling | None = None
    order: Order | None = None
    positions: Positions | None = None
    classes: tuple[int, ...] | None = None

    def check(self, config: Config, source: str) -> None:
        """Raises ValueError if an override contradicts the checkpoint, except in clip size."""
        for field in fields(self):
            given, found = getattr(self, field.name), getattr(config, field.name)
            if field.name not in ("frames", "height", "width") and given is not None and given != found:
                raise ValueError(f"{field.name} is {quoted(given)}: {source} has {quoted(found)}")

    def size(self, config: Config) -> tuple[int, int, int]:
        """Returns (frames, height, width), overridden where given, else the config's."""
        return (self.frames or config.frames, self.height or config.height, self.width or config.width)


class MissingFields:
    """Collects the fields that a checkpoint does not record, so that one error names all of them."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.asked: list[str] = []

    def add(self, argument: str, choices: str) -> None:
        """Adds an argument and its possible values."""
        self.asked.append(f"{argument} ({choices})")

    def raise_if_any(self, alternative: str = "") -> None:
        """Raises ValueError that names the missing arguments, if any. alternative: another remedy to offer."""
        if self.asked:
            asked = "; ".join(self.asked)
            raise ValueError(f"{self.source} does not record all fields: pass {asked}; or config={alternative}")


def infer_clip_size(
    tubelet: tuple[int, int, int],
    counts: list[tuple[int | None, int | None]],
    overrides: Overrides,
    missing: MissingFields,
    *,
    time: Literal["frames", "sampled_frames"] = "frames",
) -> dict[str, int]:
    """Returns the frames (or sampled_frames, according to `time`), height and width of a checkpoint's clips.

    Undetermined fields are added to `missing`. counts: the token counts (time, space) that its positions allow; None:
    without learned positions. Frames are assumed to be square unless `overrides` has a matching height and width.
    sampled_frames is at most the frames of `overrides`. If only one size is possible, it is returned for any requested
    size.
    """
    names = (time, "height", "width")
    wanted = tuple(getattr(overrides, name) for name in names)
    longest = overrides.frames if time == "sampled_frames" else None
    sizes = []
    for steps, space in counts:
        frames = wanted[0] if steps is None else steps * tubelet[0]
        sizes += [
            (frames, rows * tubelet[1], columns * tubelet[2]) for rows, columns in _grids(space, tubelet, overrides)
        ]
    fitting = [size for size in sizes if all(want in (None, own) for want, own in zip(wanted, size, strict=True))]
    fitting = [size for size in fitting if longest is None or size[0] is None or size[0] <= longest]
    possible = fitting if len(fitting) == 1 else sizes
    if len(possible) == 1 and possible[0][0] is not None:
        return dict(zip(names, possible[0], strict=True))
    unit = time.replace("_", " ")
    options = ["the clip" if frames is None else f"{frames} {unit}" for frames, _, _ in sizes]
    options = [f"{words} of {height}x{width}" for words, (_, height, width) in zip(options, sizes, strict=True)]
    absent = [name for name, want in zip(names, wanted, strict=True) if want is None]
    if fitting or not sizes:
        missing.add(
            " ".join(f"{name}=" for name in absent), "one of " + "; ".join(options) if options else "its own clip"
        )
    else:
        missing.add(f"the checkpoint's own {time}= height= width=", "one of " + "; ".join(options))
    return {}


def _grids(space: int | None, tubelet: tuple[int, int, int], overrides: Overrides) -> list[tuple[int, int]]:
    """Returns the (rows, columns) of tokens that a frame of `space` tokens may have."""
    given = (
        None
        if overrides.height is None or overrides.width is None
        else (overrides.height // tubelet[1], overrides.width // tubelet[2])
    )
    if given is not None and (space is None or math.prod(given) == space):
        return [given]
    side = math.isqrt(space or 0)
    return [(side, side)] if space and side**2 == space else []
