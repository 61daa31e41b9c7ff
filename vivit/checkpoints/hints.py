"""What a user says of a checkpoint that its file does not: arguments of `load`, and how they settle its clip size."""

import math
from dataclasses import dataclass, fields
from typing import Literal

from vivit.reference.config import Config, Model, Order, Pooling, Positions
from vivit.reference.values import quoted


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Fields of a Config as a user gives them; None: not given. Meanings as in Config."""

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
        """Raises ValueError if what was said contradicts what the checkpoint says, its clip size apart."""
        for field in fields(self):
            said, found = getattr(self, field.name), getattr(config, field.name)
            if field.name not in ("frames", "height", "width") and said is not None and said != found:
                raise ValueError(f"{field.name} is {quoted(said)}: {source} has {quoted(found)}")

    def size(self, config: Config) -> tuple[int, int, int]:
        """(frames, height, width) that was asked for, the config's where nothing was."""
        return (self.frames or config.frames, self.height or config.height, self.width or config.width)


class Questions:
    """Collects what a checkpoint does not say, so that one error asks for all of it."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.asked: list[str] = []

    def ask(self, argument: str, choices: str) -> None:
        self.asked.append(f"{argument} ({choices})")

    def answer(self, otherwise: str = "") -> None:
        """Raises ValueError, naming the arguments, if anything was asked. otherwise: what else there is to do."""
        if self.asked:
            asked = "; ".join(self.asked)
            raise ValueError(f"{self.source} does not say everything: pass {asked}; or config={otherwise}")


def settle_size(
    tubelet: tuple[int, int, int],
    counts: list[tuple[int | None, int | None]],
    hints: Hints,
    questions: Questions,
    *,
    time: Literal["frames", "sampled_frames"] = "frames",
) -> dict[str, int]:
    """The frames (or sampled_frames, as `time` says), height and width that a checkpoint was made for.

    What stays open is asked for. counts: which token counts (time, space) its positions allow; None: no position tells.
    Pictures are taken as square unless `hints` names a height and width that fit. No more frames are sampled than a
    clip of `hints` has. Where only one size is possible it stands, whatever is asked for.
    """
    names = (time, "height", "width")
    wanted = tuple(getattr(hints, name) for name in names)
    longest = hints.frames if time == "sampled_frames" else None
    sizes = []
    for steps, space in counts:
        frames = wanted[0] if steps is None else steps * tubelet[0]
        sizes += [(frames, rows * tubelet[1], columns * tubelet[2]) for rows, columns in _grids(space, tubelet, hints)]
    fitting = [size for size in sizes if all(want in (None, own) for want, own in zip(wanted, size, strict=True))]
    fitting = [size for size in fitting if longest is None or size[0] is None or size[0] <= longest]
    possible = fitting if len(fitting) == 1 else sizes
    if len(possible) == 1 and possible[0][0] is not None:
        return dict(zip(names, possible[0], strict=True))
    of = time.replace("_", " ")
    shown = ["the clip" if frames is None else f"{frames} {of}" for frames, _, _ in sizes]
    shown = [f"{words} of {height}x{width}" for words, (_, height, width) in zip(shown, sizes, strict=True)]
    missing = [name for name, want in zip(names, wanted, strict=True) if want is None]
    if fitting or not sizes:
        questions.ask(
            " ".join(f"{name}=" for name in missing), "one of " + "; ".join(shown) if shown else "its own clip"
        )
    else:
        questions.ask(f"the checkpoint's own {time}= height= width=", "one of " + "; ".join(shown))
    return {}


def _grids(space: int | None, tubelet: tuple[int, int, int], hints: Hints) -> list[tuple[int, int]]:
    """The (rows, columns) of tokens that a picture of `space` tokens may have."""
    given = (
        None if hints.height is None or hints.width is None else (hints.height // tubelet[1], hints.width // tubelet[2])
    )
    if given is not None and (space is None or math.prod(given) == space):
        return [given]
    side = math.isqrt(space or 0)
    return [(side, side)] if space and side**2 == space else []
