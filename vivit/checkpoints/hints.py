"""What a user says of a checkpoint that its file does not: arguments of `load`, and how they settle its clip size."""

import math
from dataclasses import dataclass, fields

from vivit.reference.config import Config, Model, Order, Pooling, Positions


@dataclass(frozen=True, kw_only=True)
class Hints:
    """Fields of a Config as a user gives them; None: not given. Meanings as in Config."""

    model: Model | None = None
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    pooling: Pooling | None = None
    order: Order | None = None
    positions: Positions | None = None
    classes: tuple[int, ...] | None = None

    def check(self, config: Config, source: str) -> None:
        """Raises ValueError if what was said contradicts what the checkpoint says, its clip size apart."""
        for field in fields(self):
            said, found = getattr(self, field.name), getattr(config, field.name)
            if field.name not in ("frames", "height", "width") and said is not None and said != found:
                raise ValueError(f"{field.name} is {said!r}: {source} has {found!r}")

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

    def answer(self) -> None:
        """Raises ValueError, naming the arguments, if anything was asked."""
        if self.asked:
            raise ValueError(f"{self.source} does not say everything: pass {'; '.join(self.asked)}; or config=")


def settle_size(
    tubelet: tuple[int, int, int], counts: list[tuple[int | None, int | None]], hints: Hints, questions: Questions
) -> dict[str, int]:
    """The frames, height and width that a checkpoint was made for; what stays open is asked for.

    counts: which token counts (time, space) its positions allow; None: no position tells. Pictures are taken as square
    unless `hints` names a height and width that fit. Where only one size is possible it stands, whatever is asked for.
    """
    sizes = []
    for time, space in counts:
        frames = hints.frames if time is None else time * tubelet[0]
        sizes += [(frames, rows * tubelet[1], columns * tubelet[2]) for rows, columns in _grids(space, tubelet, hints)]
    wanted = (hints.frames, hints.height, hints.width)
    fitting = [size for size in sizes if all(want in (None, own) for want, own in zip(wanted, size, strict=True))]
    possible = fitting if len(fitting) == 1 else sizes
    if len(possible) == 1 and possible[0][0] is not None:
        return dict(zip(("frames", "height", "width"), possible[0], strict=True))
    shown = ["the clip" if frames is None else f"{frames} frames" for frames, _, _ in sizes]
    shown = [f"{words} of {height}x{width}" for words, (_, height, width) in zip(shown, sizes, strict=True)]
    missing = [name for name, want in zip(("frames", "height", "width"), wanted, strict=True) if want is None]
    if fitting or not sizes:
        questions.ask(
            " ".join(f"{name}=" for name in missing), "one of " + "; ".join(shown) if shown else "its own clip"
        )
    else:
        questions.ask("the checkpoint's own frames= height= width=", "one of " + "; ".join(shown))
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
